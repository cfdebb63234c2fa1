"""The main job: a configuration in, a study with its trials tracked out."""

import os
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any

import optuna
from mlflow.tracking import MlflowClient
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from bdqm_tune.backends import make_backend, tags_of
from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.progress import note, walltime_is_near
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.database_lock import LockLost
from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.services.secrets import refuse_secrets
from bdqm_tune.storage.cache import cache_of
from bdqm_tune.storage.database import study_lock
from bdqm_tune.study.checkpoints import checkpoint_folder, remove_ended
from bdqm_tune.study.data import note_test_split
from bdqm_tune.study.run_contents import as_yaml
from bdqm_tune.study.samplers import make_pruner, make_sampler, object_name, rungs
from bdqm_tune.study.search_space import known_parameters
from bdqm_tune.study.study import (
    EXPERIMENT,
    IDENTITY,
    add_trials,
    as_it_was_made,
    check_study,
    experiment_recorded,
    follows_servers,
    open_study,
    where_beside,
)
from bdqm_tune.study.trial_result import TrialResult
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.search import STATUS_RUNNING, search
from bdqm_tune.tracking.tracker import Tracker, open_tracker
from bdqm_tune.tuning.parallel_trials import trial_results
from bdqm_tune.tuning.trial import TrialRunner
from bdqm_tune.workers.best_metrics import BestMetrics
from bdqm_tune.workers.heartbeat import Heartbeat
from bdqm_tune.workers.registry import Worker, Workers, describe_process
from bdqm_tune.workers.run_cleanup import end_run_of, end_runs_of_killed, end_unnamed_runs_of, follow_run, repair_run_of

FAILURES_THAT_STOP = 3
LOCK_ATTEMPTS = 5  # at most, where the lock is lost each time
# Samplers that do not go by the results of earlier trials. Others, of which those of other packages may be, need …
BLIND = ("random", "grid", "qmc", "python:RandomSampler", "python:QMCSampler")
ROUNDS = 4  # … some rounds of trials, whatever the number of cores

Objects = tuple[BaseSampler | None, BasePruner | None]


