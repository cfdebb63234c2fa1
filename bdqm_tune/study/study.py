"""Optuna studies: open, refuse what does not fit, add to the budget, claim the next trial."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.config.earlier_training import (
    same_training,
    training_differences,
    with_earlier_search,
    with_earlier_training,
)
from bdqm_tune.errors import BadInput, BdqmError, argument
from bdqm_tune.progress import note
from bdqm_tune.services.connection import Stores, has_servers, services_folder
from bdqm_tune.services.optuna_private import FrozenStudy, forget_trials, id_of
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.services.submission import servers_answer
from bdqm_tune.storage.cache import Cache, cache_of, hurry
from bdqm_tune.storage.database import not_made_yet, open_storage, opened
from bdqm_tune.storage.retrying_storage import ClaimLost
from bdqm_tune.study.descriptor_record import descriptor_record, same_descriptor, with_earlier
from bdqm_tune.study.objectives import objectives_of
from bdqm_tune.study.samplers import make_pruner, make_sampler
from bdqm_tune.study.search_space import distributions

if TYPE_CHECKING:
    from bdqm_tune.learning.dataset import Dataset

SIGNATURE, TEST, EXPERIMENT = "question", "test", "mlflow_experiment_id"  # attributes of a study …
RUN_ID, RESULT = "mlflow_run_id", "result"  # … and of a trial
SEARCH_SPACE = "search_space"  # attribute of a study: the first distribution of each hyperparameter that is searched
LOSSES = "losses"  # attribute of a trial: how many workers died with it
IDENTITY = "identity"  # attribute of a study: of it alone, whatever others are called
SUBMISSIONS = "submissions"  # attribute of a study: trials it is to have by each submission that added some
STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

_log = logging.getLogger(__name__)


def load_study(stores: Stores, name: str) -> optuna.Study:
    """A study to read.

    Raises:
        BadInput: there is none of that name; the message lists those there are.
        BdqmError: the database cannot be opened.
    """
    storage = None if not_made_yet(stores) else open_storage(stores)
    names = sorted(optuna.get_all_study_names(storage)) if storage else []
    if storage is None or name not in names:
        raise no_such_study(stores, name, names)
    return optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())


def no_such_study(stores: Stores, name: str, names: Sequence[str]) -> BadInput:
    """The error for a study that is not among those there are."""
    known = f"there are: {', '.join(names)}" if names else "there is none yet"
    where = without_secrets(stores.storage_url).partition("?")[0]
    beside = where_beside(stores, name)
    return BadInput(f"no study {name!r} in {where}; {known}{f'; it is in {beside}' if beside else ''}")


def where_beside(stores: Stores, name: str) -> str:
    """Where a study is that is in files while the servers are up, or the other way round, and how to get at it.

    "" if there is none of that name.
    """
    place = place_beside(stores)
    with suppress(BdqmError):
        if place is not None and name in [study.study_name for study in studies_beside(stores)]:
            where = without_secrets(place.storage_url).partition("?")[0]
            side = "servers" if follows_servers(stores) else "files"
            return f"{where}, from which `bdqm-tune copy-study --to {side} {argument(name)}` brings it here"
    return ""


def in_files_only(stores: Stores, names: Sequence[str]) -> list[str]:
    """Studies in files of this folder that are not among those that the servers have; none where nobody can read them.

    Args:
        names: of those that the servers have.
    """
    with suppress(BdqmError):
        return sorted({study.study_name for study in studies_beside(stores)} - set(names))
    return []


def follows_servers(stores: Stores) -> bool:
    """Whether the studies are in the database of the user's servers."""
    return stores.storage is None and stores.connection_file is not None


def place_beside(stores: Stores) -> Stores | None:
    """The embedded stores where the studies are on servers; where they are not, the servers of a user who has some."""
    if follows_servers(stores):
        return Stores(stores.home)
    return Stores(stores.home, connection_file=services_folder() / "connection.json") if has_servers() else None


def studies_beside(stores: Stores) -> list[FrozenStudy]:
    """The studies of that place; nothing is made. Raises BdqmError if they cannot be read."""
    place = place_beside(stores)
    if place is None or not_made_yet(place):
        return []
    if place.connection_file is not None and not servers_answer(place.connection_file):
        raise BdqmError("the servers do not answer")
    with opened(place) as storage:
        return storage.backend.get_all_studies()


