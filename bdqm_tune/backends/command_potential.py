"""The model that a program has trained: its files, and a function or command of the user that predicts with them."""

import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from signal import SIGTERM
from typing import Annotated, Any, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, ValidationError

from bdqm_tune.backends.command_process import Program, last_lines, status_text
from bdqm_tune.config.backends import named, refuse_foreign_code
from bdqm_tune.config.config import describe
from bdqm_tune.config.options import Options
from bdqm_tune.config.templates import Template
from bdqm_tune.errors import BadInput, BdqmError, located, one_line
from bdqm_tune.files import write_whole
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.potential import DESCRIPTION, Potential, Precision, Prediction, periodic_volume
from bdqm_tune.progress import check
from bdqm_tune.structures.labels import energy_of, forces_of, stress_of

FILES = "files"  # folder of the program's files, in that of a model
NOTHING = (
    "backend_options had neither calculator nor predict when it was trained, one of which says how the program's "
    "files predict; docs/backends.md has an example"
)
MOST_KNOWN = 20_000  # predictions of a command that are kept
POLL, GRACE = 0.05, 5.0  # seconds: between two looks at a command that predicts, and before it is killed


class Model(Options):
    """How predictions are made; see `CommandOptions`."""

    calculator: str | None = None
    predict: str | list[str] | None = None
    predicted_keys: dict[Literal["energy", "forces", "stress"], str] = Field({})

    @property
    def code(self) -> str:
        """What predictions run; "" where there is nothing."""
        if self.calculator is not None:
            return self.calculator
        return self.predict if isinstance(self.predict, str) else shlex.join(self.predict or [])


class Described(Options):
    """The content of `potential.json`."""

    format: Literal[1] = 1
    backend: Literal["command"] = "command"
    model: Model
    elements: list[Annotated[str, Field(pattern="^[A-Z][a-z]?$")]]
    trained_on_forces: bool


@dataclass(frozen=True)
class CommandPotential(Potential):
    """Predicts by ASE's calculator that the user's function returns, or by the user's command."""

    folder: Path  # with the program's files
    model: Model
    # With defaults, for a field without one leaves the protocol's property in its place.
    known_elements: tuple[int, ...] = ()
    trained_on_forces: bool = False
    device: str = "cpu"
    keep: tuple[str, ...] = ("**/*",)
    owner: Any = None  # of a temporary folder, which lasts as long as this
    _known: dict[Any, dict[str, Any]] = field(default_factory=dict, repr=False)  # predictions of the command
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # a calculator is for one at a time

    n_parameters = None

    def in_precision(self, precision: Precision) -> "CommandPotential":
        """Itself: the precision is the program's."""
        return self

    def save(self, folder: Path) -> None:
        (folder / FILES).mkdir(parents=True, exist_ok=True)
        for file in _kept(self.folder, self.keep):
            target = folder / FILES / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / file, target)
        symbols = [chemical_symbols[z] for z in self.known_elements]
        described = Described(model=self.model, elements=symbols, trained_on_forces=self.trained_on_forces)
        write_whole(folder / DESCRIPTION, described.model_dump_json(indent=1))

    def evaluate(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        return self._evaluate_all([atoms], derivatives)[0]

    def predict(self, structures: list[Atoms], forces: bool = True, allow_unknown_elements: bool = False) -> Prediction:
        """As `Potential.predict`; a command is run once for all structures."""
        check_elements(self.known_elements, structures, allow_unknown_elements)
        found = self._evaluate_all(structures, forces) if structures else []
        energies = np.array([each["energy"] for each in found], dtype=np.float64)
        return Prediction(energies, [each["forces"] for each in found] if forces else None)

    def _evaluate_all(self, structures: Sequence[Atoms], derivatives: bool) -> list[dict[str, Any]]:
        if self.model.calculator is not None:
            with self._lock:
                return [self._calculated(atoms, derivatives) for atoms in structures]
        if self.model.predict is None:
            raise BadInput(f"the model predicts nothing: {NOTHING}")
        # A start of the program takes seconds, and an evaluation predicts the same structures several times.
        keys = [(derivatives, *(np.asarray(part).tobytes() for part in _geometry(atoms))) for atoms in structures]
        new = {key: atoms for key, atoms in zip(keys, structures, strict=True) if key not in self._known}
        if new:
            found = self._commanded(list(new.values()), derivatives)
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
            self._known.update(zip(new, found, strict=True))
        return [dict(self._known[key]) for key in keys]

    @cached_property
    def _calculator(self) -> Any:
        where = str(self.model.calculator)
        if (here := str(Path.cwd())) not in sys.path:  # which a console script does not have there
            sys.path.insert(0, here)
        try:
            return named(where)(self.folder)
        except Exception as error:  # whatever the user's code does
            raise BdqmError(f"calculator {where}: {type(error).__name__}: {one_line(error)}") from error

    def _calculated(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        image = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        image.calc = self._calculator
        try:
            results: dict[str, Any] = {"energy": float(image.get_potential_energy())}
            if derivatives:
                results["forces"] = np.array(image.get_forces(), dtype=np.float64)
                if periodic_volume(image) > 0:
                    with suppress(PropertyNotImplementedError, NotImplementedError):  # it does not know it
                        results["stress"] = np.array(image.get_stress(), dtype=np.float64)
        except Exception as error:  # whatever the user's code does
            where = f"calculator {self.model.calculator}"
            raise BdqmError(f"{where}: {type(error).__name__}: {one_line(error)}") from error
        return _finite(results)

    def _commanded(self, structures: Sequence[Atoms], derivatives: bool) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="bdqm-", ignore_cleanup_errors=True) as temporary:
            place = Path(temporary)
            given, predicted, output = place / "structures.extxyz", place / "predicted.extxyz", place / "output.txt"
            bare = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in structures]
            ase.io.write(given, bare, format="extxyz")
            values = {"structures": given, "predicted": predicted, "out": self.folder}
            words = Template.of_command(self.model.predict or "").filled(
                {**{name: str(path) for name, path in values.items()}, "device": self.device}
            )
            program = Program(words, output, SIGTERM, GRACE)
            try:
                while (status := program.poll()) is None:
                    check()
                    time.sleep(POLL)
            finally:
                program.stop()
            said = " | ".join(last_lines(output, 3)) or "it wrote nothing"
            if status != 0:
                raise BdqmError(f"predict: {words[0]} ended {status_text(status)}: {said}")
            try:
                images = ase.io.read(predicted, ":", format="extxyz")
            except Exception as error:  # whatever the file has
                raise BdqmError(
                    f"predict: {words[0]} wrote no extended XYZ to {{predicted}} ({one_line(error)}): {said}"
                ) from None
        if [image.numbers.tolist() for image in images] != [atoms.numbers.tolist() for atoms in structures]:
            raise BdqmError(
                f"predict: {words[0]} wrote {len(images)} structures for {len(structures)}, or with other atoms, or in "
                "another order"
            )
        return [self._read(i, image, derivatives) for i, image in enumerate(images)]

    def _read(self, number: int, image: Atoms, derivatives: bool) -> dict[str, Any]:
        names = self.model.predicted_keys
        try:
            with located(f"predict: structure {number} of {{predicted}}"):
                results: dict[str, Any] = {"energy": energy_of(image, names.get("energy"))}
                if derivatives:
                    results["forces"] = forces_of(image, names.get("forces"))
                    stress = stress_of(image, names.get("stress")) if periodic_volume(image) > 0 else None
                    if results["forces"] is None:
                        raise BadInput("has no forces; predicted_keys says what they are called there")
                    if stress is not None:
                        results["stress"] = stress
        except BadInput as error:  # the program's fault, not the caller's
            raise BdqmError(str(error)) from None
        return results


