"""From a configuration to what a network can be trained on: checked, split, featurised, with fitted targets."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.config import Config, Data
from bdqm_tune.descriptors import (
    Descriptor,
    StoredDerivatives,
    StoredFeatures,
    descriptor_from_options,
    stored_derivatives,
    stored_features,
)
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.scalers import Scaler, fit_scaler
from bdqm_tune.learning.targets import (
    NO_REFERENCES,
    ReferenceEnergies,
    fit_reference_energies,
    target_scale_and_shift,
)
from bdqm_tune.structures import (
    Structures,
    builtin_structures,
    digest,
    read_structures,
    refuse_shared,
    split_indices,
)


@dataclass(frozen=True)
class Split:
    """Structures of one split and their features."""

    structures: Structures
    features: StoredFeatures  # (total atoms, n_features)
    digest: str
    derivatives: StoredDerivatives | None = None  # of the features, where forces are trained

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers (total atoms,)."""
        return np.concatenate([atoms.numbers for atoms in self.structures.atoms]).astype(np.int64)

    def pieces(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Features (n_atoms, n_features) and atomic numbers (n_atoms,) of some atoms after the others."""
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
    """All that training needs; the test structures come along unfeaturised, for the evaluation to come."""

    config: Config  # what it was made from
    train: Split
    validation: Split
    test: Structures | None
    descriptor: Descriptor
    references: ReferenceEnergies
    scaler: Scaler
    scale: float  # eV, of the network's output
    shift: float  # eV, of every structure's energy
    warnings: list[str]

    @property
    def digest(self) -> str:
        """Identifies the training and the validation split together."""
        return hashlib.sha256((self.train.digest + self.validation.digest).encode()).hexdigest()

    def scaled_targets(self, split: Split) -> NDArray[np.float64]:
        """What the network is to give for each structure (n_structures,), without unit."""
        structures = split.structures
        return (structures.energies - self.references.of(structures.atoms) - self.shift) / self.scale


def prepare(config: Config, home: Path) -> Dataset:
    """Read, check, split and featurise the data of a configuration, and fit references and scalers.

    Args:
        home: `BDQM_HOME`; the feature store lies in its folder `features`.

    Raises:
        BadInput: whatever is wrong with a file, an image or an element.
    """
    structures, test = read_data(config.data)
    if config.training.forces and structures.forces is None:
        raise BadInput(
            f"{structures.source}: training.forces needs forces (eV/Å) in every image, and not every image has them"
        )
    validation = config.data.validation
    train_indices, validation_indices = split_indices(
        structures, validation.fraction, validation.split, validation.seed
    )
    train, held_out = structures.select(train_indices), structures.select(validation_indices)
    splits = {"training": train, "validation": held_out}
    refuse_shared(splits | ({"test": test} if test is not None else {}))

    descriptor = descriptor_from_options(config.descriptor, structures.elements)
    features = stored_features(structures, descriptor, home / "features")
    derivatives = stored_derivatives(structures, descriptor, home / "features") if config.training.forces else None
    train_split, validation_split = (
        Split(
            part,
            features.select(indices),
            digest(part),
            None if derivatives is None else derivatives.select(indices),
        )
        for part, indices in ((train, train_indices), (held_out, validation_indices))
    )

    low, high = config.descriptor.scaling_range
    references = NO_REFERENCES
    if config.target.reference_energies == "fit":
        references = fit_reference_energies(train.atoms, train.energies)
    scale, shift = target_scale_and_shift(train.energies - references.of(train.atoms), config.target.scaling)
    return Dataset(
        config=config,
        train=train_split,
        validation=validation_split,
        test=test,
        descriptor=descriptor,
        references=references,
        scaler=fit_scaler(
            train_split.pieces, config.descriptor.scaling, (low, high), config.descriptor.scaling_per_element
        ),
        scale=scale,
        shift=shift,
        warnings=_unseen_elements(train, {"validation": held_out, "test": test}, references),
    )


def read_data(data: Data) -> tuple[Structures, Structures | None]:
    """The structures to train and validate on, and those of the test split where there is one."""
    if data.train == "builtin":
        if data.test not in (None, "builtin"):
            raise BadInput(f"test {data.test}: the built-in training data has its own test split; leave test out")
        return builtin_structures("train"), builtin_structures("test")
    if data.test == "builtin":
        raise BadInput("test builtin: goes with the built-in training data only; give a file, or leave test out")
    return read_structures(data.train), read_structures(data.test) if data.test else None


def _unseen_elements(
    train: Structures, others: dict[str, Structures | None], references: ReferenceEnergies
) -> list[str]:
    known = set(train.elements)
    warnings = []
    for name, split in others.items():
        if split is None or not (unseen := sorted(set(split.elements) - known, key=chemical_symbols.index)):
            continue
        warnings.append(
            f"{', '.join(unseen)} in the {name} split but not in the training split: its reference energy is the mean "
            f"energy of a training atom ({references.fallback:.3f} eV), and its predictions are extrapolations"
        )
    return warnings


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
        "elements": " ".join(dataset.train.structures.elements),
        "forces": dataset.train.structures.forces is not None,
        "features": dataset.descriptor.n_features,
        "training_digest": dataset.train.digest,
        "validation_digest": dataset.validation.digest,
        **reference_maes,
    }
