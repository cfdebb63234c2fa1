"""Telling the stores, now that they are back, of the trials that workers kept in their journals."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import mlflow
import optuna
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.storage.cache import Cache
from bdqm_tune.storage.database import not_made_yet, opened
from bdqm_tune.storage.queries import Held
from bdqm_tune.study.checkpoints import TrialCheckpoint, checkpoint_folder
from bdqm_tune.study.objectives import objectives_of
from bdqm_tune.study.study import IDENTITY, RUN_ID, SIGNATURE, certainly_holds_claim, handed_back, keep_run_id
from bdqm_tune.study.trial_result import TrialResult, tell
from bdqm_tune.tracking.client import http_status, reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.tracker import Tracker, open_tracker
from bdqm_tune.tracking.trial_run import Opening
from bdqm_tune.workers.heartbeat import Heartbeat
from bdqm_tune.workers.outbox import DAMAGED, SUFFIX, Content, EndedTrial, outbox_folder, taken
from bdqm_tune.workers.registry import describe_process
from bdqm_tune.workers.run_cleanup import follow_run

PATIENCE = 10.0  # seconds: a command has other things to do


def deliver_outboxes(stores: Stores) -> Iterator[str]:
    """Send what is in the journals of workers that are no more; a line for each says what became of it."""
    quiet_libraries()
    for path in sorted(outbox_folder(stores.home).glob(f"*{SUFFIX}")):
        with taken(path) as content:
            if content is not None:
                yield from _send(stores, path, content)


def _send(stores: Stores, path: Path, content: Content) -> Iterator[str]:
    left = 0
    if content.trials:
        study, n = content.trials[0].study, len(content.trials)
        try:
            sent, left = _tell_of(stores, content.trials)
        except (BdqmError, MlflowException, StorageInternalError, OSError) as error:
            yield f"{path}: {n} trials of the study {study!r} that have ended cannot be sent yet: {reason(error)}"
            return
        if sent:
            yield f"sent {sent} trials of the study {study!r} that had ended while its stores were away"
    if content.damaged:
        lines = ", ".join(map(str, content.damaged))
        kept = path.with_name(f"{path.name}{DAMAGED}")
        yield f"{path}: damaged in lines {lines}, which are not used: these trials are run again; moved to {kept.name}"
        path.rename(kept)
    elif not left:
        path.unlink()


def _tell_of(stores: Stores, trials: list[EndedTrial]) -> tuple[int, int]:
    """Tell both stores of the trials of one worker; the numbers of those sent, and of those others run at the moment.

    A trial is taken first, as a worker takes it: of it and of those that run the trial again, one tells the study.
    """
    if stores.tracking_uri is None:
        stores = replace(stores, tracking=mlflow.get_tracking_uri())
    missing = BdqmError("this database does not have it; BDQM_STORAGE names another")
    if not_made_yet(stores):
        raise missing
    with opened(stores) as storage:
        if trials[0].study not in optuna.get_all_study_names(storage):
            raise missing
        study = optuna.load_study(study_name=trials[0].study, storage=storage, sampler=optuna.samplers.RandomSampler())
        if study.user_attrs.get(IDENTITY) != trials[0].identity:
            raise missing
        trials = [one for one in trials if not storage.backend.get_trial(one.trial_id).state.is_finished()]
        if not trials:  # they were told of, or run again
            return 0, 0
        tracker = _tracker_of(stores, study, trials[0].parent)
        description = describe_process() | {"run_id": tracker.run.info.run_id}
        with ExitStack() as stack:
            lease = stack.enter_context(closing(Heartbeat(storage.backend, id_of(study), description)))
            follow_run(tracker, study, lease)
            mine = [one for one in trials if _take(storage, id_of(study), one)]
            for one in mine:
                stack.enter_context(handed_back(optuna.Trial(study, one.trial_id)))
            lease.start()  # which looks for trials of workers that are gone: not for these any more
            for one in mine:
                _tell(stores, study, tracker, one)
            status = tracker.run.info.status
            tracker.finish("FAILED" if status == "RUNNING" else status)
        running = [one for one in trials if storage.backend.get_trial(one.trial_id).state == TrialState.RUNNING]
    return len(mine), len(running)


def _tracker_of(stores: Stores, study: optuna.Study, run_id: str) -> Tracker:
    """The way to a worker's run, or to another one where that was removed from MLflow."""
    try:
        return Tracker(stores, study.study_name, tracking_client(stores).get_run(run_id), False, PATIENCE)
    except MlflowException as error:
        if http_status(error) != 404:
            raise
    tracker = open_tracker(stores, study.study_name, PATIENCE, environ={}, restore=True)
    tags = [RunTag("study", study.study_name), RunTag("kind", "study")]
    tracker.study.send(lambda client, run: client.log_batch(run.info.run_id, tags=tags))
    return tracker


def _take(storage: Cache, study_id: int, ended: EndedTrial) -> bool:
    """Take the trial if nobody has run it since: it is as its worker left it, or waits."""
    storage.backend.requeue(Held(ended.trial_id, ended.mark), TrialState.WAITING, {})
    return storage.take(study_id, ended.trial_id)


def _tell(stores: Stores, study: optuna.Study, tracker: Tracker, ended: EndedTrial) -> None:
    trial = optuna.Trial(study, ended.trial_id)
    result = TrialResult(**ended.result)
    checkpoint = TrialCheckpoint(checkpoint_folder(stores.home, study.study_name, study.user_attrs), trial.number)

    def let_know(client: MlflowClient) -> None:
        tell(trial, result, objectives_of(study.user_attrs[SIGNATURE]), checkpoint, dict(ended.reports))

    opening = Opening(**ended.opening)
    if opening.started is None:
        opening = replace(opening, started=min((moment for _, moment, _ in ended.metrics), default=ended.ended))
    run = tracker.open_run(
        opening,
        trial.user_attrs.get(RUN_ID),
        lambda run_id: keep_run_id(trial, run_id),
        lambda: certainly_holds_claim(trial),
        tried=True,
    )
    run.metrics += ended.metrics
    run.finish(result.state, ended.tags, ended.write_files, ended.best, ended.ended)
    tracker.wait(tracker.send(let_know))
