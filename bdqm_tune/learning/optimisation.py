"""Optimizers, their states as tensors, and learning rate schedules."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from bdqm_tune.config.hyperparameters import Hyperparameters


def make_optimizer(parameters: Iterable[torch.nn.Parameter], hyperparameters: Hyperparameters) -> torch.optim.Optimizer:
    """The optimizer of the parameters.

    `lbfgs` is torch's limited-memory BFGS with a line search for the strong Wolfe conditions (Nocedal and Wright,
    Numerical Optimization, 2nd ed., algorithms 7.5 and 3.5); each step evaluates a batch up to 25 times.
    """
    match hyperparameters.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=hyperparameters.lr, fused=True)
        case "adamw":
            decay = hyperparameters.weight_decay
            return torch.optim.AdamW(parameters, lr=hyperparameters.lr, weight_decay=decay, fused=True)
        case "lbfgs":
            return torch.optim.LBFGS(parameters, lr=hyperparameters.lr, line_search_fn="strong_wolfe")


def make_schedule(
    optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters, epochs: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate schedule, stepped once an epoch, with the objective if it is `plateau`.

    Args:
        epochs: of the whole training.
    """
    schedules = torch.optim.lr_scheduler
    match hyperparameters.scheduler:
        case "step":
            return schedules.StepLR(optimizer, hyperparameters.step_size, hyperparameters.gamma)
        case "cosine":
            return schedules.CosineAnnealingLR(optimizer, T_max=epochs)
        case "one_cycle":
            # One step more than epochs, for the one after the last epoch.
            return schedules.OneCycleLR(
                optimizer, max_lr=hyperparameters.lr, total_steps=epochs + 1, cycle_momentum=False
            )
        case "plateau":
            # torch tolerates `patience` epochs, and reduces the learning rate in the next one.
            patience, factor = hyperparameters.step_size - 1, hyperparameters.gamma
            return schedules.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=0.0, eps=0.0)
        case "none":
            return schedules.ConstantLR(optimizer, factor=1.0)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of an optimizer as tensors, which are not copied.

    The state of L-BFGS has lists and plain numbers as well: `plain` is the JSON of all, with tensors by their numbers.
    """
    tensors: list[torch.Tensor] = []

    def without_tensors(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            return {"tensor": len(tensors) - 1}
        if isinstance(value, dict):
            return {str(key): without_tensors(entry) for key, entry in value.items()}
        return [without_tensors(entry) for entry in value] if isinstance(value, list) else value

    plain = json.dumps(without_tensors(optimizer.state_dict()["state"])).encode()
    return {"plain": torch.frombuffer(bytearray(plain), dtype=torch.uint8)} | {str(i): t for i, t in enumerate(tensors)}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]) -> None:
    """Restore what `optimizer_state` gave in an optimizer of the same kind and parameters."""

    def with_tensors(value: Any) -> Any:
        if isinstance(value, dict):
            if "tensor" in value:
                return state[str(value["tensor"])].clone()
            return {name: with_tensors(entry) for name, entry in value.items()}
        return [with_tensors(entry) for entry in value] if isinstance(value, list) else value

    by_parameter = json.loads(state["plain"].numpy().tobytes())
    restored = {int(index): with_tensors(entries) for index, entries in by_parameter.items()}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": restored})
