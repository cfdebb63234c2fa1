"""A trained model of mace as a `Potential`: safetensors and JSON in a folder, reference energies added in float64."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bdqm_tune.backends.mace_graphs import bare_graph
from bdqm_tune.backends.mace_import import default_dtype, import_mace
from bdqm_tune.backends.mace_model import Arguments, model_with
from bdqm_tune.config.config import describe
from bdqm_tune.config.options import Options
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.files import write_whole
from bdqm_tune.learning.description import WEIGHTS
from bdqm_tune.learning.potential import DESCRIPTION, Potential, Precision, periodic_volume, stress_of
from bdqm_tune.learning.targets import ReferenceEnergies

ENERGIES_OF_ELEMENTS = "atomic_energies_fn.atomic_energies"  # among the weights


class MaceDescription(Options):
    """The content of `potential.json`: all of a potential that is not weights."""

    format: Literal[1]
    backend: Literal["mace"]
    units: dict[str, str]
    mace: str  # version of mace-torch that trained it
    arguments: dict[str, Any]
    precision: Precision
    reference_energies: dict[str, float]  # by symbol, eV
    reference_energy_fallback: float  # eV
    trained_on_forces: bool
    trained_elements: list[str]
    foundation: str | None  # SHA-256 of the file of the model that it was fine-tuned from


@dataclass(frozen=True)
class MacePotential(Potential):
    """Predicts total energies, E = Σ reference energies + the model's interaction energy, forces, and stress."""

    model: torch.nn.Module  # on the CPU; the energies of the elements are 0
    arguments: Arguments
    precision: Precision
    references: ReferenceEnergies
    mace: str  # version of mace-torch that trained it
    trained_on_forces: bool = False
    known_elements: tuple[int, ...] = ()  # atomic numbers of those of the training split
    foundation: str | None = None  # SHA-256 of the file of the model that it was fine-tuned from

    def __post_init__(self) -> None:
        self.model.eval()
        for weight in self.model.parameters():
            weight.requires_grad_(False)  # a quarter less time

    @property
    def n_parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    def evaluate(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        mace = import_mace()
        numbers = self.arguments["atomic_numbers"]
        if unknown := sorted({int(z) for z in atoms.numbers} - set(numbers)):
            has = ", ".join(chemical_symbols[z] for z in numbers)
            raise BadInput(
                f"a model of mace cannot predict {', '.join(chemical_symbols[z] for z in unknown)}: it has {has}"
            )
        has_stress = derivatives and periodic_volume(atoms) > 0
        with default_dtype(self.precision):
            batch = mace.Batch.from_data_list([bare_graph(atoms, numbers, self.arguments["r_max"])])
            found = self.model(batch.to_dict(), compute_force=derivatives, compute_virials=has_stress)
        results: dict[str, Any] = {"energy": float(self.references.of([atoms])[0]) + float(found["energy"].detach()[0])}
        if derivatives:
            results["forces"] = found["forces"].detach().double().numpy()
        if has_stress:
            # Not mace's stress, which is over the volume of a cell made longer where it is not periodic.
            results |= stress_of(-found["virials"].detach().double().numpy()[0], atoms)
        return results

    def in_precision(self, precision: Precision) -> "MacePotential":
        if precision == self.precision:
            return self
        model = model_with(self.arguments, dict(self.model.state_dict()), precision)
        return replace(self, model=model, precision=precision)

    def to_mace(self) -> torch.nn.Module:
        """The model as mace itself has it, with the reference energies in it; `torch.save` writes it as a `.model`."""
        energies = [
            self.references.per_element.get(z, self.references.fallback) for z in self.arguments["atomic_numbers"]
        ]
        state = dict(self.model.state_dict())
        state[ENERGIES_OF_ELEMENTS] = torch.tensor([energies], dtype=state[ENERGIES_OF_ELEMENTS].dtype)
        return model_with(self.arguments, state, self.precision)

    def save(self, folder: Path) -> None:
        """Write `potential.safetensors` (weights) and `potential.json` (all the rest)."""
        description = MaceDescription(
            format=1,
            backend="mace",
            units={"energy": "eV", "length": "Å"},
            mace=self.mace,
            arguments=self.arguments,
            precision=self.precision,
            reference_energies=self.references.by_symbol,
            reference_energy_fallback=self.references.fallback,
            trained_on_forces=self.trained_on_forces,
            trained_elements=[chemical_symbols[z] for z in self.known_elements],
            foundation=self.foundation,
        )
        folder.mkdir(parents=True, exist_ok=True)
        # Copies, as some have memory in common.
        weights = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in self.model.state_dict().items()
        }
        write_whole(folder / WEIGHTS, save(weights))
        write_whole(folder / DESCRIPTION, description.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "MacePotential":
        """Read what `save` wrote.

        Raises:
            BadInput: the folder holds no model of mace, or a damaged one; or mace-torch is not installed.
        """
        path = Path(folder)
        import_mace()
        try:
            description = MaceDescription.model_validate_json((path / DESCRIPTION).read_bytes())
            own = {atomic_numbers[symbol]: energy for symbol, energy in description.reference_energies.items()}
            return cls(
                model_with(description.arguments, load_file(path / WEIGHTS), description.precision),
                description.arguments,
                description.precision,
                ReferenceEnergies(own, description.reference_energy_fallback),
                description.mace,
                description.trained_on_forces,
                tuple(atomic_numbers[symbol] for symbol in description.trained_elements),
                description.foundation,
            )
        except ValidationError as error:
            raise BadInput(f"{path}: {DESCRIPTION}: {describe(error, MaceDescription)}") from None
        except OSError as error:
            name = Path(error.filename or WEIGHTS).name
            raise BadInput(f"{path}: no potential there, {name}: {error.strerror or 'is missing'}") from None
        except (
            AssertionError,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            SafetensorError,
        ) as error:
            raise BadInput(f"{path}: not a potential that can be read ({one_line(error)})") from None
