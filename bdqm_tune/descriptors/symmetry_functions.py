"""Behler–Parrinello symmetry functions G2, G4 and G5.

Behler, "Atom-centered symmetry functions for constructing high-dimensional neural network potentials", J. Chem. Phys.
134, 074106 (2011), equations 4 and 6–9; the polynomial cutoff function is that of Khorshidi and Peterson, "Amp",
Comput. Phys. Commun. 207, 310 (2016).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.descriptors import symmetry_kernels as kernels
from bdqm_tune.descriptors.base import Descriptor, SparseDerivatives
from bdqm_tune.descriptors.neighbours import Neighbours, find_entries, find_neighbours
from bdqm_tune.descriptors.symmetry_parameters import Parameters, by_element, cutoffs
from bdqm_tune.errors import BadInput
from bdqm_tune.structures.read import check_geometry

VERSION = 1  # of the features; raise it when the code gives other numbers, so that cached ones are not used


class SymmetryFunctions(Descriptor):
    """Sums over the neighbours j of an atom, and over pairs j, k of them, one for each element or pair of elements:

        G2 = Σ_j exp(-eta·(R_ij - R_s)²)·f_c(R_ij)
        G4 = 2^(1 - zeta)·Σ_jk (1 + gamma·cos θ_jik)^zeta·exp(-eta·(R_ij² + R_ik² + R_jk²))
                          ·f_c(R_ij)·f_c(R_ik)·f_c(R_jk)
        G5 = the same without the terms of R_jk

    with the cutoff function f_c(R) = (1 + cos(π R/R_c))/2, or 1 + g·x^(g + 1) - (g + 1)·x^g, x = R/R_c. As in amptorch,
    every pair j, k counts once, and eta is the number given divided by R_c² in G2 and G4, the number itself in G5.

    Which functions an atom has depends on its element. Columns run through G2, then G4, then G5: G2 by (the neighbour's
    element, eta, R_s), the others by (first element, second, eta, zeta, gamma), all ascending, elements by atomic
    number. Where elements have different numbers of functions, the rows of those with fewer end in zeros.
    """

    def __init__(
        self,
        elements: Sequence[str],
        cutoff: float | Mapping[str, float],
        g2: Mapping[str, Any] | None = None,
        g4: Mapping[str, Any] | None = None,
        g5: Mapping[str, Any] | None = None,
        cutoff_function: Literal["cosine", "polynomial"] = "cosine",
        gamma: float | None = None,
    ) -> None:
        """
        Args:
            elements: symbols of all elements that a structure may hold.
            cutoff: R_c, Å, positive; or one for each element of the centre.
            g2: `etas` (0 or more, dimensionless) and `rs` (Å): all combinations; or such a mapping for each element of
                the centre, where `default` applies to the others.
            g4: `etas` (as g2), `zetas` (1 or more), `gammas` (from -1 to 1): all combinations; or for each element.
            g5: as g4, etas in 1/Å².
            cutoff_function: cosine or polynomial.
            gamma: g of the polynomial, positive.

        Raises:
            BadInput: a value outside its range, or an unknown element or key.
        """
        if len(elements) == 0 or len(set(elements)) != len(elements) or not set(elements) <= set(chemical_symbols[1:]):
            raise BadInput(f"descriptor elements must be different chemical symbols, got {list(elements)}")
        if cutoff_function not in ("cosine", "polynomial"):
            raise BadInput(f"descriptor cutoff_function must be cosine or polynomial, got {cutoff_function!r}")
        if (cutoff_function == "polynomial") != (gamma is not None):
            raise BadInput("descriptor gamma belongs to the polynomial cutoff_function, which needs it")
        if gamma is not None and not (math.isfinite(gamma) and gamma > 0):
            raise BadInput(f"descriptor gamma must be positive, got {gamma}")
        self.elements = sorted(elements, key=lambda symbol: atomic_numbers[symbol])
        self.cutoffs = cutoffs(cutoff, self.elements)
        self.g2 = by_element("g2", g2, self.elements, ("etas", "rs"))
        self.g4 = by_element("g4", g4, self.elements, ("etas", "zetas", "gammas"))
        self.g5 = by_element("g5", g5, self.elements, ("etas", "zetas", "gammas"))
        self.cutoff_function = cutoff_function
        self.gamma = None if gamma is None else float(gamma)
        self._functions = {element: self._prepare(element) for element in self.elements}
        self._n_features = max(n for *_, n in self._functions.values())
        if self._n_features == 0:
            raise BadInput("descriptor has no functions: give g2, g4 or g5, as g2={'etas': [0.05, 4.0], 'rs': [0.0]}")

    @property
    def n_features(self) -> int:
        return self._n_features

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "name": "symmetry_functions",
            "version": VERSION,
            "elements": self.elements,
            "cutoff": self.cutoffs,
            "g2": self.g2,
            "g4": self.g4,
            "g5": self.g5,
            "cutoff_function": self.cutoff_function,
            "gamma": self.gamma,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "SymmetryFunctions":
        """The descriptor whose `settings` these are."""
        return cls(**{key: value for key, value in settings.items() if key not in ("name", "version")})

    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        neighbours = self._find_neighbours(atoms)
        entry, own = np.zeros(len(neighbours.index), dtype=np.int64), np.zeros(len(atoms), dtype=np.int64)
        return self._run(atoms, neighbours, entry, own, np.zeros((0, self.n_features, 3)))

    def sparse_derivatives(self, atoms: Atoms, images: bool = False) -> tuple[NDArray[np.float64], SparseDerivatives]:
        neighbours = self._find_neighbours(atoms)
        entries = find_entries(neighbours, images)
        derivatives = np.zeros((len(entries.centre), self.n_features, 3))
        features = self._run(atoms, neighbours, entries.of_pair, entries.own, derivatives)
        return features, SparseDerivatives(entries.centre, entries.atom, derivatives, entries.vector)

    def _find_neighbours(self, atoms: Atoms) -> Neighbours:
        check_geometry(atoms)
        missing = [symbol for symbol in dict.fromkeys(atoms.get_chemical_symbols()) if symbol not in self.elements]
        if missing:
            raise BadInput(
                f"no symmetry functions for element {', '.join(missing)}; there are: {' '.join(self.elements)}"
            )
        return find_neighbours([atoms], max(self.cutoffs.values()))

    def _run(
        self,
        atoms: Atoms,
        neighbours: Neighbours,
        entry: NDArray[np.int64],
        own: NDArray[np.int64],
        derivatives: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The features; the derivatives are added to `derivatives`, unless it is empty."""
        species = np.searchsorted([atomic_numbers[element] for element in self.elements], atoms.numbers)
        distance = np.sqrt(np.sum(neighbours.vector**2, axis=1))
        pairs = kernels.Pairs(neighbours.start, species[neighbours.index], neighbours.vector, distance, entry, own)
        features = np.zeros((len(atoms), self.n_features))
        for place, element in enumerate(self.elements):
            centres = np.flatnonzero(species == place)
            cutoff = kernels.Cutoff(self.cutoffs[element], self.gamma or 0.0)
            radial, *angular, _ = self._functions[element]
            if len(centres) and len(radial.eta):
                kernels.radial(centres, pairs, cutoff, radial, features, derivatives)
            for functions in angular:
                if len(centres) and len(functions.eta):
                    kernels.angular(centres, pairs, cutoff, functions, features, derivatives)
        return features

    def _prepare(self, element: str) -> tuple[kernels.Radial, kernels.Angular, kernels.Angular, int]:
        """The functions of one centre element for the kernels, and how many there are."""
        scale = 1 / self.cutoffs[element] ** 2
        g2 = self.g2.get(element, {"etas": [], "rs": []})
        eta, shift = (grid.ravel() for grid in np.meshgrid(g2["etas"], g2["rs"], indexing="ij"))
        column = np.arange(len(self.elements)) * len(eta)
        radial = kernels.Radial(eta * scale, shift, column)
        after_g2 = len(self.elements) * len(eta)
        g4, after_g4 = self._angular(self.g4.get(element), scale, after_g2, closed=True)
        g5, after_g5 = self._angular(self.g5.get(element), 1.0, after_g4, closed=False)
        return radial, g4, g5, after_g5

    def _angular(self, given: Parameters | None, scale: float, first: int, closed: bool) -> tuple[kernels.Angular, int]:
        """The functions of one kind, from column `first` on, and the column after the last."""
        given = given or {"etas": [], "zetas": [], "gammas": []}
        each = math.prod(map(len, given.values()))
        n = len(self.elements)
        column = np.zeros((n, n), dtype=np.int64)
        for place, (j, k) in enumerate(combinations_with_replacement(range(n), 2)):
            column[j, k] = column[k, j] = first + place * each
        eta, zeta, gamma = (np.array(given[key], dtype=np.float64) for key in ("etas", "zetas", "gammas"))
        return kernels.Angular(eta * scale, zeta, gamma, column, closed), first + n * (n + 1) // 2 * each
