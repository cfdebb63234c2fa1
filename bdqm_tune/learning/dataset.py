"""From a configuration to training data: structures checked, split and featurised, with fitted targets."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import Descriptor, StoredDerivatives, StoredFeatures
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.features import StructureFeatures, check_searched_descriptors
from bdqm_tune.learning.references import check_precision, choose_references, reference_warnings
from bdqm_tune.learning.scalers import Scaler, fit_scaler
from bdqm_tune.learning.targets import ReferenceEnergies, target_scale_and_shift
from bdqm_tune.structures import (
    Copies,
    Structures,
    Unlabelled,
    builtin_structures,
    digest,
    find_copies,
    isolated_energies,
    read_structures,
    refuse_shared,
    shown_source,
    split_indices,
    trajectory_note,
    without_isolated_atoms,
    without_labels,
)
from bdqm_tune.structures.sealed import seal

LARGEST_GAP = 1e-3  # eV an atom, between energy and free energy, without a warning


@dataclass(frozen=True)
class Split:
    """Structures of one split and their features."""

    structures: Structures
    digest: str
    described: StructureFeatures  # of the structures of both splits
    indices: NDArray[np.int64]  # (n_structures,) this split's structures among them

    @property
    def features(self) -> StoredFeatures:
        """(total atoms, n_features), read from the disk when they are used."""
        return self.described.features.select(self.indices)

    @property
    def derivatives(self) -> StoredDerivatives | None:
        """Derivatives of the features by the positions, 1/Å; None unless forces are trained."""
        derivatives = self.described.derivatives
        return None if derivatives is None else derivatives.select(self.indices)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers (total atoms,)."""
        return np.concatenate([atoms.numbers for atoms in self.structures.atoms]).astype(np.int64)

    def pieces(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Features (n_atoms, n_features) and atomic numbers (n_atoms,), piece by piece."""
        numbers = self.numbers
        for piece in self.features.pieces():
            yield piece.features, numbers[piece.rows]

    def describe(self) -> dict[str, Any]:
        """Name, digest, counts and elements, as plain values."""
        return {
            "source": self.structures.source,
            "digest": self.digest,
            "structures": len(self.structures),
            "atoms": int(self.structures.n_atoms.sum()),
            "elements": self.structures.elements,
            "forces": self.structures.forces is not None,
        }


@dataclass(frozen=True)
class Dataset:
    """The data of a training; the test structures are neither featurised nor labelled."""

    config: Config  # what it was made from
    train: Split
    validation: Split
    test: Unlabelled | None
    references: ReferenceEnergies
    scale: float  # eV, of the network's output
    shift: float  # eV, of every structure's energy
    warnings: list[str]
    copies: int = 0  # structures of the training file that are copies of others in it

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor that gives the features."""
        return self.train.described.descriptor

    @cached_property
    def scaler(self) -> Scaler:
        """The scaler of the features, fitted on the training split."""
        options, (low, high) = self.config.descriptor, self.config.descriptor.scaling_range
        return fit_scaler(self.train.pieces, options.scaling, (low, high), options.scaling_per_element)

    def described_by(self, options: DescriptorOptions) -> "Dataset":
        """The same dataset with features of another descriptor, which are computed when they are used.

        Raises:
            BadInput: an option of the descriptor is outside its range.
        """
        described = self.train.described.with_options(options)
        return replace(
            self,
            config=self.config.model_copy(update={"descriptor": options}),
            train=replace(self.train, described=described),
            validation=replace(self.validation, described=described),
        )

    @property
    def digest(self) -> str:
        """Identifies the training and the validation split together."""
        return hashlib.sha256((self.train.digest + self.validation.digest).encode()).hexdigest()

    def scaled_targets(self, split: Split) -> NDArray[np.float64]:
        """Targets (n_structures,), dimensionless: (energy - reference energies - shift) / scale."""
        structures = split.structures
        return (structures.energies - self.references.of(structures.atoms) - self.shift) / self.scale


Indices = tuple[NDArray[np.int64], NDArray[np.int64]]  # of the training and of the validation structures


def prepare(config: Config, home: Path, indices: Indices | None = None) -> Dataset:
    """Read, check, split and featurise the data of a configuration, and fit references and scalers.

    The labels of the test split are sealed in the folder `test` of `home`; the dataset does not contain them. Where the
    descriptor is searched, features are computed later, through `Dataset.described_by`.

    Args:
        home: `BDQM_HOME`; the feature cache is its folder `features`.
        indices: of a split that was made before; None: as the configuration has it.

    Raises:
        BadInput: a file, an image, an element or an option is not valid; the message names it.
    """
    labelled = read_test(config)
    given = read_training(config)
    structures = given.structures
    test = None if labelled is None else without_labels(labelled)
    check_forces(structures, config)
    warnings, copies = [], None
    if config.training.forces and labelled is not None and (missing := labelled.without_forces()):
        warnings.append(_missing_in_test(labelled, missing, config))
    if given.indices is None:
        copies = find_copies(structures)
        warnings += copies.notes(structures)
        if config.data.validation.split == "random" and (note := trajectory_note(structures)):
            warnings.append(note)
    train_indices, validation_indices = indices or split_training(given, config, copies)
    train, held_out = structures.select(train_indices), structures.select(validation_indices)
    warnings += check_split_forces(train, held_out, config)
    if config.data.validation_file is not None:
        train = replace(train, source=shown_source(config.data.train))
        held_out = replace(held_out, source=shown_source(config.data.validation_file))
        warnings += refuse_shared({"training": train, "validation": held_out})
    if labelled is not None:
        warnings += refuse_shared({"training": structures, "test": labelled})

    described = StructureFeatures(
        structures, config.descriptor, home / "features", bool(config.training.forces), config.device
    )
    if config.descriptor_spaces:
        check_searched_descriptors(config, structures.elements)
    else:
        _ = described.features, described.derivatives

    references = choose_references(config, train, held_out, given.isolated)
    residuals = train.energies - references.of(train.atoms)
    scale, shift = target_scale_and_shift(residuals, config.target.scaling)
    check_precision(config, train.source, residuals - shift)
    if labelled is not None:
        seal(labelled, home)
    return Dataset(
        config=config,
        train=Split(train, digest(train), described, train_indices),
        validation=Split(held_out, digest(held_out), described, validation_indices),
        test=test,
        references=references,
        scale=scale,
        shift=shift,
        warnings=[
            *warnings,
            *reference_warnings(config, train, {"validation": held_out, "test": test}, references),
            *_other_energy(structures, config),
        ],
        copies=0 if copies is None else copies.count,
    )


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
    isolated: dict[int, float] = {}
    if config.target.reference_energies == "isolated_atoms":
        isolated = isolated_energies(structures)
        structures = without_isolated_atoms(structures)
    if config.training.forces == "partial":
        structures = structures.with_some_forces()
    if data.validation_file is None:
        return TrainingData(structures, isolated, None)
    held_out = _read(data.validation_file, config)
    both = structures.joined(held_out, f"{structures.source} + {held_out.source}")
    if config.training.forces == "partial":
        both = both.with_some_forces()
    places = np.arange(len(both))
    return TrainingData(both, isolated, (places[: len(structures)], places[len(structures) :]))


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
    return _read(data.test, config) if data.test else None


def split_training(data: TrainingData, config: Config, copies: Copies | None) -> Indices:
    """The indices of the structures to train on, and of those to validate on. Raises BadInput if there are too few.

    Args:
        copies: among the structures; None: copies may be on both sides.
    """
    options, labels = config.data.validation, None if copies is None else copies.copy
    return data.indices or split_indices(data.structures, options.fraction, options.split, options.seed, labels)


def _read(source: str | list[str], config: Config) -> Structures:
    structures = read_structures(source, config.data)
    if config.target.reference_energies == "isolated_atoms":
        structures = without_isolated_atoms(structures)
    return structures.with_some_forces() if config.training.forces == "partial" else structures


def _forces_elsewhere(structures: Structures) -> str:
    """The columns that may be the forces which the structures lack, for a message."""
    names = ", ".join(structures.force_columns)
    return f"; they have {names}: data.forces_key says which of them are the forces" if names else ""


def _other_energy(structures: Structures, config: Config) -> list[str]:
    gap = structures.free_energy_gap
    if not config.training.forces or gap < LARGEST_GAP:
        return []
    return [
        f"the free energies differ from the energies by up to {1000 * gap:.1f} meV/atom, and forces are derivatives of "
        "the free energy; data.energy_key: free_energy trains on it"
    ]


def check_forces(structures: Structures, config: Config) -> None:
    """Raise BadInput unless the structures have the forces that a configuration trains on."""
    missing = structures.without_forces() if config.training.forces else []
    if len(missing) == len(structures):
        raise BadInput(
            f"{structures.source}: training.forces: {str(config.training.forces).lower()} needs forces (eV/Å), and no "
            f"image has any{_forces_elsewhere(structures)}"
        )
    if missing and config.training.forces != "partial":
        raise BadInput(
            f"{structures.source}, image {missing[0]}: has no forces, as {len(missing)} of {len(structures)} images; "
            "training.forces: true needs them (eV/Å) in every image; training.forces: partial trains images without "
            "on their energies alone"
            f"{_forces_elsewhere(structures)}"
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
    if empty[0] == "training" or "val_forces_mae" in config.objectives:
        raise BadInput(f"{what}; another data.validation.seed or a larger data.validation.fraction may give it some")
    return [f"{what}: there will be no val_forces_mae"]


def _missing_in_test(test: Structures, missing: list[int], config: Config) -> str:
    what = f"{test.source}: {len(missing)} of {len(test)} test structures have no forces, image {missing[0]} the first"
    if len(missing) == len(test) or config.training.forces != "partial":
        return f"{what}: there will be no test_forces_mae"
    return f"{what}: test_forces_mae will be that of the others"


def summary(dataset: Dataset) -> dict[str, Any]:
    """The counts, digests and scales of a dataset, as plain values."""
    reference_maes = {
        f"{name}_reference_energy_mae": float(np.abs(dataset.scaled_targets(split)).mean() * dataset.scale)
        for name, split in (("training", dataset.train), ("validation", dataset.validation))
    }
    return {
        "training_structures": len(dataset.train.structures),
        "validation_structures": len(dataset.validation.structures),
        "test_structures": 0 if dataset.test is None else len(dataset.test),
        "training_atoms": int(dataset.train.structures.n_atoms.sum()),
        "copies": dataset.copies,
        "elements": " ".join(dataset.train.structures.elements),
        "forces": dataset.train.structures.forces is not None,
        "features": "searched" if dataset.config.descriptor_spaces else dataset.descriptor.n_features,
        "training_digest": dataset.train.digest,
        "validation_digest": dataset.validation.digest,
        **reference_maes,
    }
