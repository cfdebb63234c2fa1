"""The structures that a configuration names: read, with the labels that are trained, and split."""

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.config.config import OF_FORCES, Config, Files
from bdqm_tune.descriptors import descriptor_from_options
from bdqm_tune.errors import BadInput, located
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.stress_labels import decide_stress
from bdqm_tune.learning.unread_labels import under_other_names
from bdqm_tune.structures import (
    Copies,
    Structures,
    builtin_structures,
    digest,
    fold_indices,
    isolated_energies,
    read_structures,
    split_indices,
    without_isolated_atoms,
)
from bdqm_tune.units import bytes_text

SAMPLED = 5  # structures whose derivatives are counted to estimate those of all
LARGEST_GAP = 1e-3  # eV an atom, between energy and free energy, without a warning


class Indices(NamedTuple):
    """Which structures are trained on, and which validate; with folds both are all of them."""

    train: NDArray[np.int64]  # (n_train,), ascending
    validation: NDArray[np.int64]  # (n_validation,), ascending
    folds: tuple[NDArray[np.int64], ...] = ()  # of each fold the structures that it holds out, ascending

    def without(self, left_out: NDArray[np.int64]) -> "Indices":
        """Without the structures at these indices."""
        parts = self.train, self.validation, *self.folds
        train, validation, *folds = (part[~np.isin(part, left_out)] for part in parts)
        return Indices(train, validation, tuple(folds))

    @property
    def pairs(self) -> "list[Indices]":
        """What each network is trained and validated on, where there are folds."""
        return [Indices(np.setdiff1d(self.train, held_out), held_out) for held_out in self.folds]

    def digests(self, structures: Structures) -> tuple[str, str]:
        """What identifies the training and the validation split; with folds the second also says who is in which."""
        of_folds = "".join(digest(structures.select(held_out)) for held_out in self.folds)
        train, validation = (digest(structures.select(part)) for part in (self.train, self.validation))
        return train, hashlib.sha256(of_folds.encode()).hexdigest() if self.folds else validation


class TrainingData(NamedTuple):
    """What the files of a configuration have to train and to validate on."""

    structures: Structures
    isolated: dict[int, float]  # energies of isolated atoms, eV, by atomic number, where the references are theirs
    indices: Indices | None  # None: the structures are to be split


def read_training(config: Config) -> TrainingData:
    """The structures to train and to validate on.

    Raises:
        BadInput: a file that is not valid.
    """
    data = config.data
    structures = builtin_structures("train") if data.train == "builtin" else read_structures(data.train, data)
    isolated = isolated_energies(structures) if config.target.reference_energies == "isolated_atoms" else {}
    structures, indices = _to_train(structures, config), None
    if data.validation_file is not None:
        n_train, held_out = len(structures), _to_train(read_structures(data.validation_file, data), config)
        structures = structures.joined(held_out, f"{structures.source} + {held_out.source}")
        indices = Indices(np.arange(n_train), np.arange(n_train, len(structures)))
    return TrainingData(with_trained_labels(structures, config), isolated, indices)


def read_test(config: Config) -> Structures | None:
    """The structures of the test split; None: there is none.

    Raises:
        BadInput: a file that is not valid, or only one of the two built-in splits.
    """
    data = config.data
    if data.train == "builtin":
        if data.test not in (None, "builtin"):
            raise BadInput(f"test {data.test}: the built-in training data has its own test split; leave test out")
        return builtin_structures("test")
    if data.test == "builtin":
        raise BadInput("test builtin: goes with the built-in training data only; give a file, or leave test out")
    if not data.test:
        return None
    return with_trained_labels(_to_train(read_structures(data.test, data), config), config)


def read_labelled(file: Files, config: Config) -> Structures:
    """The structures of a further file, read as those of a configuration. Raises BadInput if it is not valid."""
    return _to_train(read_structures(file, config.data), config)


def split_training(data: TrainingData, config: Config, copies: Copies | None) -> Indices:
    """The indices of the structures to train on, and of those to validate on. Raises BadInput if there are too few.

    Args:
        copies: among the structures; None: copies may be on both sides.
    """
    options, labels, structures = config.data.validation, None if copies is None else copies.copy, data.structures
    if data.indices is not None:
        return data.indices
    if options.folds is not None:
        folds = fold_indices(structures, options.folds, options.split, options.seed, labels)
        return Indices(np.arange(len(structures)), np.arange(len(structures)), tuple(folds))
    return Indices(*split_indices(structures, options.fraction, options.split, options.seed, labels))


def with_trained_labels(structures: Structures, config: Config) -> Structures:
    """The structures with the labels that a configuration trains on: forces of some, and the stress."""
    if config.training.forces == "partial":
        structures = structures.with_some_forces()
    return structures.with_stress() if config.training.stress in (True, "partial") else structures


def decide_labels(config: Config, structures: Structures) -> tuple[Config, list[str]]:
    """The configuration with `auto` of `training.forces` and `.stress` decided, and what to know about it.

    Raises:
        BadInput: the descriptor refuses a structure.
    """
    forces, notes = _forces_to_train(config, structures)
    stress, more = decide_stress(config, structures) if forces else (False, [])
    return config.decided(forces, stress), [*notes, *more]


