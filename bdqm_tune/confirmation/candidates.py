"""What is confirmed: the best configurations of a study, and yardsticks to hold them against."""

from dataclasses import dataclass

import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial

from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.models.store import run_with_model
from bdqm_tune.study.data import trial_config
from bdqm_tune.study.objectives import best_first
from bdqm_tune.study.run_contents import one_configuration
from bdqm_tune.study.search_space import Suggestion
from bdqm_tune.study.selection import picked_trial, refuse_without_pick
from bdqm_tune.study.study import RUN_ID

FINALIST, DEFAULT, RANDOM = "finalist", "default", "random"


@dataclass(frozen=True)
class Candidate:
    """A configuration to be confirmed."""

    name: str
    kind: str  # finalist, or the yardsticks: default, random
    trial: int | None  # of this study
    config: Config  # nothing in it is searched


def finalists(
    study: optuna.Study, client: MlflowClient, best: int, picked: int | None = None
) -> list[tuple[Candidate, Run]]:
    """The best complete trials that still have their artifacts, at most so many, and their runs.

    Args:
        picked: number of the one trial that is to be confirmed; None: the best ones.

    Raises:
        BadInput: there is none; the picked one cannot be taken; or of several objectives none was picked.
        MlflowException, OSError: the tracking store cannot be read.
    """
    refuse_without_pick(study, picked)
    complete = complete_trials(study) if picked is None else [picked_trial(study, picked)]
    found: list[tuple[Candidate, Run]] = []
    for trial in complete:
        run = run_with_model(client, trial.user_attrs[RUN_ID])
        if run is not None:
            name = f"trial-{trial.number:03d}"
            found.append((Candidate(name, FINALIST, trial.number, trial_config(client, run)), run))
        if len(found) == best:
            break
    if not found:
        which = f"trial {picked}" if picked is not None else "complete trial to confirm"
        what = "all of them lost their models, to `bdqm-tune gc` or in MLflow" if complete else "there is none"
        raise BadInput(f"study {study.study_name!r} has no {which}: {what}; run tune again")
    return found


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials, the best first."""
    return best_first(study.get_trials(deepcopy=False))


def searched_config(client: MlflowClient, run: Run) -> Config:
    """The configuration, with its search space, of the job that a trial's run belongs to."""
    return trial_config(client, client.get_run(run.data.tags[MLFLOW_PARENT_RUN_ID]))


def default_candidate(searched: Config) -> Candidate:
    """What a study tries first: the defaults of what is searched, with what it fixes."""
    tried = Suggestion(Hyperparameters(**searched.fixed), searched.descriptor)
    return Candidate("default", DEFAULT, None, one_configuration(searched, tried))
