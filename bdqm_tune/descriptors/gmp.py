"""Gaussian multipole (GMP) features with solid harmonics, normalised per order.

Lei and Medford, "A universal framework for featurization of atomistic systems", J. Phys. Chem. Lett. 13, 7911 (2022).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from sphericart import SolidHarmonics

from bdqm_tune.descriptors.base import Descriptor
from bdqm_tune.descriptors.neighbours import find_neighbours
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table, package_table, read_folder, require
from bdqm_tune.errors import BadInput
from bdqm_tune.structures.read import check_geometry

MAX_ORDER = 9
VERSION = 1  # of the features; to be raised when the code gives other numbers, so that stored ones are not used


def default_cutoff(sigmas: Sequence[float], threshold: float = 1e-8) -> float:
    """Distance in Å, to 0.01, at which the widest probe has decayed to `threshold` (amptorch's rule)."""
    widest = max(sigmas)
    amplitude = 1 / (widest * math.sqrt(2 * math.pi))
    if amplitude <= threshold:
        raise BadInput(f"descriptor sigma {widest} Å is too wide for a default cutoff; give a cutoff")
    return round(widest * math.sqrt(2 * math.log(amplitude / threshold)), 2)


def probe_widths(count: int) -> list[float]:
    """As many widths from 0.1 to 2 Å, evenly spaced in their logarithm; a single one is 1 Å."""
    return [1.0] if count == 1 else np.geomspace(0.1, 2.0, count).round(6).tolist()


class GMP(Descriptor):
    """Multipole moments of the electron density around each atom, seen through Gaussian probes.

    The density is the sum over the neighbours j (the atom itself included) of B·exp(-beta·|r - R_j|²). The moment of
    order n with a probe A·exp(-alpha·r²), alpha = 1/(2 sigma²), A = (1/(sigma·sqrt(2π)))³, has the closed form

        mu_nm = Σ_j Σ_k A·B_k·(π/gamma)^1.5 · exp(-alpha·beta_k/gamma · R_j²) · (beta_k/gamma)^n · R_nm(R_j)

    with gamma = alpha + beta_k, because a solid harmonic R_nm averaged over a Gaussian keeps its value at the centre.
    The feature is c_n·Σ_m mu_nm², with c_n = 4π/(2n+1)·n!·(2n-1)!!, which makes it the sum over the Maxwell–Cartesian
    harmonics of the order with their multinomial weights, as amptorch's `GMPOrderNorm` computes it.

    Columns run order by order, within an order by sigma.
    """

    def __init__(
        self,
        orders: Sequence[int] = (0, 1, 2, 3),
        sigmas: Sequence[float] = (0.4, 0.8, 1.2, 1.6, 2.0),
        cutoff: float | None = None,
        square: bool = True,
        pseudodensities: str | Path | Table | None = None,
        root_floor: float = 0.0,
    ) -> None:
        """
        Args:
            orders: orders of the harmonics, 0–9.
            sigmas: widths of the probes, Å.
            cutoff: Å; None: `default_cutoff(sigmas)`.
            square: the invariant c_n·Σ mu² itself; else its root.
            pseudodensities: folder of amptorch `.g` files, or a table by atomic number; None: the package's table.
            root_floor: with `square=False`, values below it become 0, as amptorch does (1e-2) where it also
                computes derivatives, which are undefined at 0.

        Raises:
            BadInput: a value outside its range.
        """
        if len(orders) == 0 or len(set(orders)) != len(orders) or not set(orders) <= set(range(MAX_ORDER + 1)):
            raise BadInput(f"descriptor orders must be different integers from 0 to {MAX_ORDER}, got {list(orders)}")
        if len(sigmas) == 0 or not all(math.isfinite(s) and s > 0 for s in sigmas):
            raise BadInput(f"descriptor sigmas must be positive widths in Å, got {list(sigmas)}")
        if cutoff is not None and not (math.isfinite(cutoff) and cutoff > 0):
            raise BadInput(f"descriptor cutoff must be a positive distance in Å, got {cutoff}")
        self.orders = [int(n) for n in orders]
        self.sigmas = [float(s) for s in sigmas]
        self.cutoff = default_cutoff(self.sigmas) if cutoff is None else float(cutoff)
        self.square = square
        self.root_floor = root_floor
        self.table = _table(pseudodensities)
        self._harmonics = SolidHarmonics(max(self.orders))

    @property
    def n_features(self) -> int:
        return len(self.orders) * len(self.sigmas)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "name": "gmp",
            "version": VERSION,
            "orders": self.orders,
            "sigmas": self.sigmas,
            "cutoff": self.cutoff,
            "square": self.square,
            "root_floor": self.root_floor,
            "pseudodensities": {
                str(z): [entry.amplitude.tolist(), entry.exponent.tolist()] for z, entry in sorted(self.table.items())
            },
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "GMP":
        """The descriptor whose `settings` these are."""
        given = {key: value for key, value in settings.items() if key not in ("name", "version", "pseudodensities")}
        table = {
            int(z): PseudoDensity(np.array(amplitude), np.array(exponent))
            for z, (amplitude, exponent) in settings["pseudodensities"].items()
        }
        return cls(**given, pseudodensities=table)

    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        check_geometry(atoms)
        require(self.table, atoms.numbers)
        neighbours = find_neighbours(atoms, self.cutoff)
        elements, species = np.unique(atoms.numbers, return_inverse=True)
        weight, decay, shrink = self._probes(elements)
        moments = _moments(
            neighbours.start,
            species,
            neighbours.index,
            np.sum(neighbours.vector**2, axis=1),
            self._harmonics.compute(neighbours.vector) if len(neighbours.vector) else np.zeros((0, 1)),
            weight,
            decay,
            shrink,
            max(self.orders),
        )
        columns = []
        for n in self.orders:
            invariant = _norm(n) * np.sum(moments[:, :, n * n : (n + 1) ** 2] ** 2, axis=2)
            columns.append(invariant if self.square else self._root(invariant))
        return np.concatenate(columns, axis=1)

    def _root(self, invariant: NDArray[np.float64]) -> NDArray[np.float64]:
        root = np.sqrt(invariant)
        return np.where(root < self.root_floor, 0.0, root)

    def _probes(self, elements: NDArray[np.integer]) -> tuple[NDArray[np.float64], ...]:
        """Prefactor, decay (1/Å²) and beta/gamma of every product of probe and primitive.

        Each of shape (n_elements, n_sigmas, n_primitives); missing primitives have the prefactor 0.
        """
        entries = [self.table[int(z)] for z in elements]
        width = max(len(entry.amplitude) for entry in entries)
        amplitude = np.zeros((len(entries), 1, width))
        beta = np.ones((len(entries), 1, width))
        for k, entry in enumerate(entries):
            amplitude[k, 0, : len(entry.amplitude)] = entry.amplitude
            beta[k, 0, : len(entry.exponent)] = entry.exponent
        sigma = np.array(self.sigmas)[None, :, None]
        alpha = 1 / (2 * sigma**2)
        gamma = alpha + beta
        weight = (1 / (sigma * math.sqrt(2 * math.pi))) ** 3 * amplitude * (math.pi / gamma) ** 1.5
        return weight, alpha * beta / gamma, beta / gamma


def _table(given: str | Path | Table | None) -> Table:
    if given is None:
        return package_table()
    return given if isinstance(given, dict) else read_folder(given)


def _norm(order: int) -> float:
    """c_n = 4π/(2n+1)·n!·(2n-1)!!; the first factor undoes the normalisation of the harmonics on the sphere."""
    double_factorial = math.prod(range(1, 2 * order, 2))
    return 4 * math.pi / (2 * order + 1) * math.factorial(order) * double_factorial


@numba.njit(parallel=True, cache=True)
def _moments(start, species, index, distance2, harmonics, weight, decay, shrink, max_order):  # type: ignore[no-untyped-def]
    """Moments mu_nm (n_atoms, n_sigmas, (max_order + 1)²); each exponential is computed once for all orders."""
    n_atoms = len(species)
    n_sigmas = weight.shape[1]
    moments = np.zeros((n_atoms, n_sigmas, (max_order + 1) ** 2))
    for i in numba.prange(n_atoms):
        radial = np.zeros(max_order + 1)
        for s in range(n_sigmas):
            # The atom itself, at distance 0, has a moment of order 0 only; harmonics[0] = 1/sqrt(4π).
            moments[i, s, 0] = np.sum(weight[species[i], s]) / np.sqrt(4 * np.pi)
        for pair in range(start[i], start[i + 1]):
            element = species[index[pair]]
            for s in range(n_sigmas):
                radial[:] = 0.0
                for k in range(weight.shape[2]):
                    term = weight[element, s, k] * np.exp(-decay[element, s, k] * distance2[pair])
                    for n in range(max_order + 1):
                        radial[n] += term
                        term *= shrink[element, s, k]
                for n in range(max_order + 1):
                    for lm in range(n * n, (n + 1) ** 2):
                        moments[i, s, lm] += radial[n] * harmonics[pair, lm]
    return moments
