"""The content of `potential.json`: all of a potential that is not weights, as plain values; no pickle."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, ValidationError

from bdqm_tune.config.config import describe
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.config.options import Options
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.scalers import ElementScaler, FeatureScaler, Scaler
from bdqm_tune.learning.targets import ReferenceEnergies

FORMAT: Literal[2] = 2
WEIGHTS = "potential.safetensors"


class ColumnScaling(Options):
    """A `FeatureScaler`: a number for each feature."""

    offset: list[float]
    divisor: list[Annotated[float, Field(gt=0)]]
    floor: list[Annotated[float, Field(gt=0)]] | None
    matrix: list[list[float]] | None = None  # of a whitening; an earlier version has none
    range: list[list[float]] | None = None  # least and greatest in the training split; an earlier version has none
    axes: list[list[float]] | None = None  # the same of the inputs of a whitening

    @classmethod
    def of(cls, scaler: FeatureScaler) -> "ColumnScaling":
        """The plain values of a scaler."""
        parts = {field.name: getattr(scaler, field.name) for field in fields(FeatureScaler)}
        return cls(**{name: None if part is None else part.tolist() for name, part in parts.items()})

    def scaler(self) -> FeatureScaler:
        """The scaler with these values."""
        parts = {name: None if part is None else np.array(part) for name, part in self}
        return FeatureScaler(**parts)  # type: ignore[arg-type]

    def check_width(self, n_features: int) -> None:
        """Raise BadInput unless there are values for `n_features` features."""
        limits = (self.range or [self.offset] * 2, self.axes or [self.offset] * 2)
        columns = [self.offset, self.divisor, *([] if self.floor is None else [self.floor]), *limits[0], *limits[1]]
        if self.matrix is not None:
            columns += [[0.0] * len(self.matrix), *self.matrix]
        if any(len(column) != n_features for column in columns) or any(len(pair) != 2 for pair in limits):
            raise BadInput(f"the scaler is not for the descriptor's {n_features} features")


class Description(Options):
    """A potential without its weights."""

    format: Literal[2]
    units: dict[str, str]
    descriptor: dict[str, Any]
    scaling: ColumnScaling
    scaling_per_element: dict[str, ColumnScaling] | None  # by symbol; `scaling` is then for all other elements
    reference_energies: dict[str, float]  # by symbol, eV
    reference_energy_fallback: float  # eV
    scale: Annotated[float, Field(gt=0)]  # eV
    shift: float  # eV
    precision: Literal["float32", "float64"]
    elements: list[str]  # those that have a network of their own
    mixed: bool = False  # every atom takes a share of each of them
    hyperparameters: Hyperparameters
    trained_on_forces: bool | None = None  # null: not recorded by an earlier version
    trained_elements: list[str] | None = None  # of the training split; null: not recorded by an earlier version

    @classmethod
    def of(
        cls,
        descriptor: dict[str, Any],
        scaler: Scaler,
        references: ReferenceEnergies,
        scale: float,
        shift: float,
        precision: Literal["float32", "float64"],
        elements: tuple[int, ...],
        mixed: bool,
        hyperparameters: Hyperparameters,
        trained_on_forces: bool | None,
        trained_elements: tuple[int, ...] | None,
    ) -> "Description":
        """The description of a potential with these parts."""
        common, per_element = scaler, None
        if isinstance(scaler, ElementScaler):
            common = scaler.others
            per_element = {chemical_symbols[z]: ColumnScaling.of(own) for z, own in scaler.per_element.items()}
        if not isinstance(common, FeatureScaler):
            raise TypeError(f"a {type(common).__name__} cannot be described")
        return cls(
            format=FORMAT,
            units={"energy": "eV", "length": "Å"},
            descriptor=descriptor,
            scaling=ColumnScaling.of(common),
            scaling_per_element=per_element,
            reference_energies=references.by_symbol,
            reference_energy_fallback=references.fallback,
            scale=scale,
            shift=shift,
            precision=precision,
            elements=[chemical_symbols[z] for z in elements],
            mixed=mixed,
            hyperparameters=hyperparameters,
            trained_on_forces=trained_on_forces,
            trained_elements=None if trained_elements is None else [chemical_symbols[z] for z in trained_elements],
        )

    def scaler(self) -> Scaler:
        """The feature scaler."""
        if self.scaling_per_element is None:
            return self.scaling.scaler()
        own = {atomic_numbers[symbol]: scaling.scaler() for symbol, scaling in self.scaling_per_element.items()}
        return ElementScaler(own, self.scaling.scaler())

    def references(self) -> ReferenceEnergies:
        """The reference energies."""
        own = {atomic_numbers[symbol]: energy for symbol, energy in self.reference_energies.items()}
        return ReferenceEnergies(own, self.reference_energy_fallback)

    @property
    def atomic_numbers(self) -> list[int]:
        """Of the elements that have a network of their own."""
        return [atomic_numbers[symbol] for symbol in self.elements]

    @property
    def known_elements(self) -> tuple[int, ...] | None:
        """Atomic numbers of the elements of the training split; None: not known.

        An earlier version, which does not record them, has energies, networks or scalers of each.
        """
        symbols = (
            self.trained_elements
            or list(self.reference_energies)
            or self.elements
            or list(self.scaling_per_element or {})
        )
        return tuple(sorted(atomic_numbers[symbol] for symbol in symbols)) or None

    def check_width(self, n_features: int) -> None:
        """Raise BadInput unless the scalers are for `n_features` features."""
        for scaling in (self.scaling, *(self.scaling_per_element or {}).values()):
            scaling.check_width(n_features)


class _Format1(Options):
    """Format 1: one network and one scaler for all elements, and no shift."""

    format: Literal[1]
    units: dict[str, str]
    descriptor: dict[str, Any]
    feature_mean: list[float]
    feature_deviation: list[Annotated[float, Field(gt=0)]]
    feature_floor: list[Annotated[float, Field(gt=0)]] | None
    reference_energies: dict[str, float]
    reference_energy_fallback: float
    scale: Annotated[float, Field(gt=0)]
    precision: Literal["float32", "float64"]
    hyperparameters: Hyperparameters

    def upgraded(self) -> Description:
        """The same in the current format."""
        unchanged = {"units", "descriptor", "reference_energies", "reference_energy_fallback", "scale", "precision"}
        return Description(
            **self.model_dump(include=unchanged),
            format=FORMAT,
            scaling=ColumnScaling(offset=self.feature_mean, divisor=self.feature_deviation, floor=self.feature_floor),
            scaling_per_element=None,
            shift=0.0,
            elements=[],
            hyperparameters=self.hyperparameters,
            trained_on_forces=False,
        )


class _AnyFormat(Options, extra="ignore"):
    format: Literal[1, 2]


def read_description(path: Path) -> Description:
    """Read `potential.json`.

    Raises:
        OSError: the file cannot be read.
        BadInput: its content is not the description of a potential.
    """
    text = path.read_bytes()
    model: type[Options] = _AnyFormat
    try:
        if _AnyFormat.model_validate_json(text).format == 1:
            model = _Format1
            return _Format1.model_validate_json(text).upgraded()
        model = Description
        return Description.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(f"{path.name}: {describe(error, model)}") from None
