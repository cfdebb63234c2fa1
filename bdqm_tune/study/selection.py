"""The model of a study that is evaluated and registered: one that is picked, the confirmed champion, or the best."""

from dataclasses import asdict, dataclass

import optuna

from bdqm_tune.errors import BadInput, argument
from bdqm_tune.study.objectives import best_first, pareto_front
from bdqm_tune.study.study import RUN_ID, STATES

CHAMPION = "champion"  # attribute of a study


@dataclass(frozen=True)
class Champion:
    """The configuration that `confirm` chose, and its best model by the validation split."""

    trial: int  # whose configuration it is
    seed: int  # with which it trained best
    run_id: str  # of the model, in MLflow: of the training with this seed, or of the ensemble of all seeds
    value: float  # of that model: the objective, eV or eV/Å
    mean: float  # over all seeds
    run_ids: list[str]  # of the trainings with all seeds
    confirmation_run_id: str
    trials: int  # finished trials that the study had then
    why: str
    is_ensemble: bool = False


@dataclass(frozen=True)
class ChosenModel:
    """Which model of a study stands for it."""

    trial: int
    run_id: str
    why: str
    trained_in: str  # the run of its training or, of an ensemble, of one of its members

    @property
    def is_ensemble(self) -> bool:
        """Whether it is an ensemble, which no single run has trained."""
        return self.run_id != self.trained_in


def chosen_model(study: optuna.Study, picked: int | None = None) -> ChosenModel:
    """The picked trial or, where none is, the confirmed champion or else the best trial.

    Args:
        picked: a trial's number.

    Raises:
        BadInput: that trial is not complete; no trial is; or a study of several objectives has no champion, and none
            was picked.
    """
    if picked is not None:
        return _of_trial(picked_trial(study, picked), "the trial that was picked")
    champion = champion_of(study)
    if champion is None:
        refuse_without_pick(study, picked)
        return _of_trial(best_trial(study), "the best trial; `confirm` has not been run")
    since = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) - champion.trials
    later = f"; {since} trials were added since" if since else ""
    if champion.is_ensemble:
        trained, run_id = f"the ensemble of its {len(champion.run_ids)} seeds", champion.run_ids[0]
    else:
        trained, run_id = f"trained with seed {champion.seed}", champion.run_id
    return ChosenModel(champion.trial, champion.run_id, f"the confirmed champion, {trained}{later}", run_id)


def _of_trial(trial: optuna.trial.FrozenTrial, why: str) -> ChosenModel:
    run_id = trial.user_attrs[RUN_ID]
    return ChosenModel(trial.number, run_id, why, run_id)


def champion_of(study: optuna.Study) -> Champion | None:
    """The champion that `confirm` chose; None if it has not been run."""
    champion = study.user_attrs.get(CHAMPION)
    return None if champion is None else Champion(**champion)


def set_champion(study: optuna.Study, champion: Champion) -> None:
    """Record the study's champion."""
    study.set_user_attr(CHAMPION, asdict(champion))


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The complete trial with the least error. Raises BadInput if there is none."""
    complete = best_first(study.get_trials(deepcopy=False))
    if not complete:
        raise BadInput(f"study {study.study_name!r} has no complete trial yet; run tune again under this name")
    return complete[0]


def picked_trial(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial:
    """The complete trial of a number. Raises BadInput if there is none, or it is not complete."""
    name, trials = study.study_name, study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise BadInput(f"--trial {number}: study {name!r} has trials 0 to {len(trials) - 1}")
    trial = trials[number]
    if trial.state != optuna.trial.TrialState.COMPLETE:
        raise BadInput(
            f"--trial {number}: trial {number} of study {name!r} is {STATES[trial.state]}; pick a complete one"
        )
    return trial


def refuse_without_pick(study: optuna.Study, picked: int | None) -> None:
    """Raise BadInput if the study has a Pareto front and no trial was picked: which is best, only the user can say."""
    if picked is None and len(study.directions) > 1:
        front = [str(trial.number) for trial in pareto_front(study.get_trials(deepcopy=False))]
        if not front:
            raise BadInput(f"study {study.study_name!r} has no complete trial yet; run tune again under this name")
        raise BadInput(
            f"study {study.study_name!r} has several objectives, and on its Pareto front the trials "
            f"{', '.join(front[:10])}{', …' * (len(front) > 10)}: "
            f"pick one with --trial N; `bdqm-tune front {argument(study.study_name)}` shows them"
        )
