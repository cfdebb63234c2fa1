"""A trained potential: descriptor, scaler, network, scale and reference energies."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.descriptors.base import SparseDerivatives
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.files import write_whole
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.description import DESCRIPTION, WEIGHTS, Description, read_description
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.networks import AtomicNetwork, MixedNN, make_network, sum_per_structure
from bdqm_tune.learning.scalers import Scaler
from bdqm_tune.learning.targets import ReferenceEnergies

Precision = Literal["float32", "float64"]
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Prediction(NamedTuple):
    """Energies and forces that a potential predicts, and how far from what it was trained on."""

    energies: NDArray[np.float64]  # (n_structures,), eV
    forces: list[NDArray[np.float64]] | None = None  # each (n_atoms, 3), eV/Å; None: not requested
    # (n_structures,) of the atom that is furthest outside the training split, see `Scaler.outside`; None: not known
    extrapolation: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Potential:
    """Predicts total energies, E = shift + Σ reference energies + scale · Σ network(scaled features), and forces."""

    descriptor: Descriptor
    scaler: Scaler
    references: ReferenceEnergies
    scale: float  # eV
    hyperparameters: Hyperparameters
    network: AtomicNetwork
    shift: float = 0.0  # eV a structure
    trained_on_forces: bool | None = None  # None: not known
    known_elements: tuple[int, ...] | None = None  # atomic numbers of those of the training split; None: not known

    @classmethod
    def from_dataset(cls, dataset: Dataset, hyperparameters: Hyperparameters, network: AtomicNetwork) -> "Potential":
        """The potential of a network that was trained on a dataset."""
        return cls(
            dataset.descriptor,
            dataset.scaler,
            dataset.references,
            dataset.scale,
            hyperparameters,
            network.cpu().eval(),
            dataset.shift,
            bool(dataset.config.training.forces) and hyperparameters.force_coefficient > 0,
            tuple(np.unique(dataset.train.numbers).tolist()),
        )

    def predict(self, structures: list[Atoms], forces: bool = True, allow_unknown_elements: bool = False) -> Prediction:
        """Total energies of the structures, eV, and, with `forces`, the forces on their atoms, -dE/dr, eV/Å.

        Forces take many times longer than energies.

        Args:
            allow_unknown_elements: predict elements that the model was not trained on, and warn (`UnknownElement`).

        Raises:
            BadInput: such an element, one that the descriptor does not know, or positions that are not finite.
        """
        check_elements(self.known_elements, structures, allow_unknown_elements)
        energies, found, outside = [], [], []
        for atoms in structures:
            if forces:
                features, derivatives = self.descriptor.sparse_derivatives(atoms)
                found.append(self.forces_from(features, derivatives, atoms))
            else:
                features = self.descriptor.compute(atoms)
            energies.append(self.predict_features(features, [atoms])[0])
            outside.append(self.scaler.outside(features, _numbers([atoms])))
        known = [beyond.max(initial=0.0) for beyond in outside if beyond is not None]
        extrapolation = np.array(known) if len(known) == len(structures) else None
        return Prediction(np.array(energies), found if forces else None, extrapolation)

    def forces_from(
        self, features: NDArray[np.float64], derivatives: SparseDerivatives, atoms: Atoms
    ) -> NDArray[np.float64]:
        """Forces (n_atoms, 3), eV/Å, from precomputed features and derivatives of a structure."""
        gradient = self.gradient(features, atoms)
        pulls = np.einsum("ef,efx->ex", gradient[derivatives.centre], derivatives.values)
        forces = np.zeros((len(atoms), 3))
        np.subtract.at(forces, derivatives.atom, pulls)
        return forces

    @torch.no_grad()
    def predict_features(self, features: NDArray[np.float64], structures: list[Atoms]) -> NDArray[np.float64]:
        """Total energies (n_structures,), eV, from precomputed features (total atoms, n_features)."""
        numbers = _numbers(structures)
        inputs = torch.as_tensor(self.scaler(features, numbers), dtype=self._dtype)
        owner = torch.repeat_interleave(torch.tensor([len(atoms) for atoms in structures], dtype=torch.int64))
        outputs = self.network(inputs, torch.as_tensor(numbers))
        summed = sum_per_structure(outputs, owner, len(structures)).numpy()
        return self.shift + self.references.of(structures) + self.scale * summed

    def gradient(self, features: NDArray[np.float64], atoms: Atoms) -> NDArray[np.float64]:
        """Derivative (n_atoms, n_features) of a structure's energy by its features, eV."""
        numbers = _numbers([atoms])
        inputs = torch.as_tensor(self.scaler(features, numbers), dtype=self._dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(self.network(inputs, torch.as_tensor(numbers)).sum(), inputs)
        return self.scale * self.scaler.by_features(gradient.double().numpy(), features, numbers)

    def stress(self, atoms: Atoms, allow_unknown_elements: bool = False) -> NDArray[np.float64]:
        """Stress (6,) of a periodic structure, eV/Å³, in the order xx, yy, zz, yz, xz, xy.

        It is dE/d strain / volume. A strain moves the image at R from an atom i by strain·R, so that
        dE/d strain_ab = Σ_i Σ_f dE/dG_if · Σ_j dG_if/dR_ija · R_ijb over the images j around it (virial theorem); of it
        the symmetric part is taken, for a rotation is no strain.

        Raises:
            BadInput: as `predict`.
        """
        check_elements(self.known_elements, [atoms], allow_unknown_elements)
        return self.stress_from(*self.descriptor.sparse_derivatives(atoms, images=True), atoms)

    def stress_from(
        self, features: NDArray[np.float64], derivatives: SparseDerivatives, atoms: Atoms
    ) -> NDArray[np.float64]:
        """Stress (6,), eV/Å³, from precomputed features and derivatives of every image."""
        assert derivatives.vector is not None
        pulls = np.einsum("ef,efx->ex", self.gradient(features, atoms)[derivatives.centre], derivatives.values)
        virial = pulls.T @ derivatives.vector / atoms.get_volume()
        return np.array([(virial[a, b] + virial[b, a]) / 2 for a, b in VOIGT])

    def in_precision(self, precision: Precision) -> "Potential":
        """The same potential, whose network is computed in `float32` or `float64`; all else always is in float64."""
        return replace(self, network=copy.deepcopy(self.network).to(getattr(torch, precision)))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def save(self, folder: Path) -> None:
        """Write `potential.safetensors` (weights) and `potential.json` (all the rest). Raises OSError if that fails."""
        description = Description.of(
            descriptor=self.descriptor.settings,
            scaler=self.scaler,
            references=self.references,
            scale=self.scale,
            shift=self.shift,
            precision="float64" if self._dtype == torch.float64 else "float32",
            elements=self.network.elements,
            mixed=isinstance(self.network, MixedNN),
            hyperparameters=self.hyperparameters,
            trained_on_forces=self.trained_on_forces,
            trained_elements=self.known_elements,
        )
        folder.mkdir(parents=True, exist_ok=True)
        # Copies, as layers may have weights in common.
        weights = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in self.network.state_dict().items()
        }
        write_whole(folder / WEIGHTS, save(weights))  # with the same error on a full disk as other files
        write_whole(folder / DESCRIPTION, description.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "Potential":
        """Read what `save` wrote, in this or an earlier version of the package.

        Raises:
            BadInput: the folder holds no potential, or a damaged one.
        """
        path = Path(folder)
        try:
            description = read_description(path / DESCRIPTION)
            descriptor = descriptor_from_settings(description.descriptor)
            description.check_width(descriptor.n_features)
            network = make_network(
                descriptor.n_features, description.hyperparameters, description.atomic_numbers, description.mixed
            )
            network.to(torch.float64 if description.precision == "float64" else torch.float32)
            network.load_state_dict(load_file(path / WEIGHTS))
            return cls(
                descriptor,
                description.scaler(),
                description.references(),
                description.scale,
                description.hyperparameters,
                network.eval(),
                description.shift,
                description.trained_on_forces,
                description.known_elements,
            )
        except FileNotFoundError as error:
            # safetensors raises it without the file's name.
            raise BadInput(f"{path}: no potential there, {Path(error.filename or WEIGHTS).name} is missing") from None
        except OSError as error:
            raise BadInput(
                f"{path}: no potential there ({Path(error.filename or WEIGHTS).name}: {error.strerror})"
            ) from None
        except (BadInput, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadInput(f"{path}: not a potential that can be read ({one_line(error)})") from None


def _numbers(structures: list[Atoms]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in structures)]).astype(np.int64)
