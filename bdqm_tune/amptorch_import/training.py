"""amptorch's group `optim`: loss, optimizer, and schedule of the learning rate."""

from collections.abc import Mapping
from typing import Any

from bdqm_tune.amptorch_import.record import Group, class_name, shown

OPTIMIZERS = {"Adam": "adam", "AdamW": "adamw", "LBFGS": "lbfgs"}
OBJECTIVES = {"energy": "val_energy_mae", "forces": "val_forces_mae"}


def translate_optimisation(optim: Group) -> None:
    """The options of training, and the hyperparameters of optimizer and schedule."""
    optim.map("lr", 0.1, "search.lr")
    optim.map("batch_size", 32, "search.batch_size")
    optim.map("epochs", 100, "training.epochs")
    optim.map("loss", "mse", "training.loss")
    optim.map("force_coefficient", 0, "search.force_coefficient", float)
    optim.map("cp_metric", "energy", "target.objective", lambda given: OBJECTIVES[given])
    if optim.get("metric", "mae") == "mae":
        optim.note("metric", "mae", f"target.objective: {optim.translation.options['target']['objective']}")
    else:
        optim.refuse("metric", "models are judged by the mean absolute error")
    if class_name(optim.get("loss_fn", "CustomLoss")) == "CustomLoss":
        optim.drop("amptorch's own loss, which optim.loss chooses", "loss_fn")
    else:
        optim.refuse("loss_fn", "a loss of the user's own; training.loss is mae or mse")
    gpus = optim.get("gpus", 0)
    optim.map("gpus", 0, "device", lambda given: "cuda" if given else "cpu")
    if gpus > 1:
        optim.refuse("gpus", "more than one: a trial runs on one GPU")
    optim.drop("amptorch does not read it; gpus counts", "device")
    _translate_optimizer(optim)
    _translate_scheduler(optim)


def _translate_optimizer(optim: Group) -> None:
    optim.map("optimizer", "torch.optim.Adam", "search.optimizer", _optimizer)
    given = optim.get("optimizer_args") or {}
    arguments = Group(optim.translation, "optim.optimizer_args", given)
    decay = "optimizer__weight_decay"
    if decay in arguments and class_name(optim.get("optimizer", "Adam")) == "AdamW":
        arguments.map(decay, None, "search.weight_decay")
    for key in given:
        if key not in arguments.seen:
            arguments.refuse(key, "only AdamW's optimizer__weight_decay may be chosen")


def _optimizer(given: Any) -> str:
    name = class_name(given)
    if name not in OPTIMIZERS:
        raise ValueError(f"no optimizer here, adam is taken; there are {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def _translate_scheduler(optim: Group) -> None:
    given = optim.get("scheduler")
    optim.translation.set("search.scheduler", "none")
    if not given:
        optim.note("scheduler", given, "search.scheduler: none")
        return
    policy = class_name(given["policy"])
    found, left = _schedule(policy, given.get("params") or {}, optim.given.get("epochs", 100))
    if found is None:
        optim.refuse(
            "scheduler",
            f"{policy}, for which none is taken; there are StepLR, CosineAnnealingLR over all epochs, OneCycleLR, "
            "ReduceLROnPlateau",
        )
        return
    for option, value in found.items():
        optim.translation.set(f"search.{option}", value)
    optim.note("scheduler", policy, ", ".join(f"search.{option}: {shown(value)}" for option, value in found.items()))
    for key in left:
        optim.refuse(f"scheduler.params.{key}", f"the schedule {found['scheduler']} has its own")


def _schedule(policy: str, params: Mapping[str, Any], epochs: int) -> tuple[dict[str, Any] | None, list[str]]:
    """The hyperparameters of a schedule, or None where there is no such schedule; and the parameters not taken."""
    match policy:
        case "StepLR":
            found = {"scheduler": "step", "step_size": params["step_size"], "gamma": params.get("gamma", 0.1)}
            taken = {"step_size", "gamma"}
        case "CosineAnnealingLR" if params["T_max"] == epochs:
            found, taken = {"scheduler": "cosine"}, {"T_max"}
        case "OneCycleLR":
            found = {"scheduler": "one_cycle", "lr": params["max_lr"]}
            taken = {"max_lr", "total_steps", "epochs"}
        case "ReduceLROnPlateau":
            # torch tolerates `patience` epochs, and reduces the learning rate in the next one.
            steps, factor = params.get("patience", 10) + 1, params.get("factor", 0.1)
            found, taken = {"scheduler": "plateau", "step_size": steps, "gamma": factor}, {"patience", "factor"}
        case _:
            return None, []
    return found, [key for key in params if key not in taken]
