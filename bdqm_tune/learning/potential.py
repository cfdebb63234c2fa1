"""A trained model as one thing: features, network, scales and reference energies; saved without pickle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bdqm_tune.config import describe
from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.hyperparameters import Hyperparameters, Options
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.networks import SingleNN, sum_per_structure
from bdqm_tune.learning.targets import FeatureScaler, ReferenceEnergies

FORMAT: Literal[1] = 1
WEIGHTS, DESCRIPTION = "potential.safetensors", "potential.json"


class Prediction(NamedTuple):
    """What a potential says of some structures."""

    energies: NDArray[np.float64]  # (n_structures,), eV


@dataclass(frozen=True)
class Potential:
    """Predicts total energies: E = Σ reference energies + scale · Σ network(scaled features)."""

    descriptor: Descriptor
    scaler: FeatureScaler
    references: ReferenceEnergies
    scale: float  # eV
    hyperparameters: Hyperparameters
    network: SingleNN

    @classmethod
    def from_dataset(cls, dataset: Dataset, hyperparameters: Hyperparameters, network: SingleNN) -> "Potential":
        """The potential of a network that was trained on a dataset."""
        return cls(
            dataset.descriptor, dataset.scaler, dataset.references, dataset.scale, hyperparameters, network.cpu().eval()
        )

    def predict(self, structures: list[Atoms]) -> Prediction:
        """Total energies of the structures.

        Raises:
            BadInput: an element that the descriptor does not know, or positions that are not finite.
        """
        features = [self.descriptor.compute(atoms) for atoms in structures]
        return Prediction(
            np.array([self.predict_features(f, [a])[0] for f, a in zip(features, structures, strict=True)])
        )

    @torch.no_grad()
    def predict_features(self, features: NDArray[np.float64], structures: list[Atoms]) -> NDArray[np.float64]:
        """Total energies (n_structures,), eV, from features (total atoms, n_features) computed before."""
        dtype = next(self.network.parameters()).dtype
        inputs = torch.as_tensor(self.scaler(features), dtype=dtype)
        owner = torch.repeat_interleave(torch.tensor([len(atoms) for atoms in structures]))
        summed = sum_per_structure(self.network(inputs), owner, len(structures)).double().numpy()
        return self.references.of(structures) + self.scale * summed

    def save(self, folder: Path) -> None:
        """Write `potential.safetensors` (weights) and `potential.json` (all the rest) into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.network.state_dict().items()}, folder / WEIGHTS)
        description = _Description(
            format=FORMAT,
            units={"energy": "eV", "length": "Å"},
            descriptor=self.descriptor.settings,
            feature_mean=self.scaler.mean.tolist(),
            feature_deviation=self.scaler.deviation.tolist(),
            feature_floor=None if self.scaler.floor is None else self.scaler.floor.tolist(),
            reference_energies={chemical_symbols[z]: e for z, e in self.references.per_element.items()},
            reference_energy_fallback=self.references.fallback,
            scale=self.scale,
            precision="float64" if next(self.network.parameters()).dtype == torch.float64 else "float32",
            hyperparameters=self.hyperparameters,
        )
        (folder / DESCRIPTION).write_text(description.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Potential":
        """Read what `save` wrote.

        Raises:
            BadInput: the folder holds no potential, or a damaged one.
        """
        path = Path(folder)
        try:
            description = _Description.model_validate_json((path / DESCRIPTION).read_text(encoding="utf-8"))
            descriptor = descriptor_from_settings(description.descriptor)
            mean, deviation = np.array(description.feature_mean), np.array(description.feature_deviation)
            floor = None if description.feature_floor is None else np.array(description.feature_floor)
            if any(column is not None and len(column) != descriptor.n_features for column in (mean, deviation, floor)):
                raise BadInput(f"the scaler is not for the descriptor's {descriptor.n_features} features")
            network = SingleNN(descriptor.n_features, description.hyperparameters)
            network.to(torch.float64 if description.precision == "float64" else torch.float32)
            network.load_state_dict(load_file(path / WEIGHTS))
            per_element = {atomic_numbers[s]: e for s, e in description.reference_energies.items()}
        except FileNotFoundError as error:
            # safetensors raises it without the file's name.
            raise BadInput(f"{path}: no potential there, {Path(error.filename or WEIGHTS).name} is missing") from None
        except OSError as error:
            raise BadInput(
                f"{path}: no potential there ({Path(error.filename or WEIGHTS).name}: {error.strerror})"
            ) from None
        except ValidationError as error:
            reason = f"{DESCRIPTION}: {describe(error, _Description)}"
            raise BadInput(f"{path}: not a potential that can be read ({reason})") from None
        except (BadInput, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadInput(f"{path}: not a potential that can be read ({one_line(error)})") from None
        return cls(
            descriptor,
            FeatureScaler(mean, deviation, floor),
            ReferenceEnergies(per_element, description.reference_energy_fallback),
            description.scale,
            description.hyperparameters,
            network.eval(),
        )


class _Description(Options):
    """The content of `potential.json`."""

    format: Literal[1]
    units: dict[str, str]
    descriptor: dict[str, Any]
    feature_mean: list[float]
    feature_deviation: list[Annotated[float, Field(gt=0)]]
    feature_floor: list[Annotated[float, Field(gt=0)]] | None
    reference_energies: dict[str, float]  # eV
    reference_energy_fallback: float  # eV
    scale: Annotated[float, Field(gt=0)]  # eV
    precision: Literal["float32", "float64"]
    hyperparameters: Hyperparameters


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """A potential as an ASE calculator; energies in eV."""

    implemented_properties = ["energy"]  # noqa: RUF012  (ASE's own form)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = float(self.potential.predict([self.atoms]).energies[0])
