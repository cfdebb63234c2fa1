"""Any training program with a command line: started for each trial, followed by what it writes, stopped by a signal."""

import hashlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from bdqm_tune.backends.command_metrics import EpochMetrics
from bdqm_tune.backends.command_potential import CommandPotential, Model
from bdqm_tune.backends.command_process import Program, last_lines, status_text
from bdqm_tune.backends.native import pick_device
from bdqm_tune.config.backends.command import CommandOptions, Hyperparameters
from bdqm_tune.config.config import Config
from bdqm_tune.config.templates import Template
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.files import write_whole
from bdqm_tune.learning.checkpoint import NoCheckpoint
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import BestEpoch, Checkpoint, EpochRecord
from bdqm_tune.progress import check, note
from bdqm_tune.structures import Structures

POLL = 0.2  # seconds between two looks at what the program has written
OUTPUT = "output.txt"  # its output, in its folder
IN_REASON, IN_TRACEBACK = 3, 20  # lines of the output that say why it failed


class CommandRun:
    """One training by a program, in a folder of its own."""

    n_parameters = None

    def __init__(
        self, config: Config, files: Mapping[str, Path], hyperparameters: Hyperparameters, seed: int, dataset: Dataset
    ) -> None:
        """
        Args:
            files: of the splits, by the placeholder's name.

        Raises:
            BadInput: a value cannot be in the command.
        """
        self._config, self._dataset = config, dataset
        self._options = CommandOptions(**config.backend_options)
        self._values: dict[str, Any] = {
            **hyperparameters.model_dump(mode="json"),
            **{name: str(path) for name, path in files.items()},
            "epochs": config.training.epochs,
            "seed": seed,
            "device": str(pick_device(config.device)),
        }
        self._words("train", Path("/"))  # which refuses values before a folder is made
        self._place: Path | None = None  # in which the folder is made; None: a temporary one
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._out: Path | None = None
        self._program: Program | None = None
        self._look: Callable[[], None] = lambda: None
        # Which epoch's model is kept, and when training ends, is the program's choice unless the user says more.
        own: dict[str, Any] = {"smoothing": 1}
        if config.training.early_stopping == "auto":
            own["early_stopping"] = None
        self._best = BestEpoch(config.training.model_copy(update=own), config.objective, "none")
        sizes = {len(atoms) for atoms in dataset.validation.structures.atoms}
        self._n_atoms = sizes.pop() if len(sizes) == 1 else None  # of every validation structure
        self.records: list[EpochRecord] = []
        self.key: dict[str, Any] = {
            "backend": "command",
            "options": config.backend_options,
            "hyperparameters": hyperparameters.model_dump(mode="json"),
            "epochs": config.training.epochs,
            "objective": config.objective,
            "seed": seed,
            "data": dataset.digest,
        }

    @property
    def best(self) -> EpochRecord | None:
        return self._best.record

    def work_in(self, place: Path) -> None:
        """Make the training's folder in this place, where it outlives the process; call it before all else."""
        self._place = place

    def watch(self, look: Callable[[], None]) -> None:
        self._look = look

    def __iter__(self) -> Iterator[EpochRecord]:
        """Raises BdqmError where the program fails, or writes no error that is the objective."""
        resumes = bool(self.records)
        out = self._out = self._out if resumes and self._out is not None else self._new_folder()
        output = out / OUTPUT
        followed = output if self._options.metrics.file is None else self._named(self._options.metrics.file, out)
        metrics = EpochMetrics(self._options.metrics, followed)
        program = Program(
            self._words("resume" if resumes else "train", out), output, self._options.signal, self._options.grace
        )
        self._program, start = program, time.perf_counter()
        try:
            while True:
                check()
                status = program.poll()  # before what it wrote is read, so that all of it is
                for found in metrics.new(final=status is not None):
                    if not self._last < found["epoch"] <= self._config.training.epochs:
                        continue  # known from before it was stopped, or an evaluation after the last
                    record = self._record(found, time.perf_counter() - start)
                    start = time.perf_counter()
                    self._best.improves(record)
                    self.records.append(record)
                    yield record
                    if self._best.is_over(record.epoch):
                        return
                if status is not None:
                    break
                self._look()
                self._check_silence(time.perf_counter() - start, output)
                time.sleep(POLL)
        finally:
            program.stop()
        self._check_end(status, output)

    def close(self) -> None:
        """Stop the program, if it runs."""
        if self._program is not None:
            self._program.stop()

    def checkpoint(self) -> Checkpoint | None:
        """The epochs, and which folder has the program's own state; None where nothing resumes it."""
        if self._options.resume is None or self._place is None or self._out is None:
            return None
        folder = {"folder": self._out.name}
        return Checkpoint(list(self.records), 0.0, folder, torch.zeros(0, dtype=torch.uint8), {})

    def restore(self, checkpoint: Checkpoint) -> None:
        name = str(checkpoint.scheduler.get("folder", ""))
        out = None if self._place is None else self._place / Path(name).name
        if self._options.resume is None or out is None or not name or not out.is_dir():
            raise NoCheckpoint(f"{out}: the folder of the training is not there")
        self._out, self.records = out, list(checkpoint.records)
        for record in self.records:
            self._best.improves(record)

    def potential(self) -> CommandPotential:
        """What the program has left in its folder, with the way in which it predicts."""
        if self._out is None:
            raise BdqmError("the program has not run yet")
        options = self._options
        return CommandPotential(
            self._out,
            Model(calculator=options.calculator, predict=options.predict, predicted_keys=options.predicted_keys),
            tuple(np.unique(self._dataset.train.numbers).tolist()),
            bool(self._config.training.forces),
            self._values["device"],
            tuple(options.keep),
            self._temporary,
        )

    def held_out(self) -> None:
        """None: a program writes no errors of single structures."""

    @property
    def _last(self) -> int:
        return self.records[-1].epoch if self.records else 0

    def _words(self, which: str, out: Path) -> list[str]:
        given = (self._options.resume if which == "resume" else None) or self._options.train
        return Template.of_command(given).filled({**self._values, "out": str(out)})

    def _named(self, file: str, out: Path) -> Path:
        return Path(Template.of_text(file).filled({**self._values, "out": str(out)})[0])

    def _new_folder(self) -> Path:
        if self._place is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="bdqm-", ignore_cleanup_errors=True)
            return Path(self._temporary.name)
        # A new name each time: a worker that was declared dead may still write into the former one.
        if self._place.exists():
            for former in self._place.iterdir():
                shutil.rmtree(former, ignore_errors=True)
        out = self._place / uuid4().hex[:12]
        out.mkdir(parents=True)
        return out.absolute()

    def _record(self, found: Mapping[str, float], seconds: float) -> EpochRecord:
        total, per_atom = found.get("val_energy_mae"), found.get("val_energy_mae_per_atom")
        if self._n_atoms is not None:
            total, per_atom = (
                per_atom * self._n_atoms if total is None and per_atom is not None else total,
                total / self._n_atoms if per_atom is None and total is not None else per_atom,
            )
        record = EpochRecord(
            epoch=int(found["epoch"]),
            train_loss=found.get("train_loss"),
            train_energy_mae=None,
            val_energy_mae=total,
            val_energy_mae_per_atom=per_atom,
            lr=found.get("lr"),
            epoch_seconds=seconds,
            val_forces_mae=found.get("val_forces_mae"),
            val_stress_mae=found.get("val_stress_mae"),
        )
        if getattr(record, self._config.objective) is None:
            there = ", ".join(name for name in found if name != "epoch")
            raise BdqmError(
                f"metrics: epoch {record.epoch} of the program has {there}, from which the objective "
                f"{self._config.objective} does not follow; name its column in backend_options.metrics.columns, or set "
                "target.objective"
            )
        return record

    def _check_silence(self, seconds: float, output: Path) -> None:
        """Refuse a program that has not written an epoch for too long."""
        most = self._options.silence
        if most is not None and seconds > most:
            raise self._failure(f"the program wrote no epoch after {self._last} for {most:g} s", output)

    def _failure(self, what: str, output: Path) -> BdqmError:
        lines = last_lines(output, IN_TRACEBACK)
        error = BdqmError(f"{what}: {' | '.join(lines[-IN_REASON:]) or 'it wrote nothing'}")
        error.add_note("\n".join(["Its output ends so:", *lines]))
        return error

    def _check_end(self, status: int, output: Path) -> None:
        """Refuse a program that failed, or that trained nothing; one that ended early by itself is complete."""
        epochs, name = self._config.training.epochs, self._words("train", output.parent)[0]
        if status == 0 and self.records:
            return
        if status != 0 and self._last >= epochs:
            note(f"bdqm-tune: {name} ended {status_text(status)}, after its last epoch; see {OUTPUT} of the model")
            return
        what = f"{name} ended {status_text(status)} after epoch {self._last} of {epochs}"
        if status == 0:
            what = f"{name} ended without a line that has the errors of an epoch as backend_options.metrics says"
        raise self._failure(what, output)


