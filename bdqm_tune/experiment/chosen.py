"""The model of a study that is evaluated and registered: the confirmed champion, or else the best trial's."""

from dataclasses import asdict, dataclass

import optuna

from bdqm_tune.errors import BadInput
from bdqm_tune.experiment.study import RUN_ID

CHAMPION = "champion"  # attribute of a study


@dataclass(frozen=True)
class Champion:
    """The configuration that `confirm` chose, and its best model by the validation split."""

    trial: int  # whose configuration it is
    seed: int
    run_id: str  # of the training with this seed, in MLflow
    value: float  # of that model: the objective, eV or eV/Å
    mean: float  # over all seeds
    run_ids: list[str]  # of all seeds
    confirmation_run_id: str
    trials: int  # finished trials that the study had then
    why: str


@dataclass(frozen=True)
class ChosenModel:
    """Which model of a study stands for it."""

    trial: int
    run_id: str
    why: str


def chosen_model(study: optuna.Study) -> ChosenModel:
    """The confirmed champion where there is one, else the best trial. Raises BadInput if no trial is complete."""
    champion = champion_of(study)
    if champion is None:
        trial = best_trial(study)
        return ChosenModel(trial.number, trial.user_attrs[RUN_ID], "the best trial; `confirm` has not been run")
    since = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) - champion.trials
    later = f"; {since} trials were added since" if since else ""
    return ChosenModel(
        champion.trial, champion.run_id, f"the confirmed champion, trained with seed {champion.seed}{later}"
    )


def champion_of(study: optuna.Study) -> Champion | None:
    """The champion that `confirm` chose; None if it has not been run."""
    kept = study.user_attrs.get(CHAMPION)
    return None if kept is None else Champion(**kept)


def set_champion(study: optuna.Study, champion: Champion) -> None:
    """Let this be the study's champion."""
    study.set_user_attr(CHAMPION, asdict(champion))


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The complete trial with the least objective. Raises BadInput if there is none."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise BadInput(f"study {study.study_name!r} has no complete trial yet; run tune again under this name")
    return min(complete, key=lambda trial: (trial.value, trial.number))
