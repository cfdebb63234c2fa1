"""The errors of an epoch, summed in a callback of skorch; importing this imports skorch."""

from typing import Any

import torch
from skorch.callbacks import Callback

from bdqm_tune.config.config import Objective
from bdqm_tune.units import FORCE_LENGTH


class EpochErrors(Callback):  # type: ignore[misc]
    """Sums over the structures of an epoch, in units of the scaled targets, in training (True) and validation (False).

    They replace amptorch's own scores, which have no error per atom, are of float32, and write a checkpoint into the
    working directory at every best one.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.sums: dict[bool, dict[str, float]] = {}

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        names = ("structures", "loss", "energy", "energy_per_atom", "components", "forces")
        self.sums = {training: dict.fromkeys(names, 0.0) for training in (True, False)}

    def on_batch_end(self, net: Any, X: Any, y: Any, training: bool, loss: Any, y_pred: Any, **kwargs: Any) -> None:
        (batch,), (targets,), sums = X, y, self.sums[training]
        error = (y_pred[0].detach().double() - targets[0]).abs()
        sums["structures"] += len(error)
        sums["loss"] += float(loss) * len(error)
        sums["energy"] += float(error.sum())
        sums["energy_per_atom"] += float((error / torch.bincount(batch.batch)).sum())
        if len(targets) > 1:
            sums["components"] += targets[1].numel()
            sums["forces"] += float((y_pred[1].detach().double() - targets[1]).abs().sum())

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        # For a schedule that follows it.
        net.history.record("objective", self._validation(self.objective))

    def _validation(self, objective: Objective) -> float:
        if objective == "val_energy_forces":
            return self.mean("energy_per_atom", False) + FORCE_LENGTH * self.mean("forces", False)
        names = {"val_energy_mae_per_atom": "energy_per_atom", "val_forces_mae": "forces"}
        return self.mean(names.get(objective, "energy"), False)

    def mean(self, name: str, training: bool) -> float:
        """The mean of a sum over structures, or over the components of forces."""
        sums = self.sums[training]
        return sums[name] / sums["components" if name == "forces" else "structures"]
