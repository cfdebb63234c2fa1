"""A backend: a potential that is linear in the features of each atom, fitted to energies and forces.

    E = Σ_i (reference energy + w_z · x_i)   with x_i the standardised features of atom i, of element z

An epoch is a step of the conjugate-gradient method on

    mean (ΔE / n_atoms)² + force_weight² · mean ΔF² + ridge · |w|²

so that training can be pruned, interrupted and resumed like that of a network.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.config.backends import Declaration
from bdqm_tune.config.config import Config
from bdqm_tune.config.options import Options, hyperparameter, with_training_option
from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.files import write_whole
from bdqm_tune.learning.dataset import Dataset, Split
from bdqm_tune.learning.fit import BestEpoch, Checkpoint, EpochRecord
from bdqm_tune.learning.held_out import HeldOut
from bdqm_tune.learning.potential import DESCRIPTION, Potential, Precision, stress_of
from bdqm_tune.learning.targets import ReferenceEnergies

Floats = NDArray[np.float64]


class Hyperparameters(Options):
    """What trials may differ in; those with a range are searched unless a study fixes them."""

    ridge: float = hyperparameter(1e-6, "of |w|², eV²", {"float": [1e-8, 1e-1], "log": True}, gt=0)
    force_weight: float = hyperparameter(
        0.3, "of the forces, Å", {"float": [0.03, 3.0], "log": True}, weighs="forces", gt=0
    )


@dataclass(frozen=True)
class LinearPotential(Potential):
    """The model: all that `evaluate` needs, and what a table or a plot shows of it."""

    descriptor: Descriptor
    elements: tuple[int, ...]  # atomic numbers, in the order of the rows of the weights
    weights: Floats  # (n_elements, n_features) eV
    mean: Floats  # (n_features,)
    deviation: Floats  # (n_features,)
    references: ReferenceEnergies
    shift: float  # eV a structure
    trained_on: tuple[int, ...]  # atomic numbers of the elements of the training split
    with_forces: bool

    # Properties of the protocol: a field of such a name would take the property for its default.
    @property
    def known_elements(self) -> tuple[int, ...]:
        return self.trained_on

    @property
    def trained_on_forces(self) -> bool:
        return self.with_forces

    @property
    def n_parameters(self) -> int:
        return self.weights.size

    def evaluate(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        by_atom = self._weights_of(atoms)
        if not derivatives:
            return {"energy": self._energy(atoms, self.descriptor.compute(atoms), by_atom)}
        features, backward = self.descriptor.with_backward(atoms)
        # dE/d features is the same wherever the atoms are; the descriptor makes forces of it.
        found = backward((by_atom / self.deviation).astype(np.float64)[None])
        energy = self._energy(atoms, features, by_atom)
        return {"energy": energy, "forces": found.forces[0]} | stress_of(found.by_strain[0], atoms)

    def _weights_of(self, atoms: Atoms) -> Floats:
        """Weights (n_atoms, n_features), eV: those of each atom's element, 0 of an unknown one."""
        rows = np.vstack([self.weights, np.zeros_like(self.weights[:1])])
        return rows[[self.elements.index(z) if z in self.elements else -1 for z in atoms.numbers.tolist()]]

    def _energy(self, atoms: Atoms, features: Floats, by_atom: Floats) -> float:
        inputs = ((features - self.mean) / self.deviation).astype(self.weights.dtype)
        return float(self.shift + self.references.of([atoms])[0] + (by_atom * inputs).sum())

    def in_precision(self, precision: Precision) -> "LinearPotential":
        return replace(self, weights=self.weights.astype(precision))

    def save(self, folder: Path) -> None:
        content = {
            "backend": LINEAR.name,  # by which `read_potential` finds `load`
            "precision": str(self.weights.dtype),
            "descriptor": self.descriptor.settings,
            "elements": self.elements,
            "references": {str(z): energy for z, energy in self.references.per_element.items()},
            "fallback": self.references.fallback,
            "shift": self.shift,
            "trained_on": self.trained_on,
            "with_forces": self.with_forces,
            **{name: getattr(self, name).tolist() for name in ("weights", "mean", "deviation")},
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / DESCRIPTION, json.dumps(content, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "LinearPotential":
        """Read what `save` wrote. Raises BadInput: the folder holds no such potential, or a damaged one."""
        try:
            content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            return cls(
                descriptor_from_settings(content["descriptor"]),
                tuple(content["elements"]),
                np.array(content["weights"], dtype=content["precision"]),
                np.array(content["mean"]),
                np.array(content["deviation"]),
                ReferenceEnergies({int(z): e for z, e in content["references"].items()}, content["fallback"]),
                content["shift"],
                tuple(content["trained_on"]),
                content["with_forces"],
            )
        except (OSError, KeyError, TypeError, ValueError, BadInput) as error:
            raise BadInput(f"{folder}: not a linear potential that can be read ({one_line(error)})") from None


class Rows(NamedTuple):
    """A split as linear equations for the weights, one after the other (n_weights = n_elements · n_features)."""

    energies: Floats  # (n_structures, n_weights): their products with the weights are the energies, eV
    targets: Floats  # (n_structures,) eV, less reference energies and shift
    n_atoms: NDArray[np.int64]  # (n_structures,)
    forces: list[Floats]  # of each structure (3 n_atoms, n_weights), 1/Å; empty where forces are not trained
    force_targets: list[Floats]  # each (3 n_atoms,) eV/Å


class Run:
    """One training: `bdqm_tune.backends.TrainingRun`."""

    def __init__(
        self, problem: "Problem", config: Config, hyperparameters: Hyperparameters, key: dict[str, Any]
    ) -> None:
        self.key, self._problem, self._config = key, problem, config
        matrix, right = problem.energy_equations
        if problem.train.forces:
            of_forces, of_right = problem.force_equations
            matrix = matrix + hyperparameters.force_weight**2 * of_forces
            right = right + hyperparameters.force_weight**2 * of_right
        self._matrix = matrix + hyperparameters.ridge * np.eye(len(right))
        self._force_weight = hyperparameters.force_weight
        # The state of the conjugate-gradient method, and the weights of the best epoch.
        self._state = {
            "weights": np.zeros_like(right),
            "residual": right,
            "direction": right,
            "best": np.zeros_like(right),
        }
        self._best = self._new_best()
        self.records: list[EpochRecord] = []

    def _new_best(self) -> BestEpoch:
        return BestEpoch(self._config.training, self._config.objective, "none")

    @property
    def n_parameters(self) -> int:
        return len(self._state["weights"])

    @property
    def best(self) -> EpochRecord | None:
        return self._best.record

    def __iter__(self) -> Iterator[EpochRecord]:
        while len(self.records) < self._config.training.epochs:
            if self.records and self._best.is_over(len(self.records)):
                return
            start = time.perf_counter()
            self._step()
            record = self._measure(start)
            self.records.append(record)
            if self._best.improves(record):
                self._state["best"] = self._state["weights"]
            yield record

    def _step(self) -> None:
        """One step of the conjugate-gradient method; none where the equations are solved."""
        state = self._state
        along = self._matrix @ state["direction"]
        squares, curvature = state["residual"] @ state["residual"], state["direction"] @ along
        if curvature > 0:
            size = squares / curvature
            weights, residual = state["weights"] + size * state["direction"], state["residual"] - size * along
            direction = residual + (residual @ residual / squares) * state["direction"]
            self._state = {**state, "weights": weights, "residual": residual, "direction": direction}

    def _measure(self, start: float) -> EpochRecord:
        weights, problem = self._state["weights"], self._problem
        trained, validated = _errors(problem.train, weights), _errors(problem.validation, weights)
        loss = np.mean((trained[0] / problem.train.n_atoms) ** 2)
        maes: dict[str, float] = {}
        if problem.train.forces:
            loss += self._force_weight**2 * np.mean(np.concatenate(trained[1]) ** 2)
            for name, errors in (("train_forces_mae", trained[1]), ("val_forces_mae", validated[1])):
                maes[name] = float(np.abs(np.concatenate(errors)).mean())
        return EpochRecord(
            epoch=len(self.records) + 1,
            train_loss=float(loss),
            train_energy_mae=float(np.abs(trained[0]).mean()),
            val_energy_mae=float(np.abs(validated[0]).mean()),
            val_energy_mae_per_atom=float(np.abs(validated[0] / problem.validation.n_atoms).mean()),
            lr=0.0,  # it has none
            epoch_seconds=time.perf_counter() - start,
            **maes,
        )

    def checkpoint(self) -> Checkpoint | None:
        state = {name: torch.from_numpy(value.copy()) for name, value in self._state.items()}
        return Checkpoint(list(self.records), 0.0, {}, torch.zeros(1, dtype=torch.uint8), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        self.records = list(checkpoint.records)
        self._state = {name: value.numpy().copy() for name, value in checkpoint.epochs.items()}
        self._best = self._new_best()
        for record in self.records:
            self._best.improves(record)

    def potential(self) -> LinearPotential:
        return self._problem.potential(self._state["best"])

    def held_out(self) -> HeldOut:
        rows = self._problem.validation
        energies, forces = _errors(rows, self._state["best"])
        sums = [float(np.abs(errors).sum()) for errors in forces] or [0.0] * len(energies)
        components = [len(errors) for errors in forces] or [0] * len(energies)
        return HeldOut(energies, rows.n_atoms, np.array(sums), np.array(components))


def _errors(rows: Rows, weights: Floats) -> tuple[Floats, list[Floats]]:
    """Errors of energies (n_structures,), eV, and of the forces of each structure (3 n_atoms,), eV/Å."""
    forces = [matrix @ weights - true for matrix, true in zip(rows.forces, rows.force_targets, strict=True)]
    return rows.energies @ weights - rows.targets, forces


class Problem:
    """A dataset as equations, for all trainings on it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        features = np.asarray(dataset.train.features)
        self.mean, deviation = features.mean(axis=0), features.std(axis=0)
        self.deviation = np.where(deviation > 1e-8, deviation, 1.0)
        both = np.concatenate([dataset.train.numbers, dataset.validation.numbers])
        self.elements = tuple(np.unique(both).tolist())
        self.train, self.validation = self._rows(dataset.train), self._rows(dataset.validation)
        per_atom = self.train.energies / self.train.n_atoms[:, None]
        n = len(per_atom)
        self.energy_equations = per_atom.T @ per_atom / n, per_atom.T @ (self.train.targets / self.train.n_atoms) / n
        if self.train.forces:
            pairs, n = list(zip(self.train.forces, self.train.force_targets, strict=True)), 3 * self.train.n_atoms.sum()
            self.force_equations = sum(m.T @ m for m, _ in pairs) / n, sum(m.T @ true for m, true in pairs) / n

    def _rows(self, split: Split) -> Rows:
        dataset, structures = self.dataset, split.structures
        trained = bool(dataset.config.training.forces)
        inputs = (np.asarray(split.features) - self.mean) / self.deviation
        ends = np.cumsum(structures.n_atoms)[:-1]
        energies, forces = [], []
        for atoms, of_atoms in zip(structures.atoms, np.split(inputs, ends), strict=True):
            place = np.searchsorted(self.elements, atoms.numbers)
            sums = np.zeros((len(self.elements), inputs.shape[1]))
            np.add.at(sums, place, of_atoms)
            energies.append(sums.reshape(-1))
            if trained:
                sparse = dataset.descriptor.sparse_derivatives(atoms)[1]
                pulls = np.zeros((len(atoms), len(self.elements), inputs.shape[1], 3))
                np.subtract.at(pulls, (sparse.atom, place[sparse.centre]), sparse.values / self.deviation[:, None])
                forces.append(pulls.transpose(0, 3, 1, 2).reshape(3 * len(atoms), -1))
        targets = structures.energies - dataset.references.of(structures.atoms) - dataset.shift
        true = [own.reshape(-1) for own in structures.forces or []] if trained else []
        return Rows(np.array(energies), targets, structures.n_atoms, forces, true)

    def potential(self, weights: Floats) -> LinearPotential:
        dataset = self.dataset
        return LinearPotential(
            dataset.descriptor,
            self.elements,
            weights.reshape(len(self.elements), -1),
            self.mean,
            self.deviation,
            dataset.references,
            dataset.shift,
            tuple(np.unique(dataset.train.numbers).tolist()),
            bool(dataset.config.training.forces),
        )


class LinearBackend:
    """Holds the equations of the dataset: `bdqm_tune.backends.Backend`."""

    device, at_once = "cpu", 1

    def __init__(self, config: Config, dataset: Dataset) -> None:
        # What the configuration leaves to the data (auto) is decided in the dataset.
        self._config, self._dataset = config.decided(bool(dataset.config.training.forces)), dataset
        self._problem: Problem | None = None  # of the descriptor that was used last

    def start(self, hyperparameters: Hyperparameters, seed: int, dataset: Dataset | None = None) -> Run:
        data = dataset or self._dataset
        if self._problem is None or self._problem.dataset.config.descriptor != data.config.descriptor:
            self._problem = Problem(data)
        key = {
            "backend": LINEAR.name,
            "hyperparameters": hyperparameters.model_dump(mode="json"),
            "training": data.config.training.model_dump(mode="json"),
            "target": self._config.target.model_dump(mode="json") | {"objective": self._config.objective},
            "descriptor": data.descriptor.settings,
            "data": data.digest,
        }
        return Run(self._problem, self._config, hyperparameters, key)


def _without_stress(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return with_training_option(content, "stress", False)


LINEAR = Declaration(
    name="linear",
    meaning="linear in the features of each atom, by ridge regression",
    hyperparameters=Hyperparameters,
    make="bdqm_tune_example.linear:LinearBackend",
    load="bdqm_tune_example.linear:LinearPotential.load",
    features=True,
    forces=(True, False, "auto"),
    stress=(False,),
    unused=frozenset({"loss", "huber_delta", "energy_loss", "precision"}),
    complete=_without_stress,
)
