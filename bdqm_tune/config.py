"""Every option, declared once: type, default, range, meaning. What is not known here is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.hyperparameters import (
    DEFAULT_SEARCH,
    Options,
    Space,
    check_value,
    excluded_by,
    parse_space,
    refuse_two_ways,
)

Sampler = Literal["tpe", "cmaes", "random", "gp", "grid", "qmc"]
Pruner = Literal["hyperband", "halving", "median", "none"]
Objective = Literal["val_energy_mae", "val_forces_mae"]

# The options of each descriptor, besides those that all have.
_GMP = {"sigmas", "cutoff", "square", "pseudodensities"}
DESCRIPTORS: dict[str, set[str]] = {
    "gmp": {"orders", "solid", *_GMP},
    "gmp_groups": {"groups", *_GMP},
    "symmetry_functions": {"elements", "cutoff", "g2", "g4", "g5", "cutoff_function", "gamma"},
}


def _with_text_keys(groups: dict[int, list[int]]) -> dict[str, list[int]]:
    # As JSON gives them back: a study compares its options with those that it was made with.
    return {str(order): numbers for order, numbers in groups.items()}


class Validation(Options):
    """How the validation split is taken from the training file."""

    fraction: float = Field(0.1, gt=0, lt=1, description="share of the structures")
    split: Literal["random", "composition"] = Field(
        "random", description="composition: no chemical formula stands on both sides"
    )
    seed: int = Field(12, ge=0, description="seed of the split, apart from the study's")


class Data(Options):
    """Structures with energies."""

    train: str = Field("builtin", description="file that ASE reads, or builtin: EMT structures made here")
    test: str | None = Field(None, description="file of the test split; builtin has its own")
    validation: Validation = Validation()


class DescriptorOptions(Options):
    """What describes the neighbourhood of an atom."""

    name: Literal["gmp", "gmp_groups", "symmetry_functions"] = Field(
        "gmp",
        description="gmp: Gaussian multipoles, normalised per order; gmp_groups: single groups of their harmonics; "
        "symmetry_functions: Behler–Parrinello",
    )
    orders: list[Annotated[int, Field(ge=0, le=9)]] = Field([0, 1, 2, 3], min_length=1)
    groups: Annotated[dict[Annotated[int, Field(ge=0, le=9)], list[int]], PlainSerializer(_with_text_keys)] = Field(
        {0: [1], 1: [1], 2: [1, 2]}, min_length=1, description="order: numbers of its groups of harmonics, from 1"
    )
    sigmas: Annotated[int, Field(ge=1, le=40)] | Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = (
        Field(8, description="probe widths, Å; a number: as many from 0.1 to 2 Å, evenly spaced in their logarithm")
    )
    cutoff: float | None = Field(6.0, gt=0, description="Å; null: where the widest probe has decayed to 1e-8")
    solid: bool = Field(True, description="solid harmonics, else surface harmonics")
    square: bool = Field(True, description="squared invariants, else their roots")
    pseudodensities: str | None = Field(None, description="folder of amptorch .g files; null: the package's table")
    elements: list[str] | None = Field(None, min_length=1, description="symbols; null: those of the training file")
    g2: dict[str, Any] | None = Field(
        {"etas": [0.05, 0.25, 1.0, 5.0], "rs": [0.0]}, description="all combinations; or such lists for each element"
    )
    g4: dict[str, Any] | None = Field({"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [-1.0, 1.0]})
    g5: dict[str, Any] | None = None
    cutoff_function: Literal["cosine", "polynomial"] = "cosine"
    gamma: float | None = Field(None, gt=0, description="of the polynomial cutoff function, which needs it")
    scaling: Literal["log", "standardise", "normalise"] = Field(
        "log",
        description="of the features, fitted on the training split; log: their logarithm, standardised; "
        "standardise: to mean 0 and standard deviation 1; normalise: to scaling_range",
    )
    scaling_range: list[float] = Field(
        [0.0, 1.0], min_length=2, max_length=2, description="normalise: of a feature in the training split"
    )
    scaling_per_element: bool = Field(False, description="scale the atoms of each element for themselves")

    @field_validator("scaling_range")
    @classmethod
    def _rising(cls, limits: list[float]) -> list[float]:
        if limits[0] >= limits[1]:
            raise ValueError(f"must be [low, high], got {limits}")
        return limits

    @model_validator(mode="after")
    def _check_fitting(self) -> "DescriptorOptions":
        unfitting = [option for option in self.model_fields_set if option in self._unfitting]
        if unfitting:
            valid = ", ".join(option for option in type(self).model_fields if option not in self._unfitting)
            raise ValueError(f"{', '.join(sorted(unfitting))} does not belong to {self.name}; its options are: {valid}")
        if self.cutoff is None and self.name != "gmp":
            raise ValueError(f"cutoff: {self.name} needs a distance in Å")
        if (self.cutoff_function == "polynomial") != (self.gamma is not None):
            raise ValueError("gamma belongs to cutoff_function: polynomial, which needs it")
        if self.name == "gmp_groups" and not self.square and self.scaling == "log":
            raise ValueError("scaling: without square the features may be negative, so log is not for them")
        return self

    @model_serializer(mode="wrap")
    def _fitting_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {option: value for option, value in handler(self).items() if option not in self._unfitting}

    @property
    def _unfitting(self) -> set[str]:
        """The options that only other descriptors have."""
        return set().union(*DESCRIPTORS.values()) - DESCRIPTORS[self.name]


class Target(Options):
    """What the network learns, and what a trial is judged by."""

    reference_energies: Literal["fit", "none"] = Field(
        "fit", description="fit: per-element energies are subtracted first, fitted on the training split"
    )
    scaling: Literal["deviation", "mean_deviation"] = Field(
        "deviation",
        description="the energies that are left are divided by their standard deviation; mean_deviation: less their "
        "mean, which without reference energies is what amptorch does",
    )
    objective: Objective = Field(
        "val_energy_mae", description="eV or, of the forces, eV/Å; of the best epoch; minimised"
    )


class Training(Options):
    """What all trials of a study share."""

    epochs: int = Field(100, ge=1, description="passes over the training split, at most")
    loss: Literal["mae", "mse"] = Field("mae", description="of the total energies, and of the forces")
    forces: bool = Field(False, description="train on the forces as well; see search.force_coefficient")
    early_stopping: int | None = Field(30, ge=1, description="epochs without a better objective; null: off")
    precision: Literal["float32", "float64"] = "float32"


class Study(Options):
    """One tuning question."""

    name: str = Field("default", min_length=1, max_length=200)
    sampler: Sampler = "tpe"
    pruner: Pruner = "hyperband"
    n_trials: int = Field(20, ge=1, le=100_000, description="trials to add")
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler and of every trial's network")
    enqueue: list[dict[str, Any]] = Field(
        [{}], description="configurations to try first in a new study; what one leaves out has its default"
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("must be printable, on one line, without blanks around it")
        return name


class Config(Options):
    """A whole configuration file."""

    data: Data = Data()
    descriptor: DescriptorOptions = DescriptorOptions()
    target: Target = Target()
    training: Training = Training()
    search: dict[str, Any] = DEFAULT_SEARCH
    study: Study = Study()
    backend: Literal["native", "amptorch"] = Field(
        "native", description="what trains the network: the project's own engine, or amptorch where it is installed"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto: the GPU where there is one")
    memory: float = Field(
        4.0,
        gt=0,
        description="resident memory, GiB, to keep to where the CPU trains: features and derivatives that do not fit "
        "are read from the disk, batch by batch",
    )
    cohort: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="trials that a worker trains at the same time; auto: one on each core that it may use"
    )
    patience: float = Field(30.0, gt=0, description="minutes that a worker waits for a store that does not answer")

    @field_validator("search")
    @classmethod
    def _complete_search(cls, search: dict[str, Any]) -> dict[str, Any]:
        refuse_two_ways(search)
        merged = {
            **{name: entry for name, entry in DEFAULT_SEARCH.items() if name not in excluded_by(search)},
            **search,
        }
        for name, entry in merged.items():
            parse_space(name, entry)
        return merged

    @model_validator(mode="after")
    def _check_forces(self) -> "Config":
        if self.target.objective == "val_forces_mae" and not self.training.forces:
            raise ValueError("target.objective: val_forces_mae needs training.forces: true")
        if "force_coefficient" in self.spaces and not self.training.forces:
            raise ValueError("search.force_coefficient: a range needs training.forces: true")
        return self

    @model_validator(mode="after")
    def _check_cohort(self) -> "Config":
        if self.backend == "amptorch" and self.cohort not in ("auto", 1):
            raise ValueError(f"cohort: amptorch trains one trial at a time, got {self.cohort}")
        return self

    @model_validator(mode="after")
    def _check_enqueued(self) -> "Config":
        for entry in self.study.enqueue:
            for name, value in entry.items():
                try:
                    check_value(name, value)
                except ValueError as error:
                    raise ValueError(f"study.enqueue: {error}") from None
        return self

    def updated(self, overrides: Mapping[str, Mapping[str, Any]]) -> "Config":
        """A copy with other options: group → option → value; group "" for the top level.

        Raises:
            BadInput: what comes out is not valid.
        """
        return _build(_merge(self.model_dump(), overrides, "options"), "options")

    @property
    def spaces(self) -> dict[str, Space]:
        """The hyperparameters that are searched."""
        return {name: space for name, space in self._parsed_search.items() if isinstance(space, Space)}

    @property
    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that are fixed to one value."""
        return {name: value for name, value in self._parsed_search.items() if not isinstance(value, Space)}

    @property
    def _parsed_search(self) -> dict[str, Any]:
        return {name: parse_space(name, entry) for name, entry in self.search.items()}


