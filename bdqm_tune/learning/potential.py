"""A trained model as one thing: features, network, scales and reference energies; saved without pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bdqm_tune.config import Hyperparameters
from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.networks import SingleNN, sum_per_structure
from bdqm_tune.learning.targets import FeatureScaler, ReferenceEnergies

FORMAT = 1
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
        description: dict[str, Any] = {
            "format": FORMAT,
            "units": {"energy": "eV", "length": "Å"},
            "descriptor": self.descriptor.settings,
            "scaler": {
                "mean": self.scaler.mean.tolist(),
                "deviation": self.scaler.deviation.tolist(),
                "floor": None if self.scaler.floor is None else self.scaler.floor.tolist(),
            },
            "reference_energies": {chemical_symbols[z]: e for z, e in self.references.per_element.items()},
            "reference_energy_fallback": self.references.fallback,
            "scale": self.scale,
            "precision": str(next(self.network.parameters()).dtype).removeprefix("torch."),
            "hyperparameters": self.hyperparameters.model_dump(),
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Potential":
        """Read what `save` wrote.

        Raises:
            BadInput: the folder holds no potential, or a damaged one.
        """
        path = Path(folder)
        try:
            description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
            if description["format"] != FORMAT:
                raise BadInput(f"{path / DESCRIPTION}: format {description['format']}, this version reads {FORMAT}")
            floor = description["scaler"]["floor"]
            hyperparameters = Hyperparameters(**description["hyperparameters"])
            descriptor = descriptor_from_settings(description["descriptor"])
            network = SingleNN(descriptor.n_features, hyperparameters)
            network.to({"float32": torch.float32, "float64": torch.float64}[description["precision"]])
            network.load_state_dict(load_file(path / WEIGHTS))
            return cls(
                descriptor,
                FeatureScaler(
                    np.array(description["scaler"]["mean"]),
                    np.array(description["scaler"]["deviation"]),
                    None if floor is None else np.array(floor),
                ),
                ReferenceEnergies(
                    {atomic_numbers[s]: e for s, e in description["reference_energies"].items()},
                    description["reference_energy_fallback"],
                ),
                description["scale"],
                hyperparameters,
                network.eval(),
            )
        except FileNotFoundError as error:
            raise BadInput(f"{path}: no potential there, {Path(error.filename or WEIGHTS).name} is missing") from None
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadInput(f"{path}: not a potential that can be read ({type(error).__name__}: {error})") from None


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
