"""Every option, declared once: type, default, range, meaning. What is not known here is refused."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bdqm_tune.config.backends import Declaration, find_backend
from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.config.descriptor_search import check_search, descriptor_spaces, is_fixed_option, with_fixed_options
from bdqm_tune.config.hyperparameters import Scheduler, excluded_by
from bdqm_tune.config.options import Options
from bdqm_tune.config.problems import problems
from bdqm_tune.config.reference_energies import ReferenceOption, parse_reference_energies
from bdqm_tune.config.spaces import DESCRIPTOR, Space, check_value, is_space, parse_space
from bdqm_tune.config.yaml_files import parse_yaml
from bdqm_tune.errors import BadInput, located, one_line, printable, shown
from bdqm_tune.plugins import plugin_names

Sampler = Literal["tpe", "cmaes", "random", "gp", "grid", "qmc", "nsgaii"]
Pruner = Literal["hyperband", "halving", "median", "none"]
Objective = Literal["val_energy_mae", "val_energy_mae_per_atom", "val_forces_mae", "val_energy_forces"]
StudyObjective = Literal[Objective, "n_parameters", "time_per_atom"]
LAST_WEIGHT = 0.1  # of forces and stress in the last epochs: Training.energy_stage
OF_FORCES = ("val_forces_mae", "val_energy_forces")
OBJECT = "python:"  # in the place of a name: the class of an object that Python code gave, which no file can hold
ONE_OBJECTIVE_ONLY = ("cmaes",)  # samplers that cannot weigh several


class Validation(Options):
    """How the validation split is taken from the training file, where it has no file of its own."""

    fraction: float = Field(0.1, gt=0, lt=1, description="share of the structures, where there are no folds")
    folds: Annotated[int, Field(ge=2, le=20)] | None = Field(
        None,
        description="cross-validation: the structures are dealt into this many folds, each trial trains one network "
        "without each fold, which is validated on it, and one on all structures, which is kept",
    )
    split: Literal["random", "composition", "blocks"] = Field(
        "random",
        description="composition: no chemical formula is on both sides, or in two folds; blocks: consecutive "
        "structures, for the frames of a trajectory",
    )
    seed: int = Field(12, ge=0, lt=2**31, description="seed of the split, apart from the study's")


Name = Annotated[str, Field(min_length=1)]
Files = str | list[str]  # what one names: structures.sources


class Data(Options):
    """Structures with energies."""

    train: Files = Field(
        "builtin",
        description="file that ASE reads, or several: list, folder, pattern, slice as md.traj@::10; or builtin: "
        "EMT structures made here",
    )
    test: Files | None = Field(None, description="the same of the test split; builtin has its own")
    validation_file: Files | None = Field(
        None, description="the same of the validation split; null: it is taken from train as validation says"
    )
    validation: Validation = Validation()
    energy_key: Name | None = Field(
        None, description="name of the energy, eV, in the files; null: energy; free_energy, for example, is another"
    )
    forces_key: Name | None = Field(None, description="name of the forces, eV/Å, in the files; null: forces")
    stress_key: Name | None = Field(
        None, description="name of the stress, eV/Å³, or of a virial, eV, in the files; null: stress"
    )
    min_covalent_ratio: float = Field(
        0.25, ge=0, le=1, description="least distance of two atoms over the sum of their covalent radii; 0: any"
    )

    @field_validator("train", "test", "validation_file", mode="before")
    @classmethod
    def _name_files(cls, value: Any, info: ValidationInfo) -> Any:
        names = value if isinstance(value, list) else [value]
        if value is None and info.field_name != "train":
            return value
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"must be a file, or a list of files, got {shown(value)}")
        return value

    @model_validator(mode="after")
    def _one_validation(self) -> "Data":
        if self.validation_file is not None and self.validation.folds is not None:
            raise ValueError(
                f"validation.folds: {self.validation.folds} deals the training file into folds, and validation_file is "
                "a validation split of its own; leave one of them out"
            )
        return self


class Target(Options):
    """What the network learns, and the validation error that picks its best epoch."""

    reference_energies: ReferenceOption = Field(
        "fit",
        description="of the elements, subtracted first. fit: fitted on the training split; isolated_atoms: the "
        "energies of the training file's frames with config_type=IsolatedAtom; {Cu: -3.7, O: fit}: given, eV",
    )
    scaling: Literal["deviation", "mean_deviation"] = Field(
        "deviation",
        description="the energies that are left are divided by their standard deviation; mean_deviation: less their "
        "mean, which without reference energies is what amptorch does",
    )
    objective: Objective | Literal["auto"] = Field(
        "auto",
        description="minimised; its best epoch is kept. val_energy_mae, eV; val_energy_mae_per_atom, eV/atom; "
        "val_forces_mae, eV/Å; val_energy_forces: that of the energy per atom and 0.1 Å times that of the forces, "
        "eV/atom; auto: the last where forces are trained, else the first",
    )

    @field_validator("reference_energies", mode="before")
    @classmethod
    def _energies_of_elements(cls, value: Any) -> Any:
        return parse_reference_energies(value)


class Training(Options):
    """What all trials of a study share."""

    epochs: int = Field(100, ge=1, le=1_000_000, description="passes over the training split, at most")
    loss: Literal["mae", "mse", "huber"] = Field(
        "mae",
        description="of the energies, and of the components of forces and stress: absolute errors, squared ones, or "
        "huber: squared up to huber_delta, absolute beyond",
    )
    huber_delta: float = Field(
        0.01, gt=0, le=1000, description="of loss huber: eV/atom (of energies with total: eV), and eV/Å"
    )
    energy_loss: Literal["per_atom", "total"] = Field(
        "per_atom",
        description="of what energies: per_atom: of those per atom, so that large structures weigh no more than small "
        "ones; total: of the structures', as in amptorch",
    )
    forces: bool | Literal["partial", "auto"] = Field(
        "auto",
        description="train on the forces as well, see search.force_coefficient; true: every structure must have them; "
        "partial: structures without forces count with their energies alone; auto: true where every structure has "
        "them and their derivatives fit into memory, else false; with backend amptorch false",
    )
    stress: bool | Literal["partial", "auto"] = Field(
        "auto",
        description="train on the stress as well, where forces are trained, see search.stress_coefficient; true: every "
        "structure in a periodic cell must have it; partial: structures without a stress count with energies and "
        "forces alone; auto: true where every structure in a periodic cell has it and forces are trained, else false; "
        "with backend amptorch false",
    )
    energy_stage: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of the epochs after which forces and stress weigh a tenth of before, so that the energies "
        "come down at the end, as in the second stage of MACE; 1: never",
    )
    early_stopping: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] | None = Field(
        "auto",
        description="epochs without a better objective; null: off; auto: 30, but off with the schedules cosine and "
        "one_cycle, which bring the error down at their end",
    )
    smoothing: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] = Field(
        "auto",
        description="the best epoch has the least mean objective of itself and those before it, so many in all, for "
        "that of one epoch is noisy; auto: a twentieth of epochs; 1: each for itself",
    )
    precision: Literal["float32", "float64"] = "float32"

    @property
    def window(self) -> int:
        """Epochs whose mean objective picks the best one."""
        return max(1, self.epochs // 20) if self.smoothing == "auto" else self.smoothing

    def label_weight(self, epoch: int) -> float:
        """The factor of the weights of forces and stress in an epoch, counted from 1."""
        return LAST_WEIGHT if epoch > round(self.energy_stage * self.epochs) else 1.0

    def patience(self, scheduler: Scheduler) -> int | None:
        """Epochs without a better objective after which training ends, with this schedule; None: never."""
        if self.early_stopping == "auto":
            return None if scheduler in ("cosine", "one_cycle") else 30
        return self.early_stopping

    @property
    def weighs_forces(self) -> bool:
        """Whether forces are trained, and weighed against energies per atom: their weight is then searched."""
        return bool(self.forces) and self.energy_loss == "per_atom"

    @property
    def weighs_stress(self) -> bool:
        """Whether the stress is trained, and weighed likewise."""
        return bool(self.stress) and self.weighs_forces


class Study(Options):
    """One study: its objectives, sampler, pruner and trials."""

    name: str = Field("default", min_length=1, max_length=200)
    objectives: list[StudyObjective] | None = Field(
        None,
        min_length=1,
        description="what trials are judged by, all of it minimised; of several there is a Pareto front to choose "
        "from, and nothing is pruned; null: target.objective alone; auto is then the first error among them",
    )
    sampler: str = Field(
        "tpe", description=f"{', '.join(get_args(Sampler))}, or one of another package, see `bdqm-tune doctor`"
    )
    pruner: str = Field("hyperband", description=", ".join(get_args(Pruner)))
    n_trials: int = Field(20, ge=1, le=100_000, description="trials to add")
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler and of every trial's network")
    enqueue: Literal["auto"] | list[dict[str, Any]] = Field(
        [{}],
        description="configurations to try first in a new study; what one leaves out has its default; auto: the "
        "default one and two others that do well on slabs, as far as they are in the search space",
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("must be printable, on one line, without blanks around it")
        return name

    @field_validator("sampler", "pruner")
    @classmethod
    def _one_there_is(cls, name: str, info: ValidationInfo) -> str:
        known = get_args(Sampler if info.field_name == "sampler" else Pruner)
        if name in known or name.startswith(OBJECT):
            return name
        others = plugin_names("sampler") if info.field_name == "sampler" else []
        if name not in others:
            *first, last = map(repr, [*known, *others])
            raise PydanticCustomError("unknown_name", "should be {known}", {"known": f"{', '.join(first)} or {last}"})
        return name

    @model_validator(mode="before")
    @classmethod
    def _several_objectives(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or not isinstance(content.get("objectives"), str | list):
            return content
        names = content["objectives"]
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        # None unless one is requested; Optuna prunes by one value alone.
        default = {"pruner": "none"} if len(names) > 1 else {}
        return {**default, **content, "objectives": names}

    @model_validator(mode="after")
    def _check_several_objectives(self) -> "Study":
        names = self.objectives or []
        if len(set(names)) < len(names):
            raise ValueError(f"objectives must differ from each other, got {', '.join(names)}")
        if len(names) > 1 and self.pruner != "none":
            raise ValueError(f"with several objectives nothing is pruned: pruner must be none, got {self.pruner}")
        if len(names) > 1 and self.sampler in ONE_OBJECTIVE_ONLY:
            able = [sampler for sampler in get_args(Sampler) if sampler not in ONE_OBJECTIVE_ONLY]
            raise ValueError(f"sampler {self.sampler} knows one objective only; of several do {', '.join(able)}")
        return self


class Config(Options):
    """A whole configuration file."""

    backend: str = Field(
        "native",
        description="what trains: native, the project's own engine; amptorch or mace where it is installed; or one of "
        "another package, see `bdqm-tune doctor`",
    )
    backend_options: dict[str, Any] = Field({}, description="of the backend, the same for all trials; native has none")
    data: Data = Data()
    descriptor: DescriptorOptions = DescriptorOptions()
    target: Target = Target()
    training: Training = Training()
    search: dict[str, Any] = Field({}, validate_default=True)  # completed by the backend's default search space
    study: Study = Study()
    amptorch_features: Literal["checked", "own"] = Field(
        "checked",
        description="of backend amptorch. checked: where its features of a structure are not those of the descriptor, "
        "it is given a shifted copy, of which they are; own: taken as they are, as in models made with amptorch",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$", description="auto: the GPU where there is one")
    memory: float = Field(
        4.0,
        gt=0,
        le=1_000_000,
        description="resident memory, GiB, to keep to where the CPU trains: features and derivatives that do not fit "
        "are read from the disk, batch by batch",
    )
    cohort: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto",
        description="trials that a worker trains at the same time; auto: one on each core that it may use, on a GPU "
        "as many as make it faster, but, for the sampler to learn, a quarter of n_trials at most",
    )
    patience: float = Field(
        30.0, gt=0, le=1_000_000, description="minutes that a worker waits for a store that does not answer"
    )

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        try:
            declared = find_backend(str(content.get("backend", "native")))
        except BadInput:
            return content  # which is refused later
        return with_fixed_options(declared.complete(content))

    @field_validator("backend")
    @classmethod
    def _one_there_is(cls, backend: str) -> str:
        try:
            return find_backend(backend).name
        except BadInput as error:
            raise ValueError(str(error)) from None

    @field_validator("backend_options")
    @classmethod
    def _of_the_backend(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "backend" not in info.data:
            return options  # refused already
        model = _declared(info.data).options
        try:
            return model(**options).model_dump(mode="json", exclude_unset=True)
        except ValidationError as error:
            raise ValueError(describe(error, model)) from None

    @field_validator("search", mode="before")
    @classmethod
    def _ranges(cls, search: Any, info: ValidationInfo) -> Any:
        if isinstance(search, str):
            named = [f", or {name}" for name in _declared(info.data).searches]
            raise ValueError(f"must be ranges and values of hyperparameters{''.join(named)}, got {shown(search)}")
        return search

    @field_validator("search")
    @classmethod
    def _complete_search(cls, search: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "backend" not in info.data:
            return search  # refused already
        declared = _declared(info.data)
        merged = declared.complete_search({**declared.search}, search)
        for name, entry in merged.items():
            if name.startswith(DESCRIPTOR) and not declared.features:
                raise ValueError(f"{name}: backend {declared.name} trains on no descriptor; leave it out")
            parse_space(name, entry, declared.hyperparameters)
        return merged

    @model_validator(mode="after")
    def _check_backend(self) -> "Config":
        declared, training = self.declared, self.training
        for option in sorted(declared.unused & training.model_fields_set):
            if getattr(training, option) != Training.model_fields[option].default:
                raise ValueError(f"training.{option}: backend {declared.name} does not follow it; leave it out")
        for option, able in (("forces", declared.forces), ("stress", declared.stress)):
            if (value := getattr(training, option)) not in able:
                names = " or ".join(str(each).lower() for each in able)
                raise ValueError(
                    f"training.{option}: {str(value).lower()} needs backend: native; with {declared.name} it is {names}"
                )
        if self.data.validation.folds is not None and not declared.folds:
            raise ValueError(
                f"data.validation.folds: backend {declared.name} trains one network on one split, got "
                f"{self.data.validation.folds} folds; use backend native, or leave folds out"
            )
        if not declared.parallel and self.cohort not in ("auto", 1):
            raise ValueError(f"cohort: {declared.name} trains one trial at a time, got {self.cohort}")
        declared.check(self)
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> "Config":
        if not self.training.forces:
            for option, names in (("target.objective", [self.objective]), ("study.objectives", self.objectives)):
                if of_forces := [name for name in names if name in OF_FORCES]:
                    raise ValueError(f"{option}: {of_forces[0]} needs training.forces: true")
            if self.training.stress in (True, "partial"):
                raise ValueError(f"training.stress: {str(self.training.stress).lower()} needs training.forces: true")
        trained = {"forces": bool(self.training.forces), "stress": bool(self.training.forces and self.training.stress)}
        for name, label in self.declared.weights.items():
            entry, default = self.search.get(name), self.declared.search.get(name)
            if not trained[label] and is_space(name, entry) and entry != default:
                raise ValueError(f"search.{name}: a range needs training.{label}: true")
        return self

    @model_validator(mode="after")
    def _check_objectives(self) -> "Config":
        if self.objective not in self.objectives:
            errors = get_args(Objective) if self.target.objective == "auto" else [self.target.objective]
            raise ValueError(
                f"study.objectives: must have the error among them that picks the best epoch, {' or '.join(errors)} "
                f"(target.objective), got {', '.join(self.objectives)}"
            )
        return self

    @model_validator(mode="after")
    def _check_searched_descriptor(self) -> "Config":
        check_search(self.descriptor, self.descriptor_spaces)
        return self

    @model_validator(mode="after")
    def _check_enqueued(self) -> "Config":
        for entry in self.study.enqueue if self.study.enqueue != "auto" else ():
            for name, value in entry.items():
                try:
                    check_value(name, value, self.declared.hyperparameters)
                except ValueError as error:
                    raise ValueError(f"study.enqueue: {error}") from None
        return self

    def updated(self, overrides: Mapping[str, Mapping[str, Any]]) -> "Config":
        """A copy with other options: group → option → value; group "" for the top level.

        Raises:
            BadInput: what comes out is not valid.
        """
        return _build(_merge(self.given(), overrides, "options"), "options")

    def decided(self, forces: bool, stress: bool = False) -> "Config":
        """A copy in which `forces: auto` and `stress: auto`, which the data decide, are as given; itself without them.

        Raises:
            BadInput: what comes out is not valid.
        """
        given = {"forces": forces, "stress": stress}
        decided = {option: value for option, value in given.items() if getattr(self.training, option) == "auto"}
        return self.updated({"training": decided}) if decided else self

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        return self.model_dump(exclude_unset=True)

    @property
    def objective(self) -> Objective:
        """The validation error that picks the best epoch: `target.objective`, or what its `auto` comes to."""
        if self.target.objective != "auto":
            return self.target.objective
        named = [name for name in get_args(Objective) if name in (self.study.objectives or [])]
        if named:
            return named[0]
        return "val_energy_forces" if self.training.forces else "val_energy_mae"

    @property
    def objectives(self) -> list[StudyObjective]:
        """What trials are judged by: first the error that picks the best epoch, then the others in a fixed order."""
        named = self.study.objectives or [self.objective]
        return sorted(named, key=lambda name: (name != self.objective, get_args(StudyObjective).index(name)))

    @property
    def trained_by(self) -> str:
        """The backend, and whether its features are its own: trainings that are compared must agree in it."""
        own = self.backend == "amptorch" and self.amptorch_features == "own"
        return "amptorch, its own features" if own else self.backend

    @property
    def spaces(self) -> dict[str, Space]:
        """The hyperparameters that are searched."""
        weighed = {"forces": self.training.weighs_forces, "stress": self.training.weighs_stress}
        weights = self.declared.weights
        return {
            name: space
            for name, space in self._parsed_search.items()
            if isinstance(space, Space) and (name not in weights or weighed[weights[name]])
        }

    @property
    def descriptor_spaces(self) -> dict[str, Space]:
        """The options of the descriptor that are searched, by their names in it; `descriptor` has the others."""
        return descriptor_spaces(self.spaces)

    @property
    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that are fixed to one value."""
        return {name: value for name, value in self._parsed_search.items() if not isinstance(value, Space)}

    @cached_property  # read many times a trial
    def _parsed_search(self) -> dict[str, Any]:
        return {name: parse_space(name, entry, self.declared.hyperparameters) for name, entry in self.search.items()}

    @property
    def declared(self) -> Declaration:
        """What the backend is."""
        return find_backend(self.backend)


