"""The hyperparameters of a trial, declared once, and the ranges in which they can be searched."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from bdqm_tune.config.options import Options, hyperparameter, search_of

Activation = Literal["tanh", "relu", "gelu", "silu", "softplus"]
Optimizer = Literal["adam", "adamw", "lbfgs"]
Scheduler = Literal["step", "cosine", "one_cycle", "plateau", "none"]

NUMBERS_OF_LAYERS = ("num_layers", "num_nodes")  # what hidden_layers replaces


class Hyperparameters(Options):
    """One configuration that a trial tries: the default is the one that a study tries first."""

    num_layers: int = hyperparameter(3, "hidden layers", {"int": [1, 3]}, ge=1, le=100)
    num_nodes: int = hyperparameter(32, "nodes in a hidden layer", {"int": [8, 64], "log": True}, ge=1, le=10_000)
    hidden_layers: list[Annotated[int, Field(ge=1, le=10_000)]] | None = hyperparameter(
        None,
        "nodes of each hidden layer, in place of num_layers and num_nodes; also written 30x20x10",
        min_length=1,
        max_length=100,
    )
    network: Literal["single", "per_element"] = hyperparameter(
        "single", "one network for all atoms, or one for each element"
    )
    activation: Activation = hyperparameter("silu", search={"choice": ["tanh", "gelu", "silu"]})
    batchnorm: bool = hyperparameter(False, "batch normalisation before each activation")
    dropout: bool = hyperparameter(False, "dropout after each activation")
    dropout_rate: float = hyperparameter(0.1, "used with dropout only", only_where=("dropout", (True,)), ge=0, lt=1)
    initialization: Literal["xavier", "default", "zero"] = hyperparameter(
        "zero",
        "xavier; torch's default; zero: xavier and an output layer of 0, so that training starts from the reference "
        "energies",
    )
    optimizer: Optimizer = hyperparameter("adam", "lbfgs: made for batches of the whole training split")
    weight_decay: float = hyperparameter(
        0.01,
        "adamw: share of the weights taken away, times lr, in a step",
        only_where=("optimizer", ("adamw",)),
        ge=0,
        le=1e6,
    )
    lr: float = hyperparameter(
        3e-3,
        "the optimizer's learning rate at the start; one_cycle: at most",
        {"float": [1e-3, 1e-2], "log": True},
        gt=0,
        le=10,
    )
    batch_size: int = hyperparameter(4, "structures in a step", {"int": [1, 32], "log": True}, ge=1, le=1_000_000_000)
    scheduler: Scheduler = hyperparameter("cosine", "of the learning rate, per epoch; cosine: down to 0")
    gamma: float = hyperparameter(
        0.5,
        "step: factor every step_size epochs; plateau: see there",
        only_where=("scheduler", ("step", "plateau")),
        gt=0,
        le=1,
    )
    step_size: int = hyperparameter(
        30,
        "step: epochs between two changes; plateau: epochs without a better objective that bring one",
        only_where=("scheduler", ("step", "plateau")),
        ge=1,
        le=1_000_000_000,
    )
    force_coefficient: float = hyperparameter(
        1.0,
        "weight of the forces' loss (eV/Å), that of the energies' (eV/atom) being 1: in Å, with loss mse in Å²; with "
        "training.forces",
        {"float": [0.1, 10.0], "log": True},
        weighs="forces",
        ge=0,
        le=1e6,
    )
    stress_coefficient: float = hyperparameter(
        0.3,
        "weight of the loss of stress · volume per atom (eV/atom), that of the energies' being 1; with training.stress",
        {"float": [0.03, 3.0], "log": True},
        weighs="stress",
        ge=0,
        le=1e6,
    )

    @field_validator("hidden_layers", mode="before")
    @classmethod
    def _layers_as_text(cls, value: Any) -> Any:
        return value.split("x") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way_to_give_layers(self) -> "Hyperparameters":
        refuse_two_ways({name: getattr(self, name) for name in self.model_fields_set})
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_replaced(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if self.hidden_layers is not None:
            for name in NUMBERS_OF_LAYERS:
                del values[name]
        return values

    @property
    def layers(self) -> list[int]:
        """Nodes of each hidden layer."""
        return self.hidden_layers or [self.num_nodes] * self.num_layers


# What small networks learn in: few layers, many small steps, a learning rate that falls to 0.
DEFAULT_SEARCH: dict[str, Any] = search_of(Hyperparameters)
# What a new study tries first: each was the best of these on some data (docs/accuracy.md has the figures).
TRIED_FIRST: tuple[dict[str, Any], ...] = (
    {},
    {"activation": "gelu"},
    {"activation": "gelu", "num_nodes": 60, "batch_size": 16},
)
# What AmpOpt searched, the predecessor: `search: ampopt`.
AMPOPT_SEARCH: dict[str, Any] = {
    "num_layers": {"int": [3, 30]},
    "num_nodes": {"int": [4, 50]},
    "activation": {"choice": ["tanh", "relu", "gelu", "silu"]},
    "batchnorm": {"choice": [True, False]},
    "dropout": {"choice": [True, False]},
    "dropout_rate": {"float": [0.05, 0.5]},
    "lr": {"float": [1e-5, 1e-2], "log": True},
    "batch_size": {"int": [16, 512], "log": True},
    "scheduler": "step",
    "gamma": {"float": [0.1, 1.0]},
    "step_size": {"int": [5, 100]},
}


def excluded_by(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The hyperparameters that have no meaning beside those given."""
    if given.get("hidden_layers") is not None:
        return NUMBERS_OF_LAYERS
    return ("hidden_layers",) if any(name in given for name in NUMBERS_OF_LAYERS) else ()


def refuse_two_ways(given: Mapping[str, Any]) -> None:
    """Raise ValueError if the layers are given both as a list and by their number or size."""
    both = [name for name in NUMBERS_OF_LAYERS if name in given]
    if given.get("hidden_layers") is not None and both:
        raise ValueError(f"hidden_layers replaces {', '.join(both)}; give one or the other")


def completed_search(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The default search space with the entries that are given. Raises ValueError as `refuse_two_ways`."""
    refuse_two_ways(given)
    merged = {**{name: entry for name, entry in default.items() if name not in excluded_by(given)}, **given}
    if "scheduler" not in given and {"gamma", "step_size"} & given.keys():
        merged["scheduler"] = "step"  # of which they are
    return merged


def left_out(hyperparameters: Hyperparameters, known: Collection[str]) -> dict[str, Any]:
    """The hyperparameters that are not among the known ones, and have another value than their default."""
    fields = type(hyperparameters).model_fields
    values = {name: getattr(hyperparameters, name) for name in fields if name not in known}
    return {name: value for name, value in values.items() if value != fields[name].default}
