"""The result of a trial, and its report to the study."""

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
    """The result of a trial."""

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
    val_energy_mae_per_atom: float | None = None  # eV/atom, of the best epoch
    val_energy_forces: float | None = None  # eV/atom, of the best epoch, where forces are trained
    val_stress_mae: float | None = None  # eV/Å³, of the best epoch, where the stress is trained
    # parts of the objective by groups of validation structures, of which it is the mean, see `HeldOut.by_group`
    validation_errors: list[float] | None = None
    time_per_atom: float | None = None  # s, of a prediction; measured where a study has several objectives

    def values(self, objectives: Sequence[str]) -> list[float]:
        """The values of the objectives, of a complete trial."""
        return [float(getattr(self, name)) for name in objectives]


def tell(
    trial: optuna.Trial,
    result: TrialResult,
    objectives: Sequence[str],
    checkpoint: TrialCheckpoint,
    reports: Mapping[int, float],
) -> bool:
    """Report a trial's result to the study; False if another worker has claimed the trial.

    Args:
        reports: intermediate values by epoch that the study may not have yet.
    """
    attributes = {key: value for key, value in asdict(result).items() if key not in ("number", "state", "error")}
    values = result.values(objectives) if result.state == "complete" else None
    if not holds_claim(trial):
        return False
    try:
        for epoch, value in reports.items():
            trial.storage.set_trial_intermediate_value(id_of(trial), epoch, value)
        trial.set_user_attr(RESULT, attributes)
        trial.study.tell(trial, values, OPTUNA_STATES[result.state])
    except (ClaimLost, UpdateFinishedTrialError):
        return False
    except ValueError:  # of Optuna: `tell` refuses a waiting trial
        if trial.storage.get_trial(id_of(trial)).state == TrialState.RUNNING:
            raise
        return False
    checkpoint.remove()
    return True