def _declared(given: Mapping[str, Any]) -> Declaration:
    """The backend of options that were validated; native where that of the configuration was refused."""
    return find_backend(given.get("backend", "native"))


def load_config(path: str | Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """Read a configuration file and put `overrides` (group → option → value; group "" for the top level) over it.

    Raises:
        BadInput: the file cannot be read, is no YAML, or holds what is not a valid option.
    """
    content: Any = {}
    if path:
        try:
            with located(f"config {path}"):
                content = parse_yaml(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"config {path}: {error.strerror}") from None
        except ValueError as error:  # the file is no UTF-8, or its name cannot be one
            raise BadInput(f"config {path}: not valid YAML: {one_line(error)}") from None
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise BadInput(f"config {path}: must hold groups of options ({', '.join(Config.model_fields)})")
    source = f"config {path}" if path else "options"
    return _build(_merge(content, overrides or {}, source), source)


def _merge(content: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]], source: str) -> dict[str, Any]:
    # A group without options, `study:` alone on its line, is read as None.
    merged = {str(key): {} if value is None else value for key, value in content.items()}
    top = overrides.get("", {})
    search = top.get("search", content.get("search"))
    if isinstance(search, str) and (named := _named_search(search, {**merged, **top})) is not None:
        merged["search"], top = named, {option: value for option, value in top.items() if option != "search"}
    for group, values in overrides.items():
        if group == "":
            merged.update(top)
        elif isinstance(merged.get(group, {}), dict):
            options = merged.get(group, {})
            if group == "search":
                options = {name: entry for name, entry in options.items() if name not in excluded_by(values)}
                merged = _without_options(merged, values)
            if group == "data" and all(isinstance(each.get("validation"), Mapping) for each in (options, values)):
                values = {**values, "validation": {**options["validation"], **values["validation"]}}
            merged[group] = {**options, **values}
        else:
            raise BadInput(f"{source}: {group} must be a group of options, got {shown(merged[group])}")
    return merged