def check_study(stores: Stores, config: Config, dataset: "Dataset") -> list[FrozenTrial]:
    """Check that the study of this name, if there is one, fits the configuration and the data; nothing is created.

    Returns those of its trials that decide which come next: of a grid all, else the first.

    Raises:
        BadInput: it has other data, another objective, other choices or another scale of a range.
        BdqmError: the database cannot be opened.
    """
    if not_made_yet(stores):
        return []
    name = config.study.name
    with opened(stores) as storage:
        study_id = study_id_of(storage, name)
        if study_id is None:
            return []
        attributes = storage.get_study_user_attrs(study_id)
        existing = storage.backend.distributions(study_id)
        if config.study.sampler == "grid":
            trials = storage.get_all_trials(study_id, deepcopy=False)
        else:
            first = range(min(1, storage.backend.count_trials(study_id)))
            trials = [storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, n)) for n in first]
    given = dataset.given.training.model_dump()
    _refuse_other_signature(name, attributes, signature(config, dataset), given)
    _refuse_other_kinds([*existing, *_recorded_space(attributes)], config, len(dataset.train.structures))
    test = attributes.get(TEST)
    if test is not None and dataset.test is not None and test["digest"] != dataset.test.digest:
        raise BadInput(
            f"study {name!r} was made with another test split: {_short(test['digest'])} then, "
            f"{_short(dataset.test.digest)} now; choose another name with --study"
        )
    return trials


def experiment_recorded(stores: Stores, name: str) -> str:
    """The id of the MLflow experiment that a study's runs are in; "" where there is no study, or none has begun yet.

    Raises:
        BdqmError: the database cannot be opened.
    """
    if not_made_yet(stores):
        return ""
    with opened(stores) as storage:
        study_id = study_id_of(storage, name)
        return "" if study_id is None else str(storage.get_study_user_attrs(study_id).get(EXPERIMENT, ""))


def as_it_was_made(stores: Stores, config: Config) -> Config:
    """The configuration, with what its study has of options that did not exist when it was made; see `with_earlier`.

    Raises:
        BdqmError: the database cannot be opened.
    """
    if not_made_yet(stores):
        return config
    with opened(stores) as storage:
        study_id = study_id_of(storage, config.study.name)
        if study_id is None:
            return config
        attributes, drawn = storage.get_study_user_attrs(study_id), dict(storage.backend.distributions(study_id))
    if SIGNATURE not in attributes:
        return config
    made = attributes[SIGNATURE]
    trained = made["training"]
    if trained["forces"] in (True, False):  # not partial, for which the structures are read in another way
        config = config.decided(trained["forces"], trained.get("stress") is True)
    if "objective" not in config.target.model_fields_set and config.objective != made["objective"]:
        config = config.updated({"target": {"objective": made["objective"]}})
    searched = {name: getattr(distribution, "choices", None) for name, distribution in drawn.items()}
    earlier = with_earlier_search(
        with_earlier_training(with_earlier(config, made["descriptor"]), made["training"]), searched
    )
    if earlier is not config:
        note(f"bdqm-tune: study {config.study.name!r} goes on with the defaults of the version that made it")
    return earlier


