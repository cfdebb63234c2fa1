"""The common part of the Gaussian multipole (GMP) descriptors: probes, moments, invariants, derivatives."""

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import moment_kernels as kernels
from bdqm_tune.descriptors import smooth_cutoff
from bdqm_tune.descriptors.base import Backward, Descriptor, EnergyDerivatives, SparseDerivatives
from bdqm_tune.descriptors.harmonics import solid_harmonics
from bdqm_tune.descriptors.invariants import Invariants, Kind, arranged, evaluate, evaluate_with_gradient
from bdqm_tune.descriptors.moments import Channels, Probes, probes
from bdqm_tune.descriptors.neighbours import Neighbours, find_entries, find_neighbours
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table, package_table, read_folder, require
from bdqm_tune.descriptors.pulls import energy_derivatives
from bdqm_tune.descriptors.simd import WIDTH
from bdqm_tune.errors import BadInput, located
from bdqm_tune.structures.read import check_geometry

MAX_ORDER = 9


class Multipoles(Descriptor):
    """Features that are squares of multipole moments, or their roots; see `moments` for the moments.

    Columns run kind by kind as the subclass gives them, within a kind by sigma.
    """

    channels: Channels
    kinds: list[Kind]
    signed = False  # without squares, a feature of a single combination is that itself, not its absolute value

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
        features, gradient = self._with_gradient(pairs)
        entries = find_entries(neighbours, images)
        derivatives = np.zeros((len(entries.centre), self.n_features, 3))
        kernels.fill_derivatives(
            pairs, self._radial, self._invariants, gradient, entries.of_pair, entries.own, derivatives
        )
        return features, SparseDerivatives(entries.centre, entries.atom, derivatives, entries.vector)

    def with_backward(self, atoms: Atoms) -> tuple[NDArray[np.float64], Backward]:
        self._check(atoms)
        neighbours = find_neighbours([atoms], self.cutoff)
        pairs = self._pairs([atoms], neighbours, with_slopes=True)
        features, gradient = self._with_gradient(pairs)

        def backward(by_features: NDArray[np.float64]) -> EnergyDerivatives:
            pulls = np.empty((len(by_features), len(neighbours.index), 3))
            # Another layout would be compiled again.
            by_features = np.ascontiguousarray(by_features)
            kernels.fill_pulls(pairs, self._radial, self._invariants, gradient, by_features, pulls)
            return energy_derivatives(neighbours, pulls)

        return features, backward

    def _check(self, atoms: Atoms) -> None:
        check_geometry(atoms)
        require(self.table, atoms.numbers)

    def _compute(self, structures: Sequence[Atoms]) -> NDArray[np.float64]:
        neighbours = find_neighbours(structures, self.cutoff)
        if self.device is None:
            moments = self._moments(self._pairs(structures, neighbours, with_slopes=False))
        else:
            moments = self._moments_by_torch(structures, neighbours, self.device)
        return evaluate(self._invariants, moments, len(self.sigmas))

    def _moments(self, pairs: kernels.Pairs) -> NDArray[np.float64]:
        """mu (n_moments, n_atoms, n_sigmas padded with zeros to whole blocks)."""
        n_padded = self._radial.weight.shape[1] * WIDTH
        moments = np.empty((self._n_moments, len(pairs.species), n_padded))
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

    def _with_gradient(self, pairs: kernels.Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The features, and their derivatives by the moments."""
        return evaluate_with_gradient(self._invariants, self._moments(pairs), len(self.sigmas))

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
        return self._places[np.concatenate([atoms.numbers for atoms in structures])]

    @cached_property
    def _elements(self) -> list[int]:
        return sorted(self.table)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Index in the tables by atomic number."""
        places = np.zeros(max(self._elements) + 1, dtype=np.int64)
        places[self._elements] = np.arange(len(self._elements))
        return places

    @cached_property
    def _probes(self) -> Probes:
        return probes(self.channels, [self.table[z] for z in self._elements], self.sigmas, self._amplitudes())

    @cached_property
    def _n_moments(self) -> int:
        return int(np.sum(2 * self.channels.l + 1))

    @cached_property
    def _invariants(self) -> Invariants:
        return arranged(self.kinds, self.channels, self.square, self.signed, self.root_floor)

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
