"""Any program with a command line: how it is called, where its errors are, and how its model predicts."""

import json
import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from bdqm_tune.config.backends import Declaration
from bdqm_tune.config.options import Options
from bdqm_tune.config.templates import Template
from bdqm_tune.errors import BadInput, shown

Metric = Literal[
    "epoch", "val_energy_mae_per_atom", "val_energy_mae", "val_forces_mae", "val_stress_mae", "train_loss", "lr"
]
METRICS: tuple[str, ...] = get_args(Metric)
Command = str | Annotated[list[str], Field(min_length=1)]
# Placeholders of the commands that train, of the files with metrics, and of the command that predicts.
RUN = ("train", "validation", "out", "epochs", "seed", "device")
PREDICTION = ("structures", "predicted", "out", "device")
LABELS = ("energy", "forces", "stress")
# What a trial's run in MLflow calls something else: a hyperparameter of the name would be lost there.
TAKEN = (
    *("epochs", "seed", "device", "backend", "objective", "reference_energies", "target_scaling", "loss"),
    *("huber_delta", "energy_loss", "forces", "stress", "early_stopping", "smoothing", "precision"),
)


class Hyperparameters(Options, extra="allow"):
    """Of any name: those of `search`, each of which the command has a placeholder for."""


class Metrics(Options):
    """Where the program writes the errors of each epoch, and what it calls them."""

    file: str | None = Field(
        None, description="that it appends to, as {out}/results.jsonl; null: its output, standard and error"
    )
    format: Literal["json", "csv"] | None = Field(
        None, description="of the file: an object a line, or columns under a header; null: csv where it ends so"
    )
    pattern: str | None = Field(
        None, description="regular expression that is sought in each line, with a named group for each value"
    )
    columns: dict[Metric, str] = Field(
        {}, description="what a metric is called there; those left out have their own names"
    )
    scale: dict[Metric, Annotated[float, Field(gt=0)]] = Field(
        {}, description="factor from the program's unit to eV, eV/atom, eV/Å and eV/Å³: 1e-3 for meV"
    )
    where: dict[str, bool | int | float | str] = Field(
        {}, description="only lines with these values count, as {mode: eval}"
    )
    first_epoch: int = Field(1, ge=0, le=1, description="number that the program gives to its first epoch")

    @field_validator("file")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None:
            Template.of_text(value)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> "Metrics":
        if self.pattern is None and self.file is None:
            raise ValueError("needs a file, as {out}/results.jsonl, or a pattern that is sought in the output")
        if self.pattern is not None:
            if self.format is not None:
                raise ValueError("format and pattern: a file is read as columns or by a pattern; leave one of them out")
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as error:
                raise ValueError(f"pattern: {error} in {shown(self.pattern)}") from None
            missing = {*self.columns.values(), *self.where} - set(groups)
            if missing or not self.known:
                what = ", ".join(sorted(missing)) or "of a metric"
                there = ", ".join(groups) or "none"
                raise ValueError(
                    f"pattern: has no group {what}, as (?P<val_forces_mae>[0-9.e+-]+); its groups are: {there}; "
                    f"metrics are: {', '.join(METRICS)}"
                )
        return self

    @property
    def known(self) -> dict[str, str]:
        """The metrics that may be there, and what they are called; of columns those that are not named may be, too."""
        names = {metric: self.columns.get(metric, metric) for metric in METRICS}  # type: ignore[call-overload]
        if self.pattern is None:
            return names
        groups = re.compile(self.pattern).groupindex
        return {metric: name for metric, name in names.items() if name in groups}

    @property
    def is_csv(self) -> bool:
        """Whether the file has columns under a header."""
        return self.format == "csv" or (self.format is None and str(self.file).endswith(".csv"))