def tune(
    dataset: Dataset,
    config: Config,
    stores: Stores,
    on_trial: Callable[[TrialResult, optuna.Study], None] = lambda result, study: None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """Add the configuration's trials to its study and run until no trial waits.

    Args:
        config: what it leaves to the data is decided as in the study, or else as in `dataset`.
        on_trial: called after every trial.
        sampler, pruner: Optuna's objects, in the place of those that the configuration names; it records their classes.

    Raises:
        BadInput: the study of that name has another search-space signature.
        BdqmError: a store failed, or the first trials all failed in the same way.
    """
    quiet_libraries()
    if objects := {name: object_name(given) for name, given in (("sampler", sampler), ("pruner", pruner)) if given}:
        config = config.updated({"study": objects})
    if sampler is None:  # before anything is made
        make_sampler(config.study.sampler, config.study.seed, 0)
    if pruner is None:
        make_pruner(config.study.pruner, config.training.epochs)
    refuse_secrets(config.model_dump())
    n_train = len(dataset.train.structures)
    trained = dataset.config.training
    config = as_it_was_made(stores, config).decided(bool(trained.forces), bool(trained.stress))
    if bool(config.training.stress) != bool(trained.stress):  # the splits, and the test, have other labels then
        dataset = _prepared_as_study(dataset, config, stores)
    elif (config.descriptor, config.training) != (dataset.config.descriptor, dataset.config.training):
        dataset = dataset.configured(config)
    backend = make_backend(config, dataset)
    before = check_study(stores, config, dataset)
    known_parameters(config, n_train, before)
    if follows_servers(stores) and not before and (beside := where_beside(stores, config.study.name)):
        note(f"bdqm-tune: a study {config.study.name!r} begins on the servers; another one is in {beside}")
    # Workers may start at once; MLflow's embedded store cannot be made by two.
    tracker = open_tracker(
        stores,
        config.study.name,
        config.patience * 60,
        restore=bool(before),
        alone=lambda: study_lock(stores, config.study.name),
        experiment_id=experiment_recorded(stores, config.study.name),
    )
    experiment_id = tracker.run.info.experiment_id
    status, hurried, heartbeats = "FAILED", False, ExitStack()
    runner: TrialRunner | None = None
    heartbeat: Heartbeat | None = None
    try:
        study = _enter(dataset, config, stores, experiment_id, (sampler, pruner))
        tags = {"study": config.study.name, "kind": "study", "objectives": ", ".join(config.objectives)}
        tracker.log_study(_flat(config), {**tags, **provenance_tags(), **tags_of(backend)}, as_yaml(config))
        attributes = study.user_attrs
        checkpoints = checkpoint_folder(stores.home, config.study.name, attributes)
        compared = rungs(config.study.pruner, config.training.epochs)
        runner = TrialRunner(config, dataset, backend, tracker, compared, checkpoints, attributes.get(IDENTITY))
        heartbeat = heartbeats.enter_context(closing(start_heartbeat(study, tracker, backend.device)))
        _run_waiting(study, runner, at_once(config, backend.at_once), on_trial)
        BestMetrics(tracker, study, config.objectives).log()
        remove_ended(checkpoints, lambda: study.get_trials(deepcopy=False))
        tracker.send(lambda client: end_runs_of_killed(client, search(client, STATUS_RUNNING, [experiment_id])))
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status, hurried = "FINISHED" if walltime_is_near.is_set() else "KILLED", True
        raise
    except StorageInternalError:  # which was waited for long enough
        hurried = True
        raise
    finally:
        with heartbeats:  # until all results are in the study, which the tracker sends, too
            all_sent = False
            try:
                all_sent = tracker.finish(status, hurried)
            finally:
                if runner is not None and heartbeat is not None and not all_sent:
                    _leave_to_others(runner, heartbeat)
    return study


def _prepared_as_study(dataset: Dataset, config: Config, stores: Stores) -> Dataset:
    """The data of a configuration whose `training.stress: auto` follows its study, not the data as in `dataset`.

    Raises:
        BadInput: the study trains on the stress, and some of the structures have none.
    """
    try:
        prepared = prepare(config, stores.home)
    except BadInput as error:
        study, option = config.study.name, "training.stress: auto comes to true"
        raise BadInput(f"study {study!r} trains on the stress, so that {option} in it: {error}") from None
    return replace(prepared, given=dataset.given)


def _leave_to_others(runner: TrialRunner, heartbeat: Heartbeat) -> None:
    """Leave it to other workers to report what this one cannot, and to end its run."""
    heartbeat.leave_to_others()
    if n_requeued := runner.requeue_late():
        ended = f"{n_requeued} trials have ended, and the stores do not know it"
        note(f"bdqm-tune: {ended}; the next worker of the study sends them from their checkpoints")


def _enter(
    dataset: Dataset, config: Config, stores: Stores, experiment_id: str, objects: Objects = (None, None)
) -> optuna.Study:
    """The study with this worker's trials added, under its lock; the first worker creates it."""
    for _ in range(LOCK_ATTEMPTS - 1):
        with suppress(LockLost):  # the database was restarted, for example
            return _enter_once(dataset, config, stores, experiment_id, objects)
    return _enter_once(dataset, config, stores, experiment_id, objects)


def _enter_once(dataset: Dataset, config: Config, stores: Stores, experiment_id: str, objects: Objects) -> optuna.Study:
    with study_lock(stores, config.study.name) as check:
        existing = check_study(stores, config, dataset)
        check()
        study = open_study(stores, config, dataset, *objects)
        study.set_user_attr(EXPERIMENT, experiment_id)
        if dataset.test is not None:
            note_test_split(study, dataset.test, stores.home)
        known = known_parameters(config, len(dataset.train.structures), existing)
        check()
        add_trials(study, config.study.n_trials, known, os.environ.get("BDQM_SUBMISSION", ""))
    return study


def start_heartbeat(study: optuna.Study, tracker: Tracker, device: str) -> Heartbeat:
    """Register this process as a worker of the study and start its heartbeat, which also ends runs of dead workers."""
    storage = cache_of(study).backend

    def on_dead(worker: Worker, why: str) -> None:
        def request(client: MlflowClient) -> None:
            end_run_of(client, worker, why)
            experiment_id = tracker.run.info.experiment_id
            end_unnamed_runs_of(client, experiment_id, worker, lambda: storage.get_all_trials(id_of(study)))

        tracker.send(request)

    def on_requeued(trial: FrozenTrial) -> None:
        def request(client: MlflowClient) -> None:
            now = storage.get_trial(id_of(trial))  # for another worker may have claimed it meanwhile
            workers = Workers(storage.engine, storage.retry, id_of(study)).all()
            experiment_id = tracker.run.info.experiment_id
            repair_run_of(client, experiment_id, now, {worker.description.get("run_id", "") for worker in workers})

        tracker.send(request)

    description = {**describe_process(), "device": device, "run_id": tracker.run.info.run_id}
    heartbeat = Heartbeat(storage, id_of(study), description, on_dead, on_requeued)
    follow_run(tracker, study, heartbeat)
    heartbeat.send()
    heartbeat.start()
    return heartbeat


def at_once(config: Config, most: int) -> int:
    """How many trials a worker trains at the same time.

    Args:
        most: that the backend has use for, unless the configuration says how many.
    """
    if config.cohort != "auto":
        return config.cohort
    if config.study.sampler not in BLIND:
        most = min(most, max(1, config.study.n_trials // ROUNDS))
    return most


def _run_waiting(
    study: optuna.Study, runner: TrialRunner, at_once: int, on_trial: Callable[[TrialResult, optuna.Study], None]
) -> None:
    first: list[TrialResult] = []
    with closing(trial_results(study, runner, at_once)) as results:
        for result in results:
            on_trial(result, study)
            if len(first) == FAILURES_THAT_STOP:
                continue
            first.append(result)
            same = {(result.state, result.reason) for result in first} == {("failed", result.reason)}
            if same and len(first) == FAILURES_THAT_STOP:
                raise BdqmError(f"the first {len(first)} trials failed in the same way\n{result.error}")


def _flat(config: Config) -> dict[str, Any]:
    """The options of every group as `group.option`."""
    groups = config.model_dump(mode="json")
    return {
        f"{group}.{key}": value
        for group, options in groups.items()
        if isinstance(options, dict)
        for key, value in options.items()
    }