def _geometry(atoms: Atoms) -> tuple[Any, ...]:
    return atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc


def load(folder: str | Path) -> CommandPotential:
    """Read what `save` wrote. What it names as calculator or command is run when it predicts, not before.

    Raises:
        BadInput: there is no such model; it names nothing that predicts; or the user does not allow what it names.
    """
    path = Path(folder)
    try:
        described = Described.model_validate_json((path / DESCRIPTION).read_bytes())
        elements = tuple(atomic_numbers[symbol] for symbol in described.elements)
    except OSError as error:
        raise BadInput(f"{path}: no potential there ({DESCRIPTION}: {error.strerror})") from None
    except ValidationError as error:
        raise BadInput(f"{path}: not a potential that can be read ({describe(error, Described)})") from None
    except KeyError as error:
        raise BadInput(f"{path}: not a potential that can be read (unknown element {error})") from None
    if not described.model.code:
        raise BadInput(f"{path}: the model predicts nothing: {NOTHING}")
    refuse_foreign_code(described.model.code, f"the model {path}")
    # A copy: a model of the tracking store is downloaded into a folder that is gone after this.
    owner = tempfile.TemporaryDirectory(prefix="bdqm-", ignore_cleanup_errors=True)
    if (path / FILES).is_dir():
        shutil.copytree(path / FILES, owner.name, dirs_exist_ok=True)
    return CommandPotential(
        Path(owner.name), described.model, elements, described.trained_on_forces, _device(), owner=owner
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _kept(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files in a folder that match a pattern, relative to it; no links, which may lead anywhere."""
    found = {file.relative_to(folder) for pattern in patterns for file in folder.glob(pattern)}
    return sorted(
        file
        for file in found
        if (folder / file).is_file() and not any((folder / part).is_symlink() for part in (file, *file.parents))
    )


def _finite(results: dict[str, Any]) -> dict[str, Any]:
    if not all(np.isfinite(value).all() for value in results.values()):
        raise BdqmError("the model's calculator returned what is not finite")
    return results