class CommandOptions(Options):
    """`backend_options` of `backend: command`."""

    train: Command = Field(description="command of a training, with placeholders; no shell runs it")
    metrics: Metrics
    resume: Command | None = Field(
        None, description="command that goes on with a training that was stopped, in the same folder; null: none can"
    )
    calculator: str | None = Field(
        None, description="module:function of the folder (Path) with the trained files; gives ASE's calculator"
    )
    predict: Command | None = Field(
        None, description="command that reads {structures} and writes {predicted}, both extended XYZ"
    )
    predicted_keys: dict[Literal["energy", "forces", "stress"], str] = Field(
        {}, description="what the predictions are called in {predicted}; those left out have ASE's names"
    )
    energy_key: str = Field("energy", min_length=1, description="name of the energy in {train} and {validation}")
    forces_key: str = Field("forces", min_length=1, description="name of the forces there")
    stress_key: str = Field("stress", min_length=1, description="name of the stress there")
    keep: list[Annotated[str, Field(min_length=1)]] = Field(
        ["**/*"], min_length=1, description="files of {out} that are the model, as patterns: ['*.model']"
    )
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP"] = Field(
        "SIGTERM", description="that asks the program to end"
    )
    silence: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds without an epoch after which a trial has failed; null: any"
    )
    grace: float = Field(10.0, ge=0, le=3600, description="seconds after which it is killed")

    @field_validator("train", "resume")
    @classmethod
    def _of_a_run(cls, value: Command | None) -> Command | None:
        if value is not None:
            Template.of_command(value)
        return value

    @field_validator("predict")
    @classmethod
    def _of_a_prediction(cls, value: Command | None) -> Command | None:
        if value is not None:
            template = Template.of_command(value)
            _refuse_unknown("predict", template, PREDICTION)
            if missing := [f"{{{name}}}" for name in ("structures", "predicted") if name not in template.names]:
                raise ValueError(f"needs {' and '.join(missing)}; placeholders are: {_listed(PREDICTION)}")
        return value

    @field_validator("calculator")
    @classmethod
    def _of_a_module(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", value):
            raise ValueError(f"must be module:function, got {shown(value)}")
        return value

    @field_validator("keep")
    @classmethod
    def _below(cls, value: list[str]) -> list[str]:
        if outside := [pattern for pattern in value if pattern.startswith("/") or ".." in pattern.split("/")]:
            raise ValueError(f"must be patterns of files below {{out}}, got {shown(outside[0])}")
        return value

    @model_validator(mode="after")
    def _one_model(self) -> "CommandOptions":
        if self.calculator is not None and self.predict is not None:
            raise ValueError("calculator and predict: two ways to the same predictions; leave one of them out")
        if self.resume is not None and "epoch" not in self.metrics.known:
            raise ValueError("resume: needs the number of the epoch among the metrics")
        return self

    @property
    def signal(self) -> signal.Signals:
        """The signal that asks the program to end."""
        return signal.Signals[self.stop_signal]

    @property
    def keys(self) -> dict[str, str]:
        """What the labels are called in the files of the splits."""
        return {"energy": self.energy_key, "forces": self.forces_key, "stress": self.stress_key}


def _refuse_unknown(where: str, template: Template, known: Iterable[str]) -> None:
    if unknown := [name for name in template.names if name not in known]:
        raise ValueError(f"unknown placeholder {{{unknown[0]}}} in {where}; there are: {_listed(known)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _options(content: Mapping[str, Any]) -> CommandOptions | None:
    """The options in the content of a configuration; None where they are not valid, which is refused later."""
    given = content.get("backend_options")
    try:
        return CommandOptions(**given) if isinstance(given, Mapping) else None
    except (ValueError, TypeError):
        return None


def _complete(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the forces among a pattern's groups, or the columns that are named, the energies are the objective."""
    options = _options(content)
    if options is None:
        return content
    groups = {name: _given(content, name) for name in ("target", "study")}
    if any(group is None for group in groups.values()):
        return content  # which is refused later
    target, study = groups["target"] or {}, groups["study"] or {}
    said = options.metrics.columns or options.metrics.known
    is_open = target.get("objective", "auto") == "auto" and not study.get("objectives")
    if is_open and "val_forces_mae" not in said:
        objective = "val_energy_mae" if "val_energy_mae" in said else "val_energy_mae_per_atom"
        return {**content, "target": {**target, "objective": objective}}
    return content


def _given(content: Mapping[str, Any], group: str) -> dict[str, Any] | None:
    given = content.get(group, {})
    given = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
    return dict(given) if isinstance(given, Mapping) else None


def _check(config: Any) -> None:
    if not config.backend_options:
        raise ValueError(
            "backend_options: backend command needs train, the command of a training, and metrics, where the errors "
            "of its epochs are; docs/backends.md has an example"
        )
    options = CommandOptions(**config.backend_options)
    for name in config.search:
        if not name.isidentifier() or name in RUN or name in TAKEN:
            why = "is a name that the run has already" if name.isidentifier() else "is no name for a placeholder"
            raise ValueError(f"search.{name}: {why}; give it another one in search and in the command")
    known = [*RUN, *config.search]
    template = Template.of_command(options.train)
    templates = {"train": template, "resume": Template.of_command(options.resume or options.train)}
    if options.metrics.file is not None:
        templates["metrics.file"] = Template.of_text(options.metrics.file)
    for where, each in templates.items():
        _refuse_unknown(f"backend_options.{where}", each, known)
    if missing := [name for name in config.search if name not in template.names]:
        raise ValueError(
            f"backend_options.train: has no {_listed(missing)}, which search gives values; it has: "
            f"{_listed(template.names) or 'none'}"
        )
    for name, values in {**{n: [v] for n, v in config.fixed.items()}, **_choices(config)}.items():
        for value in values:
            try:
                template.filled({**dict.fromkeys(template.names, "x"), name: value})
            except BadInput as error:
                raise ValueError(f"search.{error}") from None
    if costs := [name for name in config.objectives if name == "n_parameters"]:
        raise ValueError(f"study.objectives: {costs[0]} is not known of a program that trains")
    needed = ("val_energy_mae_per_atom", "val_forces_mae")
    wanted = needed if config.objective == "val_energy_forces" else (config.objective,)
    said = options.metrics.known
    if lacking := [name for name in wanted if name not in said and not _follows(name, said)]:
        raise ValueError(
            f"backend_options.metrics: has no {' and no '.join(lacking)}, which the objective {config.objective} "
            f"needs; it has: {', '.join(said)}; target.objective may be another one"
        )


def _follows(metric: str, said: Mapping[str, str]) -> bool:
    """Whether it may follow from another metric: where all structures have the same number of atoms."""
    return metric.startswith("val_energy_mae") and any(name.startswith("val_energy_mae") for name in said)


def _choices(config: Any) -> dict[str, tuple[Any, ...]]:
    return {name: space.choices for name, space in config.spaces.items()}


def _compared(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what does not change what is trained."""
    train = options["train"]
    return {"train": shlex.split(train) if isinstance(train, str) else train, "metrics": options["metrics"]}


COMMAND = Declaration(
    name="command",
    meaning="any training program with a command line",
    hyperparameters=Hyperparameters,
    make="bdqm_tune.backends.command:CommandBackend",
    load="bdqm_tune.backends.command_potential:load",
    options=CommandOptions,
    parallel=True,
    forces=(True, False, "partial", "auto"),
    stress=(True, False, "partial", "auto"),
    unused=frozenset({"loss", "huber_delta", "energy_loss", "smoothing", "precision"}),
    complete=_complete,
    check=_check,
    compared=_compared,
    runs_code=json.dumps,
)