def study_id_of(storage: Cache, name: str) -> int | None:
    """The study of this very name; None: there is none.

    Raises:
        BadInput: the database, which compares names by a collation of its own, takes another name for this one.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    stored = storage.get_study_name_from_id(study_id)
    if stored != name:
        raise BadInput(
            f"study {name!r}: the database takes {stored!r} for the same name, as its collation is not utf8mb4_bin; "
            "choose another name with --study"
        )
    return study_id


def open_study(
    stores: Stores,
    config: Config,
    dataset: "Dataset",
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """Create the study of a configuration, or resume it; `check_study` says whether it fits.

    To be called under the study's lock, with that check before it: the search space is recorded.

    Args:
        sampler, pruner: objects in the place of those that the configuration names.
    """
    options, storage = config.study, open_storage(stores, config.patience * 60)
    attributes = {IDENTITY: uuid4().hex[:12], SIGNATURE: signature(config, dataset)}
    directions = [StudyDirection.MINIMIZE] * len(config.objectives)
    storage.backend.create_study(options.name, directions, attributes)
    n_existing = storage.backend.count_trials(storage.get_study_id_from_name(options.name))
    sampler = sampler or make_sampler(options.sampler, options.seed, n_existing)
    pruner = pruner or make_pruner(options.pruner, config.training.epochs)
    study = optuna.load_study(study_name=options.name, storage=storage, sampler=sampler, pruner=pruner)
    _record_space(study, config, len(dataset.train.structures))
    return study


def signature(config: Config, dataset: "Dataset") -> dict[str, Any]:
    """The search-space signature of a study: runs under one name must agree in it, or trials could not be compared."""
    return {
        "data": dataset.digest,
        "objective": config.objective,
        **({"objectives": config.objectives} if len(config.objectives) > 1 else {}),
        "descriptor": descriptor_record(config),
        "reference energies": _reference_energies(config, dataset),
        "target scaling": config.target.scaling,
        "training": config.training.model_dump(),
        "backend": config.trained_by,
        **({"backend options": config.declared.compared(config.backend_options)} if config.backend_options else {}),
    }


def _reference_energies(config: Config, dataset: "Dataset") -> Any:
    """The option; where it is `isolated_atoms`, their energies, which the digest of the data does not have."""
    if config.target.reference_energies != "isolated_atoms":
        return config.target.reference_energies
    return dataset.references.by_symbol


def errors_of(trial: FrozenTrial, objectives: Sequence[str]) -> dict[str, float | None]:
    """The errors and objectives of a complete trial, by name; those of its result that it has."""
    return {**trial.user_attrs.get(RESULT, {}), **dict(zip(objectives, trial.values, strict=True))}


def add_trials(
    study: optuna.Study, n_trials: int, parameters: Sequence[dict[str, Any]] = (), submission: str = ""
) -> int:
    """Add `n_trials` to the study's budget, as waiting trials; returns how many were added.

    Args:
        parameters: of the first of them; the sampler chooses those of the rest.
        submission: id of a job; all its workers together, however often they start, add their trials once.
    """
    if submission:
        # The total is written first: if a worker is killed in the middle, the next one adds what is missing.
        n_existing = cache_of(study).backend.count_trials(id_of(study))
        totals = {submission: n_existing + n_trials} | study.user_attrs.get(SUBMISSIONS, {})
        study.set_user_attr(SUBMISSIONS, totals)
        missing = max(0, totals[submission] - n_existing)
        n_trials, parameters = missing, parameters if missing == n_trials else ()
    for fixed in parameters[:n_trials]:
        study.enqueue_trial(fixed)
    if (rest := n_trials - len(parameters[:n_trials])) > 0:
        cache_of(study).backend.add_waiting(id_of(study), rest)
    return n_trials


def refuse_successor(study: optuna.Study, identity: str) -> None:
    """Check that this is still the study of that identity: SQLite gives the id of a deleted study to the next one.

    Raises:
        BdqmError: it was deleted.
    """
    attributes: dict[str, Any] = {}
    with suppress(KeyError):
        attributes = cache_of(study).get_study_user_attrs(id_of(study))
    if attributes.get(IDENTITY) != identity:
        raise BdqmError("the study was deleted while this worker ran; its trials are gone")


def next_trial(study: optuna.Study) -> optuna.Trial | None:
    """Claim a waiting trial, or None if there is none left.

    Unlike `Study.ask` this never adds a trial, so that the budget holds whatever the number of workers.
    """
    trial_id = cache_of(study).take_waiting(id_of(study))
    if trial_id is None:
        return None
    # What the sampler read for the last trial of this thread. `Study.tell` forgets it in its own thread, which is
    # another one here: the sampler would see the trials as they were before the first, and draw at random for ever.
    forget_trials(study)
    return optuna.Trial(study, trial_id)


def others_run(study: optuna.Study) -> bool:
    """Whether other workers run trials of the study, which could be requeued and run here."""
    return cache_of(study).backend.others_run(id_of(study))


def holds_claim(trial: optuna.Trial) -> bool:
    """Whether this worker still holds the claim of a trial, without a query."""
    return not isinstance(trial.storage, Cache) or trial.storage.backend.holds(id_of(trial))


def certainly_holds_claim(trial: optuna.Trial) -> bool:
    """The same for what cannot be undone, as a metric that is logged; may query the database."""
    return not isinstance(trial.storage, Cache) or trial.storage.backend.certainly_holds(id_of(trial))


def keep_run_id(trial: optuna.Trial, run_id: str) -> bool:
    """Record a trial's run in the study; False if another worker has claimed the trial."""
    try:
        trial.storage.set_trial_user_attr(id_of(trial), RUN_ID, run_id)
    except (ClaimLost, UpdateFinishedTrialError):
        return False
    return True


