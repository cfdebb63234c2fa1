"""A trained potential: descriptor, scaler, network, scale and reference energies."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.descriptors.base import EnergyDerivatives
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.files import write_whole
from bdqm_tune.learning.contributions import Contributions, contributions_of
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.description import DESCRIPTION, WEIGHTS, Description, read_description
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.networks import AtomicNetwork, MixedNN, make_network
from bdqm_tune.learning.scalers import Scaler
from bdqm_tune.learning.targets import ReferenceEnergies

Precision = Literal["float32", "float64"]
NO_STRESS = "a stress needs a periodic structure in a cell with a volume"
FLAT_VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy of a flat matrix


class Prediction(NamedTuple):
    """Energies and forces that a potential predicts, and how far from what it was trained on."""

    energies: NDArray[np.float64]  # (n_structures,), eV
    forces: list[NDArray[np.float64]] | None = None  # each (n_atoms, 3), eV/Å; None: not requested
    # (n_structures,) of the atom that is furthest outside the training split, see `Scaler.outside`; None: not known
    extrapolation: NDArray[np.float64] | None = None


class Evaluation(NamedTuple):
    """What a pass through descriptor and network gives of one structure."""

    energy: float  # eV
    derivatives: EnergyDerivatives | None  # None: not wanted
    extrapolation: float | None  # of a `Prediction`


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

        Energies and forces take about twice as long as energies.

        Args:
            allow_unknown_elements: predict elements that the model was not trained on, and warn (`UnknownElement`).

        Raises:
            BadInput: such an element, one that the descriptor does not know, or positions that are not finite.
        """
        check_elements(self.known_elements, structures, allow_unknown_elements)
        found = [self._evaluate(atoms, forces) for atoms in structures]
        known = [each.extrapolation for each in found if each.extrapolation is not None]
        return Prediction(
            np.array([each.energy for each in found]),
            [each.derivatives.forces[0] for each in found if each.derivatives is not None] if forces else None,
            np.array(known) if len(known) == len(found) else None,
        )

    def stress(self, atoms: Atoms, allow_unknown_elements: bool = False) -> NDArray[np.float64]:
        """Stress (6,) of a periodic structure, eV/Å³, in the order xx, yy, zz, yz, xz, xy: see `stress_of`.

        Raises:
            BadInput: as `predict`; or the structure has no stress.
        """
        return given_stress(self.results(atoms, True, allow_unknown_elements))

    def results(self, atoms: Atoms, derivatives: bool = True, allow_unknown_elements: bool = False) -> dict[str, Any]:
        """All that is predicted of one structure, under ASE's names, eV and Å, in one pass.

        `energy`; with `derivatives` `forces` and, of a periodic structure with a volume, `stress`; `extrapolation` as
        in a `Prediction`, where it is known.

        Raises:
            BadInput: as `predict`.
        """
        check_elements(self.known_elements, [atoms], allow_unknown_elements)
        found = self._evaluate(atoms, derivatives)
        results: dict[str, Any] = {"energy": found.energy}
        if found.derivatives is not None:
            results |= {"forces": found.derivatives.forces[0]} | stress_of(found.derivatives.by_strain[0], atoms)
        if found.extrapolation is not None:
            results["extrapolation"] = found.extrapolation
        return results

    def _evaluate(self, atoms: Atoms, derivatives: bool) -> Evaluation:
        if derivatives:
            features, backward = self.descriptor.with_backward(atoms)
        else:
            features, backward = self.descriptor.compute(atoms), None
        energy, gradient, extrapolation = self.of_features(features, atoms, derivatives)
        of_energy = None if backward is None or gradient is None else backward(gradient[None])
        return Evaluation(energy, of_energy, extrapolation)

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

    @cached_property
    def _contributions(self) -> Contributions:
        return contributions_of(self.network, self.descriptor.n_features, self.hyperparameters)

    def __getstate__(self) -> dict[str, Any]:
        """Without `_contributions`, which has the memory of this network, not that of a copy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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


def stress_of(by_strain: NDArray[np.float64], atoms: Atoms) -> dict[str, NDArray[np.float64]]:
    """Stress (6,), eV/Å³, in the order xx, yy, zz, yz, xz, xy, under its name: (dE/d strain)/volume.

    Of the derivative (3, 3), eV, the symmetric part is taken, for a rotation is no strain. There is none of a structure
    that is not periodic, or in a cell without a volume.
    """
    volume = periodic_volume(atoms)
    return {"stress": (by_strain + by_strain.T).reshape(-1)[FLAT_VOIGT] / (2 * volume)} if volume > 0 else {}


def periodic_volume(atoms: Atoms) -> float:
    """Volume of the cell, Å³; 0 if the structure is not periodic, or its cell has none."""
    return float(atoms.cell.volume) if atoms.pbc.any() else 0.0


def given_stress(results: Mapping[str, Any]) -> NDArray[np.float64]:
    """The stress among predictions. Raises BadInput if there is none."""
    if "stress" not in results:
        raise BadInput(NO_STRESS)
    stress: NDArray[np.float64] = results["stress"]
    return stress