def _forces_to_train(config: Config, structures: Structures) -> tuple[bool, list[str]]:
    """Whether forces are trained, and what to know about it.

    By `auto` they are where they are an objective or the stress is to be trained, or where every structure has them and
    their derivatives fit into the memory of the configuration, whatever this machine has: all workers decide alike.

    Raises:
        BadInput: the descriptor refuses a structure.
    """
    if config.training.forces != "auto":
        return bool(config.training.forces), []
    named = {config.target.objective, *(config.study.objectives or [])}
    if not named.isdisjoint(OF_FORCES) or config.training.stress in (True, "partial"):
        return True, []
    if missing := structures.without_forces():
        some = len(structures) - len(missing)
        note = f"{structures.source}: {some} of {len(structures)} images have forces, which are not trained on"
        return False, [f"{note}; training.forces: partial trains on them"] if some else []
    if not config.declared.features:
        return True, []
    n_bytes = _bytes_of_derivatives(structures, config)
    if n_bytes <= MemoryBudget.on(torch.device("cpu"), config.memory).n_bytes:
        return True, []
    return False, [
        f"{structures.source}: the forces are not trained on, as their derivatives, about {bytes_text(int(n_bytes))}, "
        f"do not fit into `memory: {config.memory:g}` (GiB); a larger one in the configuration keeps them, and "
        "training.forces: true reads them from the disk"
    ]


def check_forces(structures: Structures, config: Config) -> None:
    """Raise BadInput unless the structures have the forces that a configuration trains on."""
    missing = structures.without_forces() if config.training.forces else []
    if len(missing) == len(structures):
        raise BadInput(
            f"{structures.source}: training.forces: {str(config.training.forces).lower()} needs forces (eV/Å), and no "
            f"image has any{under_other_names(structures, 'forces')}"
        )
    if missing and config.training.forces != "partial":
        raise BadInput(
            f"{structures.source}, image {missing[0]}: has no forces, as {len(missing)} of {len(structures)} images; "
            "training.forces: true needs them (eV/Å) in every image; training.forces: partial trains images without "
            "on their energies alone"
            f"{under_other_names(structures, 'forces')}"
        )


def check_split_forces(train: Structures, validation: Structures, config: Config) -> list[str]:
    """Check that both splits have forces where those of some structures are trained on; gives what to know.

    Raises:
        BadInput: the training split has none, or the validation split, whose error of the forces is an objective.
    """
    if not config.training.forces:
        return []
    empty = [
        name
        for name, split in (("training", train), ("validation", validation))
        if len(split.without_forces()) == len(split)
    ]
    if not empty:
        return []
    what = f"{train.source}: no structure of the {empty[0]} split has forces"
    if empty[0] == "training" or any(name in OF_FORCES for name in config.objectives):
        more = "a larger data.validation.fraction" if config.data.validation.folds is None else "more folds"
        raise BadInput(
            f"{what}; another data.validation.seed or {more} may give it some"
            f"{'' if empty[0] == 'training' else ', or target.objective may be val_energy_mae_per_atom'}"
        )
    return [f"{what}: there will be no val_forces_mae"]


def missing_in_test(test: Structures, config: Config) -> list[str]:
    """A warning where forces are trained, and structures of the test split have none."""
    missing = test.without_forces() if config.training.forces else []
    if not missing:
        return []
    what = f"{test.source}: {len(missing)} of {len(test)} test structures have no forces, image {missing[0]} the first"
    if len(missing) == len(test) or config.training.forces != "partial":
        return [f"{what}: there will be no test_forces_mae{under_other_names(test, 'forces')}"]
    return [f"{what}: test_forces_mae will be that of the others"]


def other_energy(structures: Structures, config: Config) -> list[str]:
    """A warning where forces are trained that are not derivatives of the energies."""
    gap = structures.free_energy_gap
    if not config.training.forces or gap < LARGEST_GAP:
        return []
    return [
        f"the free energies differ from the energies by up to {1000 * gap:.1f} meV/atom, and forces are derivatives of "
        "the free energy; data.energy_key: free_energy trains on it"
    ]


def _bytes_of_derivatives(structures: Structures, config: Config) -> float:
    """What the derivatives take in memory, bytes, by those of a few structures from the smallest to the largest."""
    descriptor = descriptor_from_options(config.descriptor, structures.elements, structures.atoms)
    order = np.argsort(structures.n_atoms, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(SAMPLED, len(order))).astype(int)]
    n_numbers = 0
    for i in chosen:
        with located(f"{structures.source}, image {structures.images[i]}"):
            n_numbers += descriptor.sparse_derivatives(structures.atoms[i])[1].values.size
    share = structures.n_atoms[chosen].sum() / structures.n_atoms.sum()
    return n_numbers / share * np.dtype(config.training.precision).itemsize


def _to_train(structures: Structures, config: Config) -> Structures:
    """The structures without those that only give the reference energies."""
    return without_isolated_atoms(structures) if config.target.reference_energies == "isolated_atoms" else structures
