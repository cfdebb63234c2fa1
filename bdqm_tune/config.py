"""Every option, declared once: type, default, range, meaning. What is not known here is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bdqm_tune.errors import BadInput

Activation = Literal["tanh", "relu", "gelu", "silu"]
Sampler = Literal["tpe", "cmaes", "random", "gp", "grid", "qmc"]
Pruner = Literal["hyperband", "halving", "median", "none"]


class Options(BaseModel):
    """A group of options; unknown keys are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("must be a number, not true or false")
        return value


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

    name: Literal["gmp"] = Field("gmp", description="Gaussian multipoles, normalised per order")
    orders: list[Annotated[int, Field(ge=0, le=9)]] = Field([0, 1, 2, 3], min_length=1)
    sigmas: Annotated[int, Field(ge=1, le=40)] | Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = (
        Field(8, description="probe widths, Å; a number: as many from 0.1 to 2 Å, evenly spaced in their logarithm")
    )
    cutoff: float | None = Field(6.0, gt=0, description="Å; null: where the widest probe has decayed to 1e-8")
    square: bool = Field(True, description="squared invariants, else their roots")
    pseudodensities: str | None = Field(None, description="folder of amptorch .g files; null: the package's table")
    scaling: Literal["log", "standardise"] = Field(
        "log", description="of the features, fitted on the training split; log: their logarithm, standardised"
    )


class Target(Options):
    """What the network learns, and what a trial is judged by."""

    reference_energies: Literal["fit", "none"] = Field(
        "fit", description="fit: per-element energies are subtracted first, fitted on the training split"
    )
    objective: Literal["val_energy_mae"] = Field("val_energy_mae", description="eV, of the best epoch; minimised")


class Training(Options):
    """What all trials of a study share."""

    epochs: int = Field(100, ge=1, description="passes over the training split, at most")
    loss: Literal["mae", "mse"] = Field("mae", description="of the total energies")
    early_stopping: int | None = Field(30, ge=1, description="epochs without a better validation MAE; null: off")
    precision: Literal["float32", "float64"] = "float32"


class Hyperparameters(Options):
    """One configuration that a trial tries: the default is the one that a study tries first."""

    num_layers: int = Field(3, ge=1, le=100, description="hidden layers")
    num_nodes: int = Field(32, ge=1, le=10_000, description="nodes in a hidden layer")
    activation: Activation = "tanh"
    batchnorm: bool = Field(False, description="batch normalisation before each activation")
    dropout: bool = Field(False, description="dropout after each activation")
    dropout_rate: float = Field(0.1, ge=0, lt=1, description="used with dropout only")
    initialization: Literal["xavier", "default", "zero"] = Field(
        "zero",
        description="xavier; torch's default; zero: xavier and an output layer of 0, so that training starts "
        "from the reference energies",
    )
    lr: float = Field(3e-3, gt=0, le=10, description="Adam's learning rate at the start")
    batch_size: int = Field(32, ge=1, description="structures in a step")
    scheduler: Literal["step", "cosine", "none"] = Field("step", description="of the learning rate, per epoch")
    gamma: float = Field(0.5, gt=0, le=1, description="step: factor every step_size epochs")
    step_size: int = Field(30, ge=1, description="step: epochs between two changes")


class Space(Options):
    """The range of one hyperparameter: numbers from low to high, or a list of choices."""

    kind: Literal["int", "float", "choice"]
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[bool | int | float | str, ...] = ()


DEFAULT_SEARCH: dict[str, Any] = {
    "num_layers": {"int": [3, 30]},
    "num_nodes": {"int": [4, 50]},
    "activation": {"choice": ["tanh", "relu", "gelu", "silu"]},
    "batchnorm": {"choice": [True, False]},
    "dropout": {"choice": [True, False]},
    "dropout_rate": {"float": [0.05, 0.5]},
    "lr": {"float": [1e-5, 1e-2], "log": True},
    "batch_size": {"int": [16, 512], "log": True},
    "gamma": {"float": [0.1, 1.0]},
    "step_size": {"int": [5, 100]},
}


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
    backend: Literal["native"] = Field("native", description="what trains the network")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto: the GPU where there is one")
    cohort: Annotated[Literal["auto", "1"], BeforeValidator(str)] = Field(
        "auto", description="trials trained together; one at a time as yet"
    )

    @field_validator("search")
    @classmethod
    def _complete_search(cls, search: dict[str, Any]) -> dict[str, Any]:
        merged = {**DEFAULT_SEARCH, **search}
        for name, entry in merged.items():
            parse_space(name, entry)
        return merged

    @model_validator(mode="after")
    def _check_enqueued(self) -> "Config":
        for entry in self.study.enqueue:
            for name, value in entry.items():
                try:
                    _checked(name, value)
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
        parsed = {name: parse_space(name, entry) for name, entry in self.search.items()}
        return {name: space for name, space in parsed.items() if isinstance(space, Space)}

    @property
    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that are fixed to one value."""
        parsed = {name: parse_space(name, entry) for name, entry in self.search.items()}
        return {name: value for name, value in parsed.items() if not isinstance(value, Space)}


def parse_space(name: str, entry: Any) -> Any:
    """One entry of `search`: a `Space`, or the value that a plain entry fixes the hyperparameter to.

    Raises:
        ValueError: the name is no hyperparameter, the range is empty or outside what the hyperparameter takes.
    """
    if not isinstance(entry, Mapping):
        return _checked(name, entry)
    _known(name)
    kinds = [kind for kind in ("int", "float", "choice") if kind in entry]
    extra = set(entry) - {"int", "float", "choice", "log", "step"}
    if len(kinds) != 1 or extra:
        raise ValueError(f"{name}: needs one of int, float, choice, and may have log or step; got {dict(entry)}")
    kind, given = kinds[0], entry[kinds[0]]
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{name}: {kind} needs a list, got {given!r}")
    if kind == "choice":
        return Space(kind="choice", choices=tuple(_checked(name, value) for value in given))
    if kind != _type_name(name):
        raise ValueError(f"{name}: {kind} does not fit a {_type_name(name)}")
    if len(given) != 2:
        raise ValueError(f"{name}: {kind} needs [low, high], got {given!r}")
    low, high = (_checked(name, value) for value in given)
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise ValueError(f"{name}: log must be true or false, got {log!r}")
    if low >= high:
        raise ValueError(f"{name}: the range [{low}, {high}] is empty; give a plain value to fix it")
    if step is not None and (log or type(step) not in (int, {"int": int, "float": float}[kind]) or step <= 0):
        raise ValueError(f"{name}: step must be a positive {kind}, and not together with log; got {step!r}")
    if log and low <= 0:
        raise ValueError(f"{name}: a logarithmic range must begin above 0, got {low}")
    return Space(kind="int" if kind == "int" else "float", low=low, high=high, log=log, step=step)


def _checked(name: str, value: Any) -> Any:
    """The value as the hyperparameter's type, or a ValueError that says what would be right."""
    _known(name)
    try:
        return getattr(Hyperparameters(**{name: value}), name)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name}: {message}, got {value!r}") from None


def _known(name: str) -> None:
    if name not in Hyperparameters.model_fields:
        raise ValueError(f"unknown hyperparameter {name!r}; there are: {', '.join(Hyperparameters.model_fields)}")


def _type_name(name: str) -> str:
    annotation = Hyperparameters.model_fields[name].annotation
    return annotation.__name__ if isinstance(annotation, type) else "choice"


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
            raise BadInput(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from None
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
            merged[group] = {**merged.get(group, {}), **values}
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
