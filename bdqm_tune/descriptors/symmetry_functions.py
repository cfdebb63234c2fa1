"""Behler–Parrinello symmetry functions G2, G4 and G5.

Behler, "Atom-centered symmetry functions for constructing high-dimensional neural network potentials", J. Chem. Phys.
134, 074106 (2011), equations 4 and 6–9; the polynomial cutoff function is that of Khorshidi and Peterson, "Amp",
Comput. Phys. Commun. 207, 310 (2016).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.descriptors import symmetry_kernels as kernels
from bdqm_tune.descriptors.base import Backward, Descriptor, EnergyDerivatives, SparseDerivatives
from bdqm_tune.descriptors.neighbours import Entries, Neighbours, find_entries, find_neighbours
from bdqm_tune.descriptors.pulls import energy_derivatives
from bdqm_tune.descriptors.symmetry_angles import angular, angular_pulls
from bdqm_tune.descriptors.symmetry_derivatives import angular_derivatives
from bdqm_tune.descriptors.symmetry_parameters import CutoffFunction, Function, by_element, combined, cutoffs, listed
from bdqm_tune.errors import BadInput, located
from bdqm_tune.structures.read import check_geometry

VERSION = 1  # of the features; raise it when the code gives other numbers, so that cached ones are not used
NO_ENTRIES = np.zeros(0, dtype=np.int64)


class SymmetryFunctions(Descriptor):
    """Sums over the neighbours j of an atom, and over pairs j, k of them, one for each element or pair of elements:

        G2 = Σ_j exp(-eta·(R_ij - R_s)²)·f_c(R_ij)
        G4 = 2^(1 - zeta)·Σ_jk (1 + gamma·cos θ_jik)^zeta·exp(-eta·(R_ij² + R_ik² + R_jk²))
                          ·f_c(R_ij)·f_c(R_ik)·f_c(R_jk)
        G5 = the same without the terms of R_jk

    with the cutoff function f_c(x), x = R/R_c, of which there are

        cosine      (1 + cos πx)/2
        polynomial  1 + g·x^(g + 1) - (g + 1)·x^g
        quintic     1 - 10 x³ + 15 x⁴ - 6 x⁵
        tanh        tanh³(1 - x)

    Every pair j, k counts once. Functions are given as lists of parameters, which are combined; eta is then, as in
    amptorch, the number given divided by R_c² in G2 and G4, the number itself in G5. Or they are given one by one.

    Which functions an atom has depends on its element. Columns run through G2, then G4, then G5: G2 by (the neighbour's
    element, eta, R_s), the others by (first element, second, eta, zeta, gamma), all ascending, elements by atomic
    number; or through `functions` as they are given. Where elements have different numbers of functions, the rows of
    those with fewer end in zeros.
    """

    def __init__(
        self,
        elements: Sequence[str],
        cutoff: float | Mapping[str, float] | None = None,
        g2: Mapping[str, Any] | None = None,
        g4: Mapping[str, Any] | None = None,
        g5: Mapping[str, Any] | None = None,
        cutoff_function: CutoffFunction = "cosine",
        gamma: float | None = None,
        functions: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            elements: symbols of all elements that a structure may hold.
            cutoff: R_c, Å, positive; or one for each element of the centre.
            g2: `etas` (0 or more, dimensionless) and `rs` (Å): all combinations; or such a mapping for each element of
                the centre, where `default` applies to the others.
            g4: `etas` (as g2), `zetas` (1 or more), `gammas` (from -1 to 1): all combinations; or for each element.
            g5: as g4, etas in 1/Å².
            gamma: g of the polynomial, positive.
            functions: in the place of cutoff, g2, g4 and g5, the functions of each element of the centre, see
                `symmetry_parameters.listed`.

        Raises:
            BadInput: a value outside its range, or an unknown element or key.
        """
        if len(elements) == 0 or len(set(elements)) != len(elements) or not set(elements) <= set(chemical_symbols[1:]):
            raise BadInput(f"descriptor elements must be different chemical symbols, got {list(elements)}")
        if cutoff_function not in kernels.CUTOFF_FUNCTIONS:
            known = ", ".join(kernels.CUTOFF_FUNCTIONS)
            raise BadInput(f"descriptor cutoff_function must be one of {known}, got {cutoff_function!r}")
        if (cutoff_function == "polynomial") != (gamma is not None):
            raise BadInput("descriptor gamma belongs to the polynomial cutoff_function, which needs it")
        if gamma is not None and not (math.isfinite(gamma) and gamma > 0):
            raise BadInput(f"descriptor gamma must be positive, got {gamma}")
        self.elements = sorted(elements, key=lambda symbol: atomic_numbers[symbol])
        self.cutoff_function = cutoff_function
        self.gamma = None if gamma is None else float(gamma)
        combine = functions is None
        self.cutoffs = cutoffs(cutoff, self.elements) if combine else {}
        self.g2 = by_element("g2", g2 if combine else None, self.elements, ("etas", "rs"))
        self.g4 = by_element("g4", g4 if combine else None, self.elements, ("etas", "zetas", "gammas"))
        self.g5 = by_element("g5", g5 if combine else None, self.elements, ("etas", "zetas", "gammas"))
        self.one_by_one = functions is not None
        if functions is not None:
            self.functions = listed(functions, self.elements)
        else:
            self.functions = {
                symbol: combined(
                    self.elements, self.cutoffs[symbol], *(g.get(symbol) for g in (self.g2, self.g4, self.g5))
                )
                for symbol in self.elements
            }
        self._n_features = max(map(len, self.functions.values()))
        if self._n_features == 0:
            raise BadInput("descriptor has no functions: give g2, g4 or g5, as g2={'etas': [0.05, 4.0], 'rs': [0.0]}")
        self._reach = max(function.cutoff for own in self.functions.values() for function in own)
        self._calls = {symbol: self._prepare(own) for symbol, own in self.functions.items()}
        self._places = np.full(len(chemical_symbols), -1)  # of each atomic number in the elements; -1: none
        self._places[[atomic_numbers[symbol] for symbol in self.elements]] = np.arange(len(self.elements))

    @property
    def n_features(self) -> int:
        return self._n_features

    @property
    def settings(self) -> dict[str, Any]:
        given: dict[str, Any] = {"cutoff": self.cutoffs, "g2": self.g2, "g4": self.g4, "g5": self.g5}
        if self.one_by_one:
            given = {"functions": {symbol: [one.options for one in own] for symbol, own in self.functions.items()}}
        return {
            "name": "symmetry_functions",
            "version": VERSION,
            "elements": self.elements,
            **given,
            "cutoff_function": self.cutoff_function,
            "gamma": self.gamma,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "SymmetryFunctions":
        """The descriptor whose `settings` these are."""
        return cls(**{key: value for key, value in settings.items() if key not in ("name", "version")})

    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        self._check(atoms)
        return self._compute([atoms])

    def compute_all(self, structures: Sequence[Atoms], names: Sequence[str]) -> NDArray[np.float64]:
        for atoms, name in zip(structures, names, strict=True):
            with located(name):
                self._check(atoms)
        return self._compute(structures)

    def sparse_derivatives(self, atoms: Atoms, images: bool = False) -> tuple[NDArray[np.float64], SparseDerivatives]:
        self._check(atoms)
        neighbours = find_neighbours([atoms], self._reach)
        entries = find_entries(neighbours, images)
        derivatives = np.zeros((len(entries.centre), self.n_features, 3))
        species = self._species([atoms])
        pairs = _pairs(neighbours, species, entries)
        features = self._features(species, pairs, derivatives)
        return features, SparseDerivatives(entries.centre, entries.atom, derivatives, entries.vector)

    def with_backward(self, atoms: Atoms) -> tuple[NDArray[np.float64], Backward]:
        self._check(atoms)
        neighbours = find_neighbours([atoms], self._reach)
        species = self._species([atoms])
        pairs = _pairs(neighbours, species)

        def backward(by_features: NDArray[np.float64]) -> EnergyDerivatives:
            by_features = np.ascontiguousarray(by_features)  # another layout would be compiled again
            pulls = np.zeros((len(by_features), len(neighbours.index), 3))
            for centres, cutoff, functions in self._by_element(species):
                add = kernels.radial_pulls if isinstance(functions, kernels.Radial) else angular_pulls
                add(centres, pairs, cutoff, functions, by_features, pulls)
            return energy_derivatives(neighbours, pulls)

        return self._features(species, pairs), backward

    def _check(self, atoms: Atoms) -> None:
        check_geometry(atoms)
        if (self._places[atoms.numbers] < 0).any():
            missing = [symbol for symbol in dict.fromkeys(atoms.get_chemical_symbols()) if symbol not in self.elements]
            raise BadInput(
                f"no symmetry functions for element {', '.join(missing)}; there are: {' '.join(self.elements)}"
            )

    def _compute(self, structures: Sequence[Atoms]) -> NDArray[np.float64]:
        species = self._species(structures)
        return self._features(species, _pairs(find_neighbours(structures, self._reach), species))

    def _species(self, structures: Sequence[Atoms]) -> NDArray[np.int64]:
        """Index of each atom's element in the descriptor's elements (n_atoms,)."""
        return self._places[np.concatenate([atoms.numbers for atoms in structures])]

    def _by_element(
        self, species: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], kernels.Cutoff, kernels.Radial | kernels.Angular]]:
        """The atoms of each element, and the functions that they are the centres of, for each kind and cutoff."""
        for place in sorted(set(species.tolist())):
            centres = np.flatnonzero(species == place)
            for cutoff, functions in self._calls[self.elements[place]]:
                yield centres, cutoff, functions

    def _features(
        self, species: NDArray[np.int64], pairs: kernels.Pairs, derivatives: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """The features; their derivatives are added to `derivatives`, if they are wanted."""
        features, none = np.zeros((len(species), self.n_features)), np.zeros((0, self.n_features, 3))
        for centres, cutoff, functions in self._by_element(species):
            if isinstance(functions, kernels.Radial):
                wanted = none if derivatives is None else derivatives
                kernels.radial(centres, pairs, cutoff, functions, features, wanted)
            elif derivatives is None:
                angular(centres, pairs, cutoff, functions, features)
            else:
                angular_derivatives(centres, pairs, cutoff, functions, features, derivatives)
        return features

    def _prepare(self, functions: Sequence[Function]) -> list[tuple[kernels.Cutoff, kernels.Radial | kernels.Angular]]:
        """The functions of one element of the centre as the kernels take them, for each kind and cutoff."""
        kind = kernels.CUTOFF_FUNCTIONS.index(self.cutoff_function)
        calls: list[tuple[kernels.Cutoff, kernels.Radial | kernels.Angular]] = []
        for group in dict.fromkeys((function.kind, function.cutoff) for function in functions):
            columns = [c for c, function in enumerate(functions) if (function.kind, function.cutoff) == group]
            make = self._radial if group[0] == "G2" else self._angular
            calls.append((kernels.Cutoff(group[1], kind, self.gamma or 0.0), make(functions, columns)))
        return calls

    def _radial(self, functions: Sequence[Function], columns: Sequence[int]) -> kernels.Radial:
        place = {symbol: n for n, symbol in enumerate(self.elements)}
        columns = sorted(columns, key=lambda column: place[functions[column].neighbours[0]])
        own = [functions[column] for column in columns]
        starts = np.searchsorted([place[one.neighbours[0]] for one in own], range(len(place) + 1))
        return kernels.Radial(
            np.array([one.eta for one in own]),
            np.array([one.rs for one in own]),
            np.array(columns, dtype=np.int64),
            starts.astype(np.int64),
        )

    def _angular(self, functions: Sequence[Function], columns: Sequence[int]) -> kernels.Angular:
        place = {symbol: n for n, symbol in enumerate(self.elements)}
        n = len(place)

        def pair(column: int) -> int:
            first, second = functions[column].neighbours
            return place[first] * n + place[second]

        columns = sorted(columns, key=pair)
        own = [functions[column] for column in columns]
        etas = list(dict.fromkeys(one.eta for one in own))
        powers = list(dict.fromkeys((one.zeta, one.gamma) for one in own))
        bounds = np.searchsorted([pair(column) for column in columns], range(n * n + 1))
        start, end = bounds[:-1].reshape(n, n), bounds[1:].reshape(n, n)
        upper = np.triu(np.ones((n, n), dtype=bool))
        return kernels.Angular(
            np.array(etas),
            np.array([zeta for zeta, _ in powers]),
            np.array([gamma for _, gamma in powers]),
            np.array([etas.index(one.eta) for one in own], dtype=np.int64),
            np.array([powers.index((one.zeta, one.gamma)) for one in own], dtype=np.int64),
            np.array(columns, dtype=np.int64),
            np.where(upper, start, start.T).astype(np.int64),
            np.where(upper, end, end.T).astype(np.int64),
            own[0].kind == "G4",
        )


def _pairs(neighbours: Neighbours, species: NDArray[np.int64], entries: Entries | None = None) -> kernels.Pairs:
    """The neighbours as the kernels take them; without `entries`, for features without derivatives."""
    vector = neighbours.vector
    of_pair, own = (NO_ENTRIES, NO_ENTRIES) if entries is None else (entries.of_pair, entries.own)
    distance = np.sqrt(np.sum(vector**2, axis=1))
    return kernels.Pairs(neighbours.start, species[neighbours.index], vector, distance, of_pair, own)
