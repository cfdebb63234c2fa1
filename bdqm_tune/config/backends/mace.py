"""MACE, by the published mace-torch: equivariant message passing on the structures themselves, without a descriptor."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from bdqm_tune.config.backends import Declaration
from bdqm_tune.config.options import Options, hyperparameter

# What a foundation model has of its own: beside one these are null.
ARCHITECTURE = (
    *("r_max", "num_channels", "max_L", "correlation", "max_ell", "num_interactions", "num_radial_basis"),
    "num_cutoff_basis",
)
# Weights that are good already must not be lost in the first steps.
FINE_TUNING_LR: dict[str, Any] = {"float": [1e-4, 3e-3], "log": True}
FINE_TUNING_FIRST = {"lr": 1e-3}


class MaceHyperparameters(Options):
    """One configuration that a trial tries; the names are those of `mace_run_train`. Ranges are for a CPU."""

    r_max: float | None = hyperparameter(4.5, "cutoff of an edge, Å", {"float": [3.5, 5.5]}, gt=0, le=20)
    num_channels: int | None = hyperparameter(16, "copies of each feature", {"choice": [8, 16, 32]}, ge=1, le=1024)
    max_L: int | None = hyperparameter(  # noqa: N815 (mace's name)
        0, "order of the messages: 0 invariant, 1 with vectors", {"choice": [0, 1]}, ge=0, le=4
    )
    correlation: int | None = hyperparameter(
        2, "neighbours that a message correlates: body order less 1", {"choice": [1, 2, 3]}, ge=1, le=4
    )
    max_ell: int | None = hyperparameter(
        2, "order of the spherical harmonics of an edge", {"choice": [1, 2, 3]}, ge=0, le=6
    )
    num_interactions: int | None = hyperparameter(
        2, "layers: an atom sees this many times r_max", {"choice": [1, 2]}, ge=1, le=6
    )
    num_radial_basis: int | None = hyperparameter(8, "Bessel functions of the distance", {"int": [6, 10]}, ge=1, le=64)
    num_cutoff_basis: int | None = hyperparameter(5, "order of the polynomial that ends at r_max", ge=2, le=64)
    batch_size: int = hyperparameter(
        5, "structures in a step; those of an epoch that do not fill one are left out", {"int": [2, 8]}, ge=1, le=10**9
    )
    lr: float = hyperparameter(0.01, "learning rate at the start", {"float": [2e-3, 3e-2], "log": True}, gt=0, le=10)
    scheduler: Literal["cosine", "exponential", "plateau"] = hyperparameter(
        "cosine",
        "of the learning rate, per epoch; cosine: down to 0; exponential: down to lr_final; plateau: mace's own, which "
        "waits longer than a short training lasts",
    )
    lr_final: float = hyperparameter(
        0.01, "exponential: share of lr after the last epoch", only_where=("scheduler", ("exponential",)), gt=0, le=1
    )
    lr_factor: float = hyperparameter(
        0.8, "plateau: factor of a change", only_where=("scheduler", ("plateau",)), gt=0, lt=1
    )
    scheduler_patience: int = hyperparameter(
        50,
        "plateau: epochs without a lower validation loss before a change",
        only_where=("scheduler", ("plateau",)),
        ge=0,
        le=10**6,
    )
    energy_weight: float = hyperparameter(
        100.0,
        "weight of the squared errors of the energies, (eV/atom)²",
        {"float": [10.0, 1000.0], "log": True},
        ge=0,
        le=1e9,
    )
    forces_weight: float = hyperparameter(
        100.0, "of those of the forces, (eV/Å)²; with training.forces", weighs="forces", ge=0, le=1e9
    )
    stress_weight: float = hyperparameter(
        1.0,
        "of those of the stress, (eV/Å³)²; with training.stress",
        {"float": [0.1, 100.0], "log": True},
        weighs="stress",
        ge=0,
        le=1e9,
    )
    ema: bool = hyperparameter(True, "validate and keep a running mean of the weights")
    ema_decay: float = hyperparameter(
        0.99, "share of the mean that a step leaves", only_where=("ema", (True,)), ge=0, lt=1
    )
    amsgrad: bool = hyperparameter(True, "Adam's variant with the largest second moment so far")
    weight_decay: float = hyperparameter(5e-7, "of the weights of interactions and products", ge=0, le=1)
    clip_grad: float = hyperparameter(10.0, "largest norm of the gradient in a step", gt=0, le=1e9)


class MaceOptions(Options):
    """`backend_options` of a study."""

    foundation_model: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="file of a model of mace, of one head, to start from. It is a pickle, which may run any code when "
        "it is read: name a file that you trust",
    )


def _complete(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a foundation model: its architecture is not searched, and learning rates are smaller."""
    options, search, study = (content.get(group, {}) for group in ("backend_options", "search", "study"))
    if not isinstance(options, Mapping) or options.get("foundation_model") is None or not isinstance(search, Mapping):
        return content
    fixed: dict[str, Any] = dict.fromkeys(ARCHITECTURE)
    completed = {**content, "search": {**fixed, "lr": FINE_TUNING_LR, **search}}
    if "lr" not in search and isinstance(study, Mapping) and "enqueue" not in study:
        completed["study"] = {**study, "enqueue": [FINE_TUNING_FIRST]}
    return completed


def _check(config: Any) -> None:
    if config.target.scaling != "deviation":
        raise ValueError("target.scaling: backend mace scales by the forces, as MACE does; leave it out")
    is_given = config.backend_options.get("foundation_model") is not None
    for name in ARCHITECTURE:
        entry = config.search.get(name, MaceHyperparameters.model_fields[name].default)
        if is_given and entry is not None:
            raise ValueError(f"search.{name}: is that of the foundation model; leave it out")
        if not is_given and entry is None:
            raise ValueError(f"search.{name}: null needs backend_options.foundation_model, which has one; give a value")


MACE = Declaration(
    name="mace",
    meaning="the published mace-torch, where it is installed: equivariant message passing, new or fine-tuned",
    hyperparameters=MaceHyperparameters,
    make="bdqm_tune.backends.mace:MaceBackend",
    load="bdqm_tune.backends.mace_potential:MacePotential.load",
    options=MaceOptions,
    packages=("mace-torch",),
    runs_code=lambda options: options.get("foundation_model") or "",  # a pickle
    forces=(True, False, "partial", "auto"),
    stress=(True, False, "partial", "auto"),
    unused=frozenset({"loss", "huber_delta", "energy_loss"}),
    complete=_complete,
    check=_check,
)
