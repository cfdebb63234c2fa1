"""Optuna studies: open, refuse what does not fit, add to the budget, take the next trial."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdqm_tune.config import Config
from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.experiment.samplers import make_pruner, make_sampler
from bdqm_tune.experiment.search_space import distributions
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.structures import digest

QUESTION, TEST, EXPERIMENT = "question", "test", "mlflow_experiment_id"


def open_storage(url: str) -> BaseStorage:
    """Connect to the database of studies, making its tables if it has none.

    Raises:
        BadInput: not the URL of a database.
        BdqmError: the database cannot be reached.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        return RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, ImportError) as error:
        reason = one_line(error.__cause__ or error)
        raise BdqmError(f"cannot open the study database {parsed.render_as_string()}: {reason}") from None


def _parse(url: str) -> sqlalchemy.URL:
    try:
        return sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise BadInput("BDQM_STORAGE is no SQLAlchemy URL; an example: sqlite:////scratch/me/optuna.db") from None


def load_study(url: str, name: str) -> optuna.Study:
    """A study to read.

    Raises:
        BadInput: there is none of that name; the message lists those there are.
    """
    storage = None if _not_made_yet(url) else open_storage(url)
    names = sorted(optuna.get_all_study_names(storage)) if storage else []
    if storage is None or name not in names:
        known = f"there are: {', '.join(names)}" if names else "there is none yet"
        raise BadInput(f"no study {name!r} in {_parse(url).render_as_string()}; {known}")
    return optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())


def _not_made_yet(url: str) -> bool:
    """Whether the URL is that of a SQLite file which opening would make."""
    parsed = _parse(url)
    return parsed.get_backend_name() == "sqlite" and bool(parsed.database) and not Path(str(parsed.database)).exists()


def check_study(url: str, config: Config, dataset: Dataset) -> list[FrozenTrial]:
    """See that the study of this name, if there is one, fits the configuration and the data; give its trials.

    Nothing is made.

    Raises:
        BadInput: it has other data, another objective or other choices.
    """
    if _not_made_yet(url):
        return []
    storage = open_storage(url)
    name = config.study.name
    if name not in optuna.get_all_study_names(storage):
        return []
    study_id = storage.get_study_id_from_name(name)
    attributes = storage.get_study_user_attrs(study_id)
    _refuse_other_question(name, attributes, question(config, dataset))
    trials = storage.get_all_trials(study_id, deepcopy=False)
    _refuse_other_choices(trials, config, len(dataset.train.structures))
    test = attributes.get(TEST)
    if test is not None and dataset.test is not None and test["digest"] != digest(dataset.test):
        raise BadInput(
            f"study {name!r} was made with another test split: {_short(test['digest'])} then, "
            f"{_short(digest(dataset.test))} now; choose another name with --study"
        )
    return trials


def open_study(url: str, config: Config, dataset: Dataset) -> optuna.Study:
    """Create the study of a configuration, or go on with it; `check_study` says whether it fits."""
    options = config.study
    study = optuna.create_study(
        study_name=options.name,
        storage=open_storage(url),
        direction="minimize",
        load_if_exists=True,
        pruner=make_pruner(options.pruner, config.training.epochs),
    )
    study.sampler = make_sampler(options.sampler, options.seed, len(study.get_trials(deepcopy=False)))
    if QUESTION not in study.user_attrs:
        study.set_user_attr(QUESTION, question(config, dataset))
    return study


def question(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What a study asks; two runs under one study name must agree in it, or their trials could not be compared."""
    return {
        "data": dataset.digest,
        "objective": config.target.objective,
        "descriptor": config.descriptor.model_dump(),
        "reference energies": config.target.reference_energies,
        "training": config.training.model_dump(),
        "backend": config.backend,
    }


def add_trials(study: optuna.Study, n_trials: int, parameters: Sequence[dict[str, Any]] = ()) -> None:
    """Add `n_trials` to the study's budget, as trials that wait for a worker.

    Args:
        parameters: what the first of them try; the sampler chooses for the rest.
    """
    for fixed in parameters[:n_trials]:
        study.enqueue_trial(fixed)
    study.add_trials([create_trial(state=TrialState.WAITING) for _ in range(n_trials - len(parameters))])


def next_trial(study: optuna.Study) -> optuna.Trial | None:
    """Take a waiting trial, or None if there is none left.

    Unlike `Study.ask` this never adds a trial, so that the budget holds whatever the number of workers.
    """
    storage = study._storage
    for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
            return optuna.Trial(study, waiting._trial_id)
    return None


@contextmanager
def handed_back(trial: optuna.Trial) -> Iterator[None]:
    """Let the trial wait again, with its number and parameters, if the block does not end as it should."""
    try:
        yield
    except BaseException:
        trial.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        raise


def _refuse_other_question(name: str, attributes: dict[str, Any], asked: dict[str, Any]) -> None:
    stored = attributes.get(QUESTION)
    if stored is None:
        raise BadInput(f"study {name!r} exists but was not made by bdqm-tune; choose another name with --study")
    for key, value in asked.items():
        if stored.get(key) != value:
            raise BadInput(
                f"study {name!r} was made with other {key}: {_short(stored.get(key))} then, {_short(value)} now; "
                "choose another name with --study, or go back to what it was made with"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) == 64 else text


def _refuse_other_choices(trials: list[FrozenTrial], config: Config, n_train: int) -> None:
    """Optuna cannot change the choices of a hyperparameter within a study; say so before a trial fails of it."""
    wanted = distributions(config, n_train)
    for trial in trials:
        for name, old in trial.distributions.items():
            new = wanted.get(name)
            if new is not None and type(new) is type(old) and not isinstance(new, CategoricalDistribution):
                continue
            if new is not None and new != old:
                raise BadInput(
                    f"search.{name}: the study {config.study.name!r} has trials with {old}; its kind and choices "
                    f"cannot change to {new} within a study; choose another name with --study"
                )