@contextmanager
def requeued_on_error(trial: optuna.Trial) -> Iterator[None]:
    """Requeue the trial, with its number and parameters, if the block raises.

    A trial that another worker has claimed meanwhile, or that somebody has ended, is left alone.

    Raises:
        ClaimLost: it is such a trial.
    """
    try:
        yield
    except ClaimLost:  # and the worker continues with others
        raise
    except UpdateFinishedTrialError as error:
        raise ClaimLost(f"trial {trial.number} was ended by somebody else") from error
    except BaseException:
        requeue(trial)
        raise


def requeue(trial: optuna.Trial) -> None:
    """Requeue the trial, if this worker holds its claim; retries for seconds only, as the process is about to end."""
    hurry(trial.storage)
    try:
        if holds_claim(trial):
            trial.storage.set_trial_state_values(id_of(trial), TrialState.WAITING)
    except (ClaimLost, UpdateFinishedTrialError):  # the latter: another thread reported its result at this moment
        pass
    except StorageInternalError:
        _log.warning("trial %d could not be requeued: the study database does not answer", trial.number)


def _refuse_other_signature(
    name: str, attributes: dict[str, Any], requested: dict[str, Any], training: Mapping[str, Any]
) -> None:
    """Raise BadInput if the study was made with another signature; `training`: its options as the user has them."""
    stored = attributes.get(SIGNATURE)
    if stored is None:
        raise BadInput(f"study {name!r} exists but was not made by bdqm-tune; choose another name with --study")
    then_and_now = [{**each, "objectives": objectives_of(each)} for each in (stored, requested)]
    # The data last: their digest also follows from what is trained on, and says less.
    for key, value in sorted(then_and_now[1].items(), key=lambda pair: pair[0] == "data"):
        then = then_and_now[0].get(key)
        if key == "descriptor" and isinstance(then, dict):
            same = same_descriptor(then, value)
        elif key == "training" and isinstance(then, dict):
            same = same_training(then, value)
        else:
            same = then == value
        if not same:
            what = f"{_short(then)} then, {_short(value)} now"
            if key == "training" and isinstance(then, dict):
                what = ", and ".join(training_differences(then, value, training))
            raise BadInput(
                f"study {name!r} was made with other {key}: {what}; "
                "choose another name with --study, or go back to what it was made with"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) == 64 else text


def _refuse_other_kinds(existing: Iterable[tuple[str, BaseDistribution]], config: Config, n_train: int) -> None:
    """Refuse what Optuna would refuse in every trial to come: another kind of range, another scale, other choices.

    Args:
        existing: what the study's trials were drawn from, and what its workers have said that they draw from.
    """
    searched = distributions(config, n_train)
    for name, then in existing:
        if name not in searched:
            continue
        try:
            check_distribution_compatibility(then, searched[name])
        except ValueError:
            raise BadInput(
                f"search.{name}: study {config.study.name!r} has it as {_kind(then)}, and now it is "
                f"{_kind(searched[name])}; within a study a range keeps its scale (log), and choices stay the same, "
                "in their order: go back to what it was, fix it to one value, or choose another name with --study"
            ) from None


def _kind(distribution: BaseDistribution) -> str:
    """What of a distribution cannot change within a study, in words."""
    if isinstance(distribution, CategoricalDistribution):
        return f"the choices {json.dumps(distribution.choices)}"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return f"a {'logarithmic' if distribution.log else 'linear'} range"


def _recorded_space(attributes: Mapping[str, Any]) -> list[tuple[str, BaseDistribution]]:
    """The search space that the study's workers have recorded; none in a study of an earlier version."""
    return [(name, json_to_distribution(text)) for name, text in attributes.get(SEARCH_SPACE, {}).items()]


def _record_space(study: optuna.Study, config: Config, n_train: int) -> None:
    """Record the kinds of what is searched, before a trial has any, for workers that start at the same time.

    What is recorded already stays: `check_study` has found that it is of the same kind.
    """
    recorded = study.user_attrs.get(SEARCH_SPACE, {})
    searched = {name: distribution_to_json(each) for name, each in distributions(config, n_train).items()}
    if not searched.keys() <= recorded.keys():
        study.set_user_attr(SEARCH_SPACE, searched | recorded)