def load_config(path: str | Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """Read a configuration file and put `overrides` (group → option → value; group "" for the top level) over it.

    Raises:
        BadInput: the file cannot be read, is no YAML, or holds what is not a valid option.
    """
    content: Any = {}
    if path:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"config {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"config {path}: not valid YAML: {one_line(error)}") from None
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise BadInput(f"config {path}: must hold groups of options ({', '.join(Config.model_fields)})")
    source = f"config {path}" if path else "options"
    return _build(_merge(content, overrides or {}, source), source)


def _merge(content: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]], source: str) -> dict[str, Any]:
    # A group without options, `study:` alone on its line, is read as None.
    merged = {str(key): {} if value is None else value for key, value in content.items()}
    for group, values in overrides.items():
        if group == "":
            merged.update(values)
        elif isinstance(merged.get(group, {}), dict):
            kept = merged.get(group, {})
            if group == "search":
                kept = {name: entry for name, entry in kept.items() if name not in excluded_by(values)}
            merged[group] = {**kept, **values}
        else:
            raise BadInput(f"{source}: {group} must be a group of options, got {merged[group]!r}")
    return merged


def _build(content: dict[str, Any], source: str) -> Config:
    try:
        return Config(**content)
    except ValidationError as error:
        raise BadInput(f"{source}: {describe(error)}") from None


def describe(error: ValidationError, model: type[Options] = Config) -> str:
    """The first problems of a validation of `model` in one line: where, what, and what is valid there."""
    parts = []
    for problem in error.errors()[:3]:
        where = ".".join(str(key) for key in problem["loc"])
        if problem["type"] == "extra_forbidden":
            valid = ", ".join(_valid_keys(model, problem["loc"][:-1]))
            parts.append(f"unknown option {where}; there are: {valid}")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        shown = f", got {problem['input']!r}" if where and problem["type"] not in ("missing", "value_error") else ""
        parts.append(f"{where}: {message}{shown}" if where else message)
    return "; ".join(parts)


def _valid_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for key in location:
        annotation = model.model_fields[str(key)].annotation if str(key) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
