"""The potential that is trained here: descriptor, scaler, network, scale and reference energies."""

import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.files import write_whole
from bdqm_tune.learning.contributions import Contributions, contributions_of
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.description import WEIGHTS, Description, read_description
from bdqm_tune.learning.networks import AtomicNetwork, MixedNN, make_network
from bdqm_tune.learning.potential import DESCRIPTION, Potential, Precision, stress_of
from bdqm_tune.learning.scalers import Scaler
from bdqm_tune.learning.targets import ReferenceEnergies


@dataclass(frozen=True)
class NetworkPotential(Potential):
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
    def from_dataset(
        cls, dataset: Dataset, hyperparameters: Hyperparameters, network: AtomicNetwork
    ) -> "NetworkPotential":
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

    def evaluate(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        if derivatives:
            features, backward = self.descriptor.with_backward(atoms)
        else:
            features, backward = self.descriptor.compute(atoms), None
        energy, gradient, extrapolation = self.of_features(features, atoms, derivatives)
        results: dict[str, Any] = {"energy": energy}
        if backward is not None and gradient is not None:
            of_energy = backward(gradient[None])
            results |= {"forces": of_energy.forces[0]} | stress_of(of_energy.by_strain[0], atoms)
        if extrapolation is not None:
            results["extrapolation"] = extrapolation
        return results

    def of_features(
        self, features: NDArray[np.float64], atoms: Atoms, derive: bool
    ) -> tuple[float, NDArray[np.float64] | None, float | None]:
        """Of one structure from its features (n_atoms, n_features).

        Returns:
            The energy, eV; with `derive` its derivatives (n_atoms, n_features) by the features, eV; and how far its
            atom that is furthest outside the training split is outside.
        """
        numbers = atoms.numbers
        inputs = self.scaler(features, numbers)
        outputs, by_inputs = self._contributions(inputs, numbers, derive)
        energy = self.shift + self.references.of([atoms])[0] + self.scale * outputs.sum()
        gradient = None if by_inputs is None else self.scale * self.scaler.by_features(by_inputs, features, numbers)
        beyond = self.scaler.outside(inputs, numbers)
        return float(energy), gradient, None if beyond is None else float(beyond.max(initial=0.0))

    def predict_features(self, features: NDArray[np.float64], structures: list[Atoms]) -> NDArray[np.float64]:
        """Total energies (n_structures,), eV, from precomputed features (total atoms, n_features)."""
        numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in structures)])
        outputs, _ = self._contributions(self.scaler(features, numbers), numbers, False)
        ends = np.cumsum([len(atoms) for atoms in structures], dtype=np.int64)
        summed = np.array([part.sum() for part in np.split(outputs, ends)[:-1]])
        return self.shift + self.references.of(structures) + self.scale * summed

    @property
    def n_parameters(self) -> int:
        return self.network.n_parameters

    @cached_property
    def _contributions(self) -> Contributions:
        return contributions_of(self.network, self.descriptor.n_features, self.hyperparameters)

    def __getstate__(self) -> dict[str, Any]:
        """Without `_contributions`, which has the memory of this network, not that of a copy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def in_precision(self, precision: Precision) -> "NetworkPotential":
        """The same potential with its network in another precision; all else always is in float64."""
        return replace(self, network=copy.deepcopy(self.network).to(getattr(torch, precision)))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def save(self, folder: Path) -> None:
        """Write `potential.safetensors` (weights) and `potential.json` (all the rest)."""
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
    def load(cls, folder: str | Path) -> "NetworkPotential":
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
