"""What is confirmed: the best configurations of a study, and the baselines that they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.config.config import OBJECT, Config, Study
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.store import existing_run, run_with_model
from bdqm_tune.progress import note
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import opened
from bdqm_tune.study.data import trial_config
from bdqm_tune.study.objectives import best_first
from bdqm_tune.study.run_contents import one_configuration
from bdqm_tune.study.search_space import Suggestion
from bdqm_tune.study.selection import picked_trial, refuse_without_pick
from bdqm_tune.study.study import EXPERIMENT, RUN_ID, SIGNATURE
from bdqm_tune.tuning.tune import tune

FINALIST, DEFAULT, RANDOM = "finalist", "default", "random"


@dataclass(frozen=True)
class Candidate:
    """A configuration to be confirmed."""

    name: str
    kind: str  # finalist, or a baseline: default, random
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
            found.append((Candidate(name, FINALIST, trial.number, trial_config(client, run, to_train=True)), run))
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
    return trial_config(client, client.get_run(run.data.tags[MLFLOW_PARENT_RUN_ID]), to_train=True)


def default_candidate(searched: Config) -> Candidate:
    """What a study tries first: the defaults of what is searched, with what it fixes."""
    tried = Suggestion(searched.declared.hyperparameters(**searched.fixed), searched.descriptor, searched.study.seed)
    return Candidate("default", DEFAULT, None, one_configuration(searched, tried))


def run_random_search(stores: Stores, searched: Config, name: str, n_trials: int) -> None:
    """Make a study that draws so many trials from the same space at random, or bring it to that number.

    Nothing is tried first, and pruning is as in the configuration.
    """
    with opened(stores) as storage:
        trials: list[FrozenTrial] = []
        if name in optuna.get_all_study_names(storage):
            trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    if len(_first(trials, n_trials)) == n_trials:
        return
    # Of one that was cut off, the trials that wait are run; for that, one is added at least.
    missing = max(1, n_trials - len(trials))
    options = {"name": name, "sampler": "random", "n_trials": missing, "enqueue": []}
    if searched.study.pruner.startswith(OBJECT):  # which was given in Python, and is gone
        options["pruner"] = Study.model_fields["pruner"].default
    config = searched.updated({"study": options, "data": {"test": None}})
    note(f"random search of {n_trials} trials: study {name!r}")
    tune(prepare(config, stores.home), config, stores)


def random_study(
    storage: BaseStorage, client: MlflowClient, study: optuna.Study, n_trials: int, name: str = ""
) -> optuna.Study | None:
    """A random search with the same signature; of several, the one with the most trials.

    Args:
        n_trials: of its trials that count, the first ones; the others' sampler may be any.
        name: of the study that it must be; empty: any. None is returned if there is none.

    Raises:
        BadInput: the study of that name is none, or not such a one.
    """
    names = [other for other in optuna.get_all_study_names(storage) if other != study.study_name]
    if name and name not in names:
        raise BadInput(f"--random: no other study {name!r}; there are: {', '.join(names) or 'none'}")
    suitable: list[optuna.Study] = []
    for other_name in [name] if name else names:
        other = optuna.load_study(study_name=other_name, storage=storage, sampler=optuna.samplers.RandomSampler())
        why = _unsuitable(client, study, other, n_trials)
        if name and why:
            raise BadInput(f"--random: study {name!r} {why}")
        if not why:
            suitable.append(other)
    return max(
        suitable,
        key=lambda other: (len(_first(other.get_trials(deepcopy=False), n_trials)), other.study_name),
        default=None,
    )


def random_candidate(client: MlflowClient, other: optuna.Study, n_trials: int) -> tuple[Candidate, int]:
    """The best of the first trials of a random search, and how many of these have ended."""
    trials = _first(other.get_trials(deepcopy=False), n_trials)
    best = best_first(trials)[0]
    run = existing_run(client, f"trial {best.number} of study {other.study_name!r}", best.user_attrs[RUN_ID])
    config = trial_config(client, run, to_train=True)
    return Candidate(f"random: trial {best.number} of {other.study_name}", RANDOM, None, config), len(trials)


def _unsuitable(client: MlflowClient, study: optuna.Study, other: optuna.Study, n_trials: int) -> str:
    """Why a study is no random search with the same signature; empty if it is one."""
    if other.user_attrs.get(SIGNATURE) != study.user_attrs[SIGNATURE]:
        return "has another search-space signature: other data, objective, training or descriptor"
    trials = _first(other.get_trials(deepcopy=False), n_trials)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        return "has no complete trial"
    query = "tags.sampler != 'random'"
    runs = client.search_runs([other.user_attrs[EXPERIMENT]], query, max_results=50_000)
    numbers = {trial.number for trial in trials}
    drawn = [run for run in runs if run.data.tags.get("study") == other.study_name]
    if any(int(run.data.tags["trial_number"]) in numbers for run in drawn):
        return "has trials that another sampler chose"
    return ""


def _first(trials: Sequence[FrozenTrial], n_trials: int) -> list[FrozenTrial]:
    """Of the first so many trials those that have ended."""
    return [trial for trial in trials if trial.number < n_trials and trial.state.is_finished()]
