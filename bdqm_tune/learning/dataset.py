"""From a configuration to training data: structures checked, split and featurised, with fitted targets."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import Descriptor, StoredDerivatives, StoredFeatures
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.features import StructureFeatures, check_searched_descriptors
from bdqm_tune.learning.references import check_precision, choose_references, fold_warnings, reference_warnings
from bdqm_tune.learning.scalers import Scaler, fit_scaler
from bdqm_tune.learning.stress_labels import check_split_stress, check_stress, stress_missing_in_test
from bdqm_tune.learning.targets import ReferenceEnergies, target_scale_and_shift
from bdqm_tune.learning.training_data import (
    Indices,
    check_forces,
    check_split_forces,
    decide_labels,
    missing_in_test,
    other_energy,
    read_test,
    read_training,
    split_training,
    with_trained_labels,
)
from bdqm_tune.learning.unread_labels import unread_notes
from bdqm_tune.structures import (
    Structures,
    Unlabelled,
    find_copies,
    refuse_shared,
    shown_source,
    trajectory_note,
    turned_copies,
    without_labels,
)
from bdqm_tune.structures.sealed import seal


@dataclass(frozen=True)
class Split:
    """Structures of one split and their features."""

    structures: Structures
    digest: str
    described: StructureFeatures  # of the structures of both splits
    indices: NDArray[np.int64]  # (n_structures,) this split's structures among them
    folds: int | None = None  # of a cross-validation, each of which holds out some of the structures

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
    def strain_derivatives(self) -> StoredDerivatives | None:
        """Derivatives of the features by the strain, dimensionless; None unless the stress is trained."""
        derivatives = self.described.strain_derivatives
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
            **({} if self.folds is None else {"folds": self.folds}),
        }


@dataclass(frozen=True)
class Dataset:
    """The data of a training; the test structures are neither featurised nor labelled.

    With folds, both splits are all structures: the network that is kept is trained on all of them, and each is
    validated by a network that is trained without its fold. What belongs to that network is in `folds`.
    """

    given: Config  # what it was made from
    config: Config  # the same, with what it leaves to the data decided
    train: Split
    validation: Split
    test: Unlabelled | None
    references: ReferenceEnergies
    scale: float  # eV, of the network's output
    shift: float  # eV, of every structure's energy
    warnings: list[str]
    copies: int = 0  # structures of the training file that are copies of others in it
    folds: tuple["Dataset", ...] = ()  # each with references, scale and scaler of its own training split

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor that gives the features."""
        return self.train.described.descriptor

    @cached_property
    def scaler(self) -> Scaler:
        """The scaler of the features, fitted on the training split."""
        options, (low, high) = self.config.descriptor, self.config.descriptor.scaling_range
        return fit_scaler(
            self.train.pieces,
            options.scaling,
            (low, high),
            options.scaling_per_element,
            options.axis_floor,
            options.logarithm,
        )

    def described_by(self, options: DescriptorOptions) -> "Dataset":
        """The same dataset with features of another descriptor, which are computed when they are used.

        Raises:
            BadInput: an option of the descriptor is outside its range.
        """
        return self.configured(self.config.model_copy(update={"descriptor": options}))

    def configured(self, config: Config) -> "Dataset":
        """The same dataset with another descriptor, and other options of the training. Raises as `described_by`.

        The labels stay: where `training.stress` changes, the data are to be prepared again.
        """
        training = config.training
        described = self.train.described.with_options(config.descriptor, bool(training.forces), bool(training.stress))
        return self._described(config, described)

    def _described(self, config: Config, described: StructureFeatures) -> "Dataset":
        return replace(
            self,
            config=config,
            train=replace(self.train, described=described),
            validation=replace(self.validation, described=described),
            folds=tuple(fold._described(config, described) for fold in self.folds),
        )

    @property
    def indices(self) -> Indices:
        """Which structures are trained on, and which validate."""
        return Indices(
            self.train.indices, self.validation.indices, tuple(fold.validation.indices for fold in self.folds)
        )

    @property
    def left_out(self) -> NDArray[np.int64]:
        """Indices, among the structures of the training file, of those that are in neither split."""
        kept = np.concatenate([self.train.indices, self.validation.indices])
        return np.setdiff1d(np.arange(len(self.train.described.structures)), kept)

    @property
    def digest(self) -> str:
        """Identifies the training and the validation split together."""
        return hashlib.sha256((self.train.digest + self.validation.digest).encode()).hexdigest()

    def scaled_targets(self, split: Split) -> NDArray[np.float64]:
        """Targets (n_structures,), dimensionless: (energy - reference energies - shift) / scale."""
        structures = split.structures
        return (structures.energies - self.references.of(structures.atoms) - self.shift) / self.scale