def _named_search(name: str, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The search space of this name of the configured backend; None: there is none, which is refused later."""
    try:
        found = find_backend(str(content.get("backend", "native"))).searches.get(name)
    except BadInput:
        return None
    return None if found is None else dict(found)


def _without_options(content: dict[str, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """The content without those options of the descriptor that `search` fixes."""
    options = content.get("descriptor")
    if not isinstance(options, dict):
        return content
    fixed = {name.removeprefix(DESCRIPTOR) for name, entry in search.items() if is_fixed_option(name, entry)}
    return {**content, "descriptor": {option: value for option, value in options.items() if option not in fixed}}


def _build(content: dict[str, Any], source: str) -> Config:
    try:
        return Config(**content)
    except ValidationError as error:
        raise BadInput(f"{source}: {describe(error)}") from None


def describe(error: ValidationError, model: type[BaseModel] = Config) -> str:
    """The first problems of a validation of `model` in one line: where, what, and what is valid there."""
    parts = []
    for problem in problems(error, model)[:3]:
        where = ".".join(str(key)[:100] for key in problem.place)
        if problem.kind == "extra_forbidden":
            valid = ", ".join(_valid_keys(model, problem.place[:-1]))
            parts.append(f"unknown option {where}; there are: {valid}")
            continue
        got = f", got {shown(problem.value)}" if where and problem.kind not in ("missing", "value_error") else ""
        parts.append(f"{where}: {problem.message}{got}" if where else problem.message)
    return printable("; ".join(parts))


def _valid_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for key in location:
        annotation = model.model_fields[str(key)].annotation if str(key) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
