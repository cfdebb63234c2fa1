"""The contract of a descriptor: structures in, one row of features an atom out, with their derivatives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.errors import located

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # axes of the components of a strain or stress


@dataclass(frozen=True)
class SparseDerivatives:
    """d features / d positions of one structure, for the pairs of atoms within the cutoff.

    Every pair (centre, atom) occurs once at most, the pair (i, i) of every atom included; the contributions of the
    periodic images of an atom are summed. With `vector`, each image has an entry of its own instead.
    """

    centre: NDArray[np.int64]  # (n_entries,) the atom whose features change, ascending
    atom: NDArray[np.int64]  # (n_entries,) the atom that is moved, with all its images
    values: NDArray[np.float64]  # (n_entries, n_features, 3) 1/Å
    vector: NDArray[np.float64] | None = None  # (n_entries, 3) Å, from the centre to the image

    def dense(self, n_atoms: int) -> NDArray[np.float64]:
        """The same as an array of shape (n_atoms, n_features, n_atoms, 3), 1/Å."""
        dense = np.zeros((n_atoms, n_atoms, *self.values.shape[1:]))
        dense[self.centre, self.atom] = self.values
        return np.ascontiguousarray(dense.transpose(0, 2, 1, 3))

    def forces(self, by_features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Forces (n_atoms, 3), eV/Å, from the derivatives (n_atoms, n_features) of an energy by the features, eV."""
        forces = np.zeros((len(by_features), 3))
        np.subtract.at(forces, self.atom, self._pulls(by_features))
        return forces

    def by_strain(self, by_features: NDArray[np.float64]) -> NDArray[np.float64]:
        """dE/d strain (3, 3), eV, from the same, where each image has an entry of its own."""
        assert self.vector is not None
        return self._pulls(by_features).T @ self.vector

    def features_by_strain(self, n_atoms: int) -> NDArray[np.float64]:
        """d features / d strain (n_atoms, n_features, 6) in Voigt's order, dimensionless; `vector` is needed.

        A strain ε moves the image at R from an atom by ε·R, so that dG/dε_ab is the sum of dG/dR_a · R_b over the
        images around it, the atom itself, at R = 0, without a part (virial theorem). The mean with ba is taken, for a
        rotation is no strain.
        """
        assert self.vector is not None
        ends = np.searchsorted(self.centre, np.arange(n_atoms + 1))
        rows = np.empty((n_atoms, self.values.shape[1], 6))
        for i, (begin, end) in enumerate(pairwise(ends)):
            sums = np.tensordot(self.values[begin:end], self.vector[begin:end], (0, 0))  # (n_features, 3, 3)
            rows[i] = np.stack([(sums[:, a, b] + sums[:, b, a]) / 2 for a, b in VOIGT], axis=1)
        return rows

    def _pulls(self, by_features: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each entry adds to dE/dr (n_entries, 3), eV/Å."""
        return np.einsum("ef,efx->ex", by_features[self.centre], self.values)


class EnergyDerivatives(NamedTuple):
    """Derivatives of k energies of one structure by its positions and by a strain of it with its cell."""

    forces: NDArray[np.float64]  # (k, n_atoms, 3) eV/Å, -dE/dr
    by_strain: NDArray[np.float64]  # (k, 3, 3) eV, dE/d strain: of an image at R, R moves by strain·R


# From the derivatives (k, n_atoms, n_features) of k energies by the features, eV.
Backward = Callable[[NDArray[np.float64]], EnergyDerivatives]


class Descriptor(ABC):
    """Features of the neighbourhood of every atom, invariant under translation and permutation of equal atoms.

    They are also invariant under rotation, unless a subclass says otherwise, as `GMPGroups` does. A descriptor knows
    certain elements, and refuses others by name: features of an element that it was not made for would mean nothing.
    """

    device: str | None = None  # torch device on which features are computed; None: compiled code on the CPU

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Features an atom."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that determines the features, as plain JSON values; `name` names the descriptor."""

    def on(self, device: str) -> "Descriptor":
        """The same descriptor with features computed on a torch device, equal to rounding; itself if it cannot."""
        return self

    @abstractmethod
    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        """Features of shape (n_atoms, n_features), in the order of the atoms.

        Raises:
            BadInput: the descriptor does not know an element, and lists those it knows; or a position is not finite.
        """

    def compute_all(self, structures: Sequence[Atoms], names: Sequence[str]) -> NDArray[np.float64]:
        """Features of all atoms, structure after structure, (total atoms, n_features): exactly those of `compute`.

        It is thread-safe.

        Args:
            names: name of each structure in error messages.

        Raises:
            BadInput: as `compute`; the message begins with the name of the structure.
        """
        rows = []
        for atoms, name in zip(structures, names, strict=True):
            with located(name):
                rows.append(self.compute(atoms))
        return np.concatenate(rows)

    @abstractmethod
    def sparse_derivatives(self, atoms: Atoms, images: bool = False) -> tuple[NDArray[np.float64], SparseDerivatives]:
        """The features, those of `compute` to rounding, and their derivatives with respect to the positions.

        Memory grows with the number of neighbour pairs, never with the square of the number of atoms.

        Args:
            images: with an entry for each periodic image of an atom and the vector to it, for the stress.

        Raises:
            BadInput: as `compute`.
        """

    def with_backward(self, atoms: Atoms) -> tuple[NDArray[np.float64], Backward]:
        """The features, as `compute` gives them, and their vector–Jacobian product, as `jax.vjp` does it.

        For predictions: what the product needs of each neighbour is three numbers for an energy, in the place of three
        for each feature. Subclasses compute it without `sparse_derivatives`.

        Returns:
            Features (n_atoms, n_features), and a function from dE/d features to forces and dE/d strain.

        Raises:
            BadInput: as `compute`.
        """
        features, derivatives = self.sparse_derivatives(atoms, images=True)

        def backward(by_features: NDArray[np.float64]) -> EnergyDerivatives:
            forces, by_strain = (
                np.stack([product(each) for each in by_features])
                for product in (derivatives.forces, derivatives.by_strain)
            )
            return EnergyDerivatives(forces, by_strain)

        return features, backward

    def derivatives(self, atoms: Atoms) -> NDArray[np.float64]:
        """d features / d positions of shape (n_atoms, n_features, n_atoms, 3), 1/Å; large: for checks.

        Element [i, f, j, a] is the change of feature f of atom i as atom j (with its images) moves along axis a.

        Raises:
            BadInput: as `compute`.
        """
        return self.sparse_derivatives(atoms)[1].dense(len(atoms))