def prepare(config: Config, home: Path, indices: Indices | None = None) -> Dataset:
    """Read, check, split and featurise the data of a configuration, and fit references and scalers.

    The labels of the test split are sealed in the folder `test` of `home`; the dataset does not contain them. Where the
    descriptor is searched, features are computed later, through `Dataset.described_by`.

    Args:
        home: `BDQM_HOME`; the feature cache is its folder `features`.
        indices: of a split that was made before, in which copies are not looked for; None: as the configuration has it.

    Raises:
        BadInput: a file, an image, an element or an option is not valid; the message names it.
    """
    labelled = read_test(config)
    given = read_training(config)
    structures = given.structures
    requested, (config, warnings) = config, decide_labels(config, structures)
    check_forces(structures, config)
    check_stress(structures, config)
    warnings += unread_notes(requested, structures)
    structures = with_trained_labels(structures, config)
    if labelled is not None:
        labelled = with_trained_labels(labelled, config)
        warnings += missing_in_test(labelled, config) + stress_missing_in_test(labelled, config)
    test = None if labelled is None else without_labels(labelled)
    copies = None
    if indices is None and given.indices is None:
        copies = find_copies(structures)
        warnings += copies.notes(structures)
        if config.data.validation.split == "random" and (note := trajectory_note(structures)):
            warnings.append(note)
    indices = indices or split_training(given, config, copies)
    if labelled is not None:
        trained = {"training": structures}
        if given.indices is not None:  # of two files, whose images are numbered each for itself
            own = given.indices
            trained = {"training": structures.select(own.train), "validation": structures.select(own.validation)}
        turned, notes = turned_copies(trained, labelled)
        warnings += notes
        indices = indices.without(turned)
    if not all(map(len, (indices.train, indices.validation, *indices.folds))):
        raise BadInput(
            f"{structures.source}: without the copies of test structures nothing is left to train or to validate on"
        )
    whole, folds = _splits(structures, indices, config), [_splits(structures, pair, config) for pair in indices.pairs]
    warnings += check_split_forces(*whole, config) + check_split_stress(*whole, config)
    for train, _ in folds:  # each must learn forces; their errors are of all that are held out
        check_split_forces(train, whole[1], config)
        check_split_stress(train, whole[1], config)
    if config.data.validation_file is not None:
        warnings += refuse_shared(dict(zip(("training", "validation"), whole, strict=True)))

    described = StructureFeatures(
        structures,
        config.descriptor,
        home / "features",
        bool(config.training.forces),
        config.device,
        bool(config.training.stress),
    )
    if config.descriptor_spaces:
        check_searched_descriptors(config, structures.elements)
    elif config.declared.features:
        _ = described.features, described.derivatives, described.strain_derivatives

    def fitted(part: Indices) -> Dataset:
        return _fitted(requested, config, described, part, given.isolated)

    dataset, of_folds = fitted(indices), tuple(map(fitted, indices.pairs))
    if labelled is not None:
        seal(labelled, home)
    return replace(
        dataset,
        test=test,
        warnings=[
            *warnings,
            *reference_warnings(config, whole[0], {"validation": whole[1], "test": test}, dataset.references),
            *fold_warnings(folds),
            *other_energy(structures, config),
        ],
        copies=0 if copies is None else copies.count,
        folds=of_folds,
    )


def _splits(structures: Structures, indices: Indices, config: Config) -> tuple[Structures, Structures]:
    """The structures to train and to validate on, named by their files where these are two."""
    train, held_out = structures.select(indices.train), structures.select(indices.validation)
    if config.data.validation_file is not None:
        train = replace(train, source=shown_source(config.data.train))
        held_out = replace(held_out, source=shown_source(config.data.validation_file))
    return train, held_out


def _fitted(
    given: Config, config: Config, described: StructureFeatures, indices: Indices, isolated: Mapping[int, float]
) -> Dataset:
    """Two splits, with the references and the scale that are those of the training split alone.

    Raises:
        BadInput: an element has no reference energy, or single precision cannot hold the targets.
    """
    train, held_out = _splits(described.structures, indices, config)
    train_digest, validation_digest = indices.digests(described.structures)
    references = choose_references(config, train, held_out, isolated)
    residuals = train.energies - references.of(train.atoms)
    scale, shift = target_scale_and_shift(residuals, config.target.scaling)
    check_precision(config, train.source, residuals - shift)
    return Dataset(
        given=given,
        config=config,
        train=Split(train, train_digest, described, indices.train),
        validation=Split(held_out, validation_digest, described, indices.validation, len(indices.folds) or None),
        test=None,
        references=references,
        scale=scale,
        shift=shift,
        warnings=[],
    )


def summary(dataset: Dataset) -> dict[str, Any]:
    """The counts, digests and scales of a dataset, as plain values."""
    reference_maes = {
        f"{name}_reference_energy_mae": float(np.concatenate(errors).mean())
        for name, errors in (
            ("training", [_reference_errors(dataset, dataset.train)]),
            ("validation", [_reference_errors(part, part.validation) for part in dataset.folds or (dataset,)]),
        )
    }
    return {
        "training_structures": len(dataset.train.structures),
        "validation_structures": len(dataset.validation.structures),
        **({"validation_folds": len(dataset.folds)} if dataset.folds else {}),
        "test_structures": 0 if dataset.test is None else len(dataset.test),
        "training_atoms": int(dataset.train.structures.n_atoms.sum()),
        "copies": dataset.copies,
        "left_out": len(dataset.left_out),
        "elements": " ".join(dataset.train.structures.elements),
        "forces": dataset.train.structures.forces is not None,
        **({"stress": True} if dataset.train.structures.stress_counts else {}),
        "features": _features_of(dataset),
        "training_digest": dataset.train.digest,
        "validation_digest": dataset.validation.digest,
        **reference_maes,
    }


def _features_of(dataset: Dataset) -> int | str:
    """The number of features, or why there is none."""
    if not dataset.config.declared.features:
        return "none"
    return "searched" if dataset.config.descriptor_spaces else dataset.descriptor.n_features


def _reference_errors(dataset: Dataset, split: Split) -> NDArray[np.float64]:
    """Absolute errors (n_structures,), eV, of reference energies alone."""
    return np.abs(dataset.scaled_targets(split)) * dataset.scale
