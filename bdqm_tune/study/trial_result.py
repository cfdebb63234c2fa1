"""How a trial ended, and telling the study of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.storage.retrying_storage import ClaimLost
from bdqm_tune.study.checkpoints import TrialCheckpoint
from bdqm_tune.study.study import RESULT, holds_claim

OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    number: int
    state: str  # complete, pruned or failed
    val_energy_mae: float | None  # eV, of the best epoch
    best_epoch: int | None
    epochs: int
    n_parameters: int | None
    trial_seconds: float
    reason: str = ""  # why it was pruned or failed
    error: str = ""  # the traceback of a failure
    val_forces_mae: float | None = None  # eV/Å, of the best epoch, where forces are trained
    value: float | None = None  # the error by which training goes, of the best epoch
    time_per_atom: float | None = None  # s, of a prediction; measured where a study has several objectives

    def values(self, objectives: Sequence[str]) -> list[float]:
        """What a complete trial is judged by."""
        return [float(getattr(self, name)) for name in objectives]


def tell(
    trial: optuna.Trial,
    result: TrialResult,
    objectives: Sequence[str],
    checkpoint: TrialCheckpoint,
    reports: Mapping[int, float],
) -> bool:
    """Let the study know; False if another worker has the trial by now.

    Args:
        reports: values by epoch that it may not know yet.
    """
    kept = {key: value for key, value in asdict(result).items() if key not in ("number", "state", "error")}
    values = result.values(objectives) if result.state == "complete" else None
    if not holds_claim(trial):
        return False
    try:
        for epoch, value in reports.items():
            trial.storage.set_trial_intermediate_value(id_of(trial), epoch, value)
        trial.set_user_attr(RESULT, kept)
        trial.study.tell(trial, values, OPTUNA_STATES[result.state])
    except (ClaimLost, UpdateFinishedTrialError):
        return False
    except ValueError:  # of Optuna: one that waits cannot be told
        if trial.storage.get_trial(id_of(trial)).state == TrialState.RUNNING:
            raise
        return False
    checkpoint.remove()
    return True