class CommandBackend:
    """Holds the splits as files, once for all trainings."""

    at_once = 1

    def __init__(self, config: Config, dataset: Dataset) -> None:
        """
        Raises:
            BadInput: the objective does not follow from the metrics, for structures differ in size.
        """
        self._config, self._dataset = config, dataset
        place = pick_device(config.device)
        self.device = "cpu" if place.type == "cpu" else torch.cuda.get_device_name(place)
        options = CommandOptions(**config.backend_options)
        known, sizes = options.metrics.known, {len(atoms) for atoms in dataset.validation.structures.atoms}
        needed = {"val_energy_forces": "val_energy_mae_per_atom"}.get(config.objective, config.objective)
        if needed not in known and len(sizes) > 1:
            raise BadInput(
                f"backend_options.metrics: has no {needed}, which the objective needs and which does not follow from "
                "the other error, as validation structures have different numbers of atoms; set target.objective"
            )
        self._files = _written(dataset, options.keys)

    def start(self, hyperparameters: Hyperparameters, seed: int, dataset: Dataset | None = None) -> CommandRun:
        return CommandRun(self._config, self._files, hyperparameters, seed, self._dataset)


def _written(dataset: Dataset, keys: Mapping[str, str]) -> dict[str, Path]:
    """The files of both splits, in a folder beside the feature cache, which other workers share; written if missing.

    They stay, as the features do: a training that resumes finds them under the same name.
    """
    content = json.dumps([dataset.digest, dataset.train.digest, keys], sort_keys=True)
    folder = (
        dataset.train.described.cache.absolute().parent / "splits" / hashlib.sha256(content.encode()).hexdigest()[:16]
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for which, split in (("train", dataset.train), ("validation", dataset.validation)):
        files[which] = folder / f"{which}.extxyz"
        if not files[which].exists():
            text = io.StringIO()
            ase.io.write(text, labelled(split.structures, keys), format="extxyz")
            write_whole(files[which], text.getvalue())
    return files


def labelled(structures: Structures, keys: Mapping[str, str]) -> list[Atoms]:
    """Structures with their labels under these names: energy, eV, and stress (3, 3), eV/Å³, in `info`; forces, eV/Å,
    (n_atoms, 3) in `arrays`. What a structure does not have is left out.

    Args:
        keys: names of energy, forces and stress.
    """
    stresses = structures.stresses if structures.stress_counts else np.full((len(structures), 6), np.nan)
    images = []
    for i, atoms in enumerate(structures.atoms):
        image = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        image.info[keys["energy"]] = float(structures.energies[i])
        if structures.forces is not None and np.isfinite(structures.forces[i]).all():
            image.arrays[keys["forces"]] = structures.forces[i]
        if np.isfinite(stresses[i]).all():
            image.info[keys["stress"]] = voigt_6_to_full_3x3_stress(stresses[i])
        images.append(image)
    return images
