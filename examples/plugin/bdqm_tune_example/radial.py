"""A descriptor: Gaussian densities of the neighbours of each element at some distances from an atom.

    G_k,e(i) = Σ_j exp(-(R_ij - r_k)² / 2 width²) · f_c(R_ij)   over the neighbours j of element e

with f_c(R) = (1 + cos πR/cutoff)/2 and n_radii distances r_k, evenly spaced up to the cutoff.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from pydantic import Field

from bdqm_tune.config.descriptor_plugins import DescriptorDeclaration
from bdqm_tune.config.options import Options
from bdqm_tune.descriptors import Descriptor, SparseDerivatives
from bdqm_tune.errors import BadInput

VERSION = 1  # raise it when the code gives other features: the feature cache and saved models go by the settings


class RadialOptions(Options):
    """`descriptor.options` in a configuration."""

    cutoff: float = Field(5.0, gt=0, le=20, description="Å")
    n_radii: int = Field(8, ge=1, le=100, description="distances, evenly spaced up to the cutoff")
    width: float = Field(0.5, gt=0, le=10, description="of the Gaussians, Å")


class Radial(Descriptor):
    """The densities of neighbours of these elements (symbols)."""

    def __init__(self, options: RadialOptions, elements: Sequence[str]) -> None:
        self.options, self.elements = options, list(elements)
        self.radii = np.linspace(0, options.cutoff, options.n_radii + 1)[1:]  # (n_radii,) Å

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Radial":
        """The descriptor with these settings. What is raised here means that they are damaged."""
        options = {name: value for name, value in settings.items() if name not in ("name", "version", "elements")}
        if settings["version"] != VERSION:
            raise ValueError(f"version {settings['version']} is not {VERSION}")
        return cls(RadialOptions(**options), settings["elements"])

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": "radial", "version": VERSION, "elements": self.elements, **self.options.model_dump()}

    @property
    def n_features(self) -> int:
        return len(self.elements) * len(self.radii)

    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        centre, channel, _, vector = self._pairs(atoms)
        values, _ = self._gaussians(np.linalg.norm(vector, axis=1))
        features = np.zeros((len(atoms), len(self.elements), len(self.radii)))
        np.add.at(features, (centre, channel), values)
        return features.reshape(len(atoms), -1)

    def sparse_derivatives(self, atoms: Atoms, images: bool = False) -> tuple[NDArray[np.float64], SparseDerivatives]:
        centre, channel, neighbour, vector = self._pairs(atoms)
        distance = np.linalg.norm(vector, axis=1)
        _, slopes = self._gaussians(distance)
        n, n_pairs = len(atoms), len(centre)
        # By the position of the neighbour: a pair changes the features of its element's channel only.
        by_channel = np.zeros((n_pairs, len(self.elements), len(self.radii), 3))
        by_channel[np.arange(n_pairs), channel] = slopes[:, :, None] * (vector / distance[:, None])[:, None, :]
        by_pair = by_channel.reshape(n_pairs, -1, 3)
        # By its own position an atom's features change by minus the sum: all neighbours move the other way.
        own = np.zeros((n, self.n_features, 3))
        np.subtract.at(own, centre, by_pair)
        centres, moved = np.concatenate([np.arange(n), centre]), np.concatenate([np.arange(n), neighbour])
        values, vectors = np.concatenate([own, by_pair]), np.concatenate([np.zeros((n, 3)), vector])
        if images:
            order = np.argsort(centres, kind="stable")
            return self.compute(atoms), SparseDerivatives(centres[order], moved[order], values[order], vectors[order])
        # The periodic images of an atom move together: one entry for each pair of atoms.
        pairs, entry = np.unique(centres * n + moved, return_inverse=True)
        summed = np.zeros((len(pairs), self.n_features, 3))
        np.add.at(summed, entry, values)
        return self.compute(atoms), SparseDerivatives(pairs // n, pairs % n, summed)

    def _pairs(
        self, atoms: Atoms
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Of all pairs: centre, place of the neighbour's element, neighbour (n_pairs,), and vector (n_pairs, 3), Å."""
        if not np.isfinite(atoms.positions).all():
            raise BadInput("positions are not finite")
        if unknown := sorted(set(atoms.symbols) - set(self.elements)):
            raise BadInput(f"radial does not know {', '.join(unknown)}; it was made for {', '.join(self.elements)}")
        centre, neighbour, vector = neighbor_list("ijD", atoms, self.options.cutoff)
        place = np.zeros(120, dtype=np.int64)
        place[[atomic_numbers[symbol] for symbol in self.elements]] = np.arange(len(self.elements))
        return centre, place[atoms.numbers[neighbour]], neighbour, vector

    def _gaussians(self, distance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n_pairs, n_radii), and their derivatives by the distance, 1/Å."""
        away = (distance[:, None] - self.radii) / self.options.width
        gaussian = np.exp(-(away**2) / 2)
        phase = np.pi * distance[:, None] / self.options.cutoff
        smooth, slope = (1 + np.cos(phase)) / 2, -np.pi / self.options.cutoff * np.sin(phase) / 2
        return gaussian * smooth, gaussian * (slope - smooth * away / self.options.width)


RADIAL = DescriptorDeclaration(
    name="radial",
    meaning="Gaussian densities of neighbours of each element at some distances",
    options=RadialOptions,
    make="bdqm_tune_example.radial:Radial",
    load="bdqm_tune_example.radial:Radial.from_settings",
)
