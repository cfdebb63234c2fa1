"""The common part of the Gaussian multipole (GMP) descriptors: probes, moments, invariants, derivatives."""

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import moment_kernels as kernels
from bdqm_tune.descriptors import smooth_cutoff
from bdqm_tune.descriptors.base import Descriptor, SparseDerivatives
from bdqm_tune.descriptors.harmonics import solid_harmonics
from bdqm_tune.descriptors.moments import Channels, Probes, probes
from bdqm_tune.descriptors.neighbours import Neighbours, find_entries, find_neighbours
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table, package_table, read_folder, require
from bdqm_tune.descriptors.simd import WIDTH
from bdqm_tune.errors import BadInput, located
from bdqm_tune.structures.read import check_geometry

MAX_ORDER = 9
VANISHING = 1e-8  # a root below it gets the derivative 0; amptorch's value


@dataclass(frozen=True)
class Kind:
    """One feature a sigma: the sum of the squares of some combinations of the moments of one order."""

    order: int  # index of the order in `Channels.orders`
    rows: NDArray[np.float64]  # (n_combinations, n_moments of the order); or (n_moments,): the factor of each alone

    def combine(self, moments: NDArray[np.float64]) -> NDArray[np.float64]:
        """The combinations of moments (n_moments, n_atoms, n_sigmas)."""
        return moments * self.rows[:, None, None] if self.rows.ndim == 1 else kernels.combine(self.rows, moments)

    def by_moment(self, by_combination: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives with respect to the moments from those with respect to the combinations."""
        rows = self.rows
        return (
            by_combination * rows[:, None, None] if rows.ndim == 1 else kernels.combine(rows.T.copy(), by_combination)
        )


class Multipoles(Descriptor):
    """Features that are squares of multipole moments, or their roots; see `moments` for the moments.

    Columns run kind by kind as the subclass gives them, within a kind by sigma.
    """

    channels: Channels
    kinds: list[Kind]

    def __init__(
        self,
        sigmas: Sequence[float],
        cutoff: float,
        square: bool,
        root_floor: float,
        pseudodensities: str | Path | Table | None,
        smooth_cutoff: bool,
    ) -> None:
        """
        Raises:
            BadInput: a value outside its range, or a folder without pseudo-densities.
        """
        check_sigmas(sigmas)
        if not (math.isfinite(cutoff) and cutoff > 0):
            raise BadInput(f"descriptor cutoff must be a positive distance in Å, got {cutoff}")
        if not (math.isfinite(root_floor) and root_floor >= 0):
            raise BadInput(f"descriptor root_floor must be 0 or more, got {root_floor}")
        self.sigmas = [float(s) for s in sigmas]
        self.cutoff = float(cutoff)
        self.square = square
        self.smooth_cutoff = smooth_cutoff
        self.root_floor = float(root_floor)
        self.table = _table(pseudodensities)

    @abstractmethod
    def _amplitudes(self) -> list[float]:
        """The amplitude of each probe."""

    @abstractmethod
    def _root(self, combined: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The features with `square=False`, in the place of the sum of squares, and their derivatives.

        Args:
            combined: (n_combinations, n_atoms, n_sigmas).

        Returns:
            (n_atoms, n_sigmas) and, with respect to the combinations, (n_combinations, n_atoms, n_sigmas).
        """

    @property
    def n_features(self) -> int:
        return len(self.kinds) * len(self.sigmas)

    def on(self, device: str) -> "Multipoles":
        moved = copy.copy(self)
        moved.device = device
        return moved

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
        neighbours = find_neighbours([atoms], self.cutoff)
        pairs = self._pairs([atoms], neighbours, with_slopes=True)
        values = [self._value(combined) for combined in self._combine(self._moments(pairs))]
        by_moment = [kind.by_moment(value[1]) for kind, value in zip(self.kinds, values, strict=True)]
        of_order = self.channels.of_order
        gradient = kernels.Gradient(
            values=np.concatenate(by_moment),
            first=np.array([of_order[kind.order] for kind in self.kinds]),
            last=np.array([of_order[kind.order + 1] for kind in self.kinds]),
            place=np.cumsum([0, *map(len, by_moment[:-1])]),
        )
        entries = find_entries(neighbours, images)
        derivatives = np.zeros((len(entries.centre), self.n_features, 3))
        kernels.fill_derivatives(pairs, self._radial, gradient, entries.of_pair, entries.own, derivatives)
        features = self._features([value for value, _ in values])
        return features, SparseDerivatives(entries.centre, entries.atom, derivatives, entries.vector)

    def _check(self, atoms: Atoms) -> None:
        check_geometry(atoms)
        require(self.table, atoms.numbers)

    def _compute(self, structures: Sequence[Atoms]) -> NDArray[np.float64]:
        neighbours = find_neighbours(structures, self.cutoff)
        if self.device is None:
            moments = self._moments(self._pairs(structures, neighbours, with_slopes=False))
        else:
            moments = self._moments_by_torch(structures, neighbours, self.device)
        return self._features([self._value(combined)[0] for combined in self._combine(moments)])

    def _moments(self, pairs: kernels.Pairs) -> NDArray[np.float64]:
        """mu (n_moments, n_atoms, n_sigmas padded with zeros to whole blocks)."""
        n_padded = self._radial.weight.shape[1] * WIDTH
        moments = np.empty((int(np.sum(2 * self.channels.l + 1)), len(pairs.species), n_padded))
        kernels.fill_moments(pairs, self._radial, moments)
        return moments

    def _moments_by_torch(
        self, structures: Sequence[Atoms], neighbours: Neighbours, device: str
    ) -> NDArray[np.float64]:
        """mu (n_moments, n_atoms, n_sigmas), computed by torch."""
        import torch  # the compiled code does not need it

        from bdqm_tune.descriptors.torch_moments import moments

        species = self._species(structures)
        smooth_to = self.cutoff if self.smooth_cutoff else None
        found = moments(neighbours, species, self.channels, self._probes, torch.device(device), smooth_to)
        return found.numpy(force=True)

    def _combine(self, moments: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [kind.combine(moments[self.channels.moments(kind.order)]) for kind in self.kinds]

    def _features(self, values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Features (n_atoms, n_features) from those of each kind, (n_atoms, n_sigmas with padding)."""
        return np.concatenate([value[:, : len(self.sigmas)] for value in values], axis=1)

    def _value(self, combined: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The features of one kind (n_atoms, n_sigmas), and their derivatives with respect to the combinations."""
        return (np.sum(combined**2, axis=0), 2 * combined) if self.square else self._root(combined)

    def _pairs(self, structures: Sequence[Atoms], neighbours: Neighbours, with_slopes: bool) -> kernels.Pairs:
        harmonics, slopes = solid_harmonics(neighbours.vector, max(self.channels.orders), with_slopes)
        n_pairs = len(neighbours.index)
        weight, weight_slope = np.ones(n_pairs), np.zeros(n_pairs)
        if self.smooth_cutoff:
            weight, weight_slope = smooth_cutoff.weights(neighbours.vector, self.cutoff)
        return kernels.Pairs(
            neighbours.start,
            neighbours.index,
            self._species(structures),
            neighbours.vector,
            harmonics,
            slopes,
            weight,
            weight_slope,
        )

    def _species(self, structures: Sequence[Atoms]) -> NDArray[np.int64]:
        """Index of each atom's element in the tables (n_atoms,)."""
        return np.searchsorted(self._elements, np.concatenate([atoms.numbers for atoms in structures]))

    @cached_property
    def _elements(self) -> list[int]:
        return sorted(self.table)

    @cached_property
    def _probes(self) -> Probes:
        return probes(self.channels, [self.table[z] for z in self._elements], self.sigmas, self._amplitudes())

    @cached_property
    def _radial(self) -> kernels.Radial:
        probe, channels = self._probes, self.channels
        return kernels.Radial(
            probe.gaussians,
            _in_blocks(probe.weight),
            _in_blocks(probe.decay),
            channels.term_start,
            channels.term_source,
            channels.term_power,
            channels.term_factor,
            channels.l,
        )


def _in_blocks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_elements, n_sigmas, …) as (n_elements, n_blocks, …, WIDTH), padded with zeros."""
    missing = -table.shape[1] % WIDTH
    padded = np.pad(table, [(0, 0), (0, missing)] + [(0, 0)] * (table.ndim - 2))
    blocks = padded.reshape(len(table), -1, WIDTH, *table.shape[2:])
    return np.ascontiguousarray(np.moveaxis(blocks, 2, -1))


def root(combined: NDArray[np.float64], floor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The root of the sum of the squares of (n_combinations, n_atoms, n_sigmas), and its derivatives.

    Values below `floor` become 0. At 0 a root has no derivative, and where it vanishes by symmetry up to rounding, the
    direction of the derivative would be arbitrary: below `VANISHING`, as below `floor`, it is 0.
    """
    value = np.sqrt(np.sum(combined**2, axis=0))
    steep = value >= max(floor, VANISHING)
    direction = combined / np.where(steep, value, 1.0)
    return np.where(value < floor, 0.0, value), np.where(steep, direction, 0.0)


def check_sigmas(sigmas: Sequence[float]) -> None:
    """Raise BadInput unless these are widths of probes, Å: finite and positive, at least one."""
    if len(sigmas) == 0 or not all(math.isfinite(s) and s > 0 for s in sigmas):
        raise BadInput(f"descriptor sigmas must be positive widths in Å, got {list(sigmas)}")


def probe_widths(count: int) -> list[float]:
    """`count` widths from 0.1 to 2 Å, evenly spaced in their logarithm; a single one is 1 Å."""
    return [1.0] if count == 1 else np.geomspace(0.1, 2.0, count).round(6).tolist()


def table_settings(table: Table) -> dict[str, list[list[float]]]:
    """A table as plain JSON values, by atomic number."""
    return {str(z): [entry.amplitude.tolist(), entry.exponent.tolist()] for z, entry in sorted(table.items())}


def table_from_settings(settings: dict[str, Any]) -> Table:
    """The table whose `table_settings` these are."""
    return {int(z): PseudoDensity(np.array(b), np.array(beta)) for z, (b, beta) in settings.items()}


def cutoff_settings(smooth_cutoff: bool) -> dict[str, bool]:
    """The entry of a smooth cutoff in `settings`. Without one there is none, as before it existed: cached features and
    saved potentials are the same."""
    return {"smooth_cutoff": True} if smooth_cutoff else {}


def _table(source: str | Path | Table | None) -> Table:
    if source is None:
        return package_table()
    return source if isinstance(source, dict) else read_folder(source)
