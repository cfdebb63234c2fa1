"""MLflow: a run for the study, and one for every trial under it; requests go out off the training loop."""

import json
import os
import socket
import sys
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LifecycleStage, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from bdqm_tune.errors import BdqmError, is_disk_full
from bdqm_tune.learning.dataset import Split
from bdqm_tune.process import process_identity
from bdqm_tune.progress import check, told_to_end
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.retry import duration
from bdqm_tune.tracking.client import (
    TrackingFailed,
    http_status,
    is_certificate,
    is_passing,
    reason,
    tracking_client,
)
from bdqm_tune.tracking.experiments import REPLACES, experiment_of, restore_experiment
from bdqm_tune.tracking.given import CREATION, adopted_run, chosen_experiment, given_run, parent_tag
from bdqm_tune.tracking.recoverable_run import RecoverableRun, active_run, say
from bdqm_tune.tracking.request_queue import Request, Sender, one_attempt_each, with_retries
from bdqm_tune.tracking.search import search, tracking_not_made_yet
from bdqm_tune.tracking.trial_run import Opening, TrialRun

LONGEST_PARAMETER = 6000
PROCESS = "worker_process"  # tag of a worker's run: its process, to find out whether it has ended
STUDY_RUN = "study_run_id"  # tag of a run of `mlflow run` in another experiment than the study: the worker's run there

Creation = Callable[[MlflowClient, Mapping[str, str]], Run]  # makes a run with these tags beside its own


class Tracker:
    """The study's run, and the way to the runs of its trials.

    Args:
        study: name of the study.
        run: the study's.
        adopted: it is that of `mlflow run`, which ends it.
        retry_timeout: seconds for which a request is retried while the tracking store is away.
    """

    def __init__(self, stores: Stores, study: str, run: Run, adopted: bool, retry_timeout: float) -> None:
        self.stores = stores
        self._name, self._adopted = study, adopted
        self._context = context_tags()
        self._sender = Sender(lambda: tracking_client(stores), retry_timeout)
        self._experiment_id = run.info.experiment_id
        self.study = RecoverableRun(self.send, run, self._renew_study)
        self.on_renewed: Callable[[Run], None] = lambda run: None  # called with the run that follows a deleted study's

    @property
    def run(self) -> Run:
        """The study's run, as it was when it was opened."""
        return self.study.run

    def log_study(self, parameters: Mapping[str, Any], tags: Mapping[str, str], config: str) -> None:
        """Record the study's configuration in its run."""
        items = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in parameters.items()]
        run_tags = [RunTag(key, value) for key, value in tags.items()]
        # More than one request takes is divided by the client.
        self.study.send(lambda client, run: client.log_batch(run.info.run_id, params=items, tags=run_tags))
        self.study.upload(lambda folder: (folder / "config.yaml").write_text(config, encoding="utf-8"))

    def start_trial(
        self,
        number: int,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        splits: Mapping[str, Split],
        run_id: str | None = None,
        opened: Callable[[str], bool] = lambda run_id: True,
        holds_claim: Callable[[], bool] = lambda: True,
        name: str = "",
    ) -> TrialRun:
        """Open the run of a trial, or resume that of `run_id` for a trial that was requeued.

        Args:
            opened: called with the id of a new run as soon as it is known, in the thread that sends; returns whether
                we still hold the trial's claim, as the run is removed otherwise.
            holds_claim: whether this process may still log to the run; called in that thread, too.
            name: of the run; empty: trial-NNN.
        """
        opening = Opening(
            number,
            name or f"trial-{number:03d}",
            {key: str(value) for key, value in parameters.items()},
            self._context | dict(tags) | {"trial_state": "running"},
            [_described(name, split) for name, split in splits.items()],
            uuid.uuid4().hex,
            get_current_time_millis(),
        )
        make, logged = self._creation(opening, opened), dict[str, int]()

        def open_(client: MlflowClient) -> Run:
            if run_id:
                run = active_run(client, run_id) or self._instead(client, run_id, make)
            else:
                run = make(client, {})
            if run_id and holds_claim():
                client.update_run(run.info.run_id, status="RUNNING")
                for name in run.data.metrics:
                    history = client.get_metric_history(run.info.run_id, name)
                    logged[name] = max(metric.step for metric in history)
            return run

        def renew(deleted: Run, opening: Opening) -> Callable[[MlflowClient], Run]:
            again = self._creation(opening, opened)
            return lambda client: self._instead(client, deleted.info.run_id, again)

        return TrialRun(self, opening, open_, renew, logged, holds_claim)

    def hurry(self) -> None:
        """Shorten the retry timeout to that of an interrupted process."""
        self._sender.hurry()

    def finish(self, status: str, interrupted: bool = False) -> bool:
        """Wait until everything is sent, and end the study's run unless `mlflow run` does; True if all was sent.

        An interruption makes it hurry, and has no other effect: there is nothing else left to interrupt.

        Args:
            status: FINISHED, FAILED or KILLED.
            interrupted: do not wait long.

        Raises:
            TrackingFailed: it was not, though there was time.
        """

        def end(client: MlflowClient, run: Run) -> None:
            if not self._adopted or status == "KILLED":  # of what killed us, `mlflow run` may have died before
                client.set_terminated(run.info.run_id, status=status)
            else:  # it may go on for long, as that of a pipeline: nobody shall end it because this process is gone
                client.set_tag(run.info.run_id, PROCESS, "")

        if interrupted:
            self.hurry()
        try:
            self.study.send(end)
            try:
                self._sender.close()
            except KeyboardInterrupt:
                interrupted = True
                self.hurry()
                self._sender.close()
        except TrackingFailed as error:
            if not interrupted:
                raise
            print(f"warning: {error}", file=sys.stderr, flush=True)
            return False
        finally:
            self.study.clean()
        return True

    def send(self, request: Request) -> Future[Any]:
        """Send an idempotent request after those before it. Raises TrackingFailed if one of them failed."""
        return self._sender.send(request)

    def wait(self, request: Future[Any]) -> Any:
        """The answer to a request. Raises TrackingFailed if there is none."""
        try:
            return request.result(self._sender.seconds_left)
        except TimeoutError:
            raise TrackingFailed("the MLflow tracking store does not answer") from None

    def _creation(self, opening: Opening, opened: Callable[[str], bool]) -> Creation:
        """Returns a function that creates the run of a trial."""
        create = self._creating(opening.name, opening.creation, opening.started)

        def make(client: MlflowClient, tags: Mapping[str, str]) -> Run:
            parent = {MLFLOW_PARENT_RUN_ID: self.run.info.run_id}
            run = create(client, {**opening.tags, **parent, **tags})
            if not opened(run.info.run_id):
                client.delete_run(run.info.run_id)
            return run

        return make

    def _renew_study(self, deleted: Run) -> Callable[[MlflowClient], Run]:
        """Returns a function that creates a run in place of the study's."""
        create = self._creating(str(deleted.info.run_name), uuid.uuid4().hex, deleted.info.start_time)

        def make(client: MlflowClient, tags: Mapping[str, str]) -> Run:
            before, new = deleted.info.run_id, create(client, {**deleted.data.tags, **tags})
            run_id = new.info.run_id
            client.log_batch(run_id, params=[Param(key, value) for key, value in deleted.data.params.items()])
            for child in search(client, f"tags.{MLFLOW_PARENT_RUN_ID} = '{before}'", [self._experiment_id]):
                client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, run_id)
            self._adopted = False  # for `mlflow run` does not know of it
            self.on_renewed(new)
            return new

        return lambda client: self._instead(client, deleted.info.run_id, make)

    def _instead(self, client: MlflowClient, run_id: str, make: Creation) -> Run:
        """A run in place of a deleted one; or the same, where it was deleted with its experiment, which is restored."""
        if self._restore_experiment(client) and (restored := active_run(client, run_id)) is not None:
            return restored
        run = make(client, {REPLACES: run_id})
        name, new_id = run.info.run_name, run.info.run_id
        say(f"the run {name} was deleted in MLflow ({run_id}); another one takes its place: {new_id}")
        return run

    def _creating(self, name: str, creation_id: str, started: int | None) -> Creation:
        """Returns an idempotent function that creates a run: after a lost answer, it finds the run that it created."""
        creation = _Creation(name, creation_id, started)

        def create(client: MlflowClient, tags: Mapping[str, str]) -> Run:
            try:
                return creation.run(client, self._experiment_id, tags)
            except MlflowException as error:
                if http_status(error) in (400, 404) and not is_passing(error) and self._restore_experiment(client):
                    return creation.run(client, self._experiment_id, tags)
                raise

        return create

    def _restore_experiment(self, client: MlflowClient) -> bool:
        """Restore the study's experiment, or create another one if it was removed for good; True if that was needed.

        Runs that were replaced stay deleted.
        """
        try:
            experiment = client.get_experiment(self._experiment_id)
        except MlflowException as error:
            if http_status(error) != 404:
                raise
            self._experiment_id = experiment_of(client, self._name, restore=True)
            say(f"the study's experiment was removed from MLflow; its runs go to another one: {self._experiment_id}")
            return True
        if experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            return False
        restore_experiment(client, experiment)
        return True


def open_tracker(
    stores: Stores,
    study: str,
    retry_timeout: float,
    environ: MutableMapping[str, str] = os.environ,
    restore: bool = False,
    alone: Callable[[], AbstractContextManager[Any]] = nullcontext,
    experiment_id: str = "",
) -> Tracker:
    """Adopt the run that `mlflow run` made for this process, or make one.

    A study stays in its experiment. A new one is in that of the run that MLFLOW_RUN_ID names, else in the one that
    MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names, else in one named like the study. A run that is given and not
    adopted is the parent of the one that is made.

    Args:
        retry_timeout: seconds for which a request is retried while the tracking store is away, now and later on.
        restore: restore the experiment if it was deleted.
        alone: lets one process at a time create the store, where that is a file which does not exist.
        experiment_id: that the study has; "": a new study.

    Raises:
        BdqmError: the tracking store stays away, or refuses.
        BadInput: the experiment was deleted, and is not to be restored; or one of MLflow's variables names nothing.
    """
    if stores.tracking_uri is None:  # MLflow's own default is another one in another working directory
        stores = replace(stores, tracking=mlflow.get_tracking_uri())
    creation, given, chosen = _Creation(study, uuid.uuid4().hex), None, ""
    tags = {"study": study, "kind": "study", "host": socket.gethostname(), PROCESS: process_identity()}

    def attempt() -> tuple[Run, bool]:
        nonlocal given, chosen
        with alone() if tracking_not_made_yet(stores) else nullcontext():
            client = tracking_client(stores)
            given = given or given_run(client, environ)
            chosen = chosen or chosen_experiment(client, study, experiment_id, given, environ, restore)
            if adopted := adopted_run(client, given, chosen, study, creation.identity):
                creating = {**tags, CREATION: creation.identity}
                client.log_batch(adopted.info.run_id, tags=[RunTag(key, value) for key, value in creating.items()])
                return adopted, True
            run = creation.run(client, chosen, context_tags() | tags | parent_tag(given))
            if given is not None and given.info.experiment_id != chosen:
                client.set_tag(given.info.run_id, STUDY_RUN, run.info.run_id)
            return run, False

    try:
        with one_attempt_each():
            run, adopted = with_retries(
                attempt,
                retry_timeout,
                lambda: f"the MLflow tracking store {_where(stores)}",
                f"waiting {duration(retry_timeout)}",
                pause=_pause,
                passes=lambda error: is_passing(error) and not is_certificate(error),
            )
    except (MlflowException, OSError) as error:
        hint = f"; {_what_to_do(stores, error)}" if is_passing(error) and not is_certificate(error) else ""
        raise BdqmError(f"cannot use the MLflow tracking store {_where(stores)}: {reason(error)}{hint}") from None
    return Tracker(stores, study, run, adopted, retry_timeout)


def _where(stores: Stores) -> str:
    """The tracking store's address without a password; "" while its servers are down."""
    try:
        return without_secrets(stores.tracking_uri or "")
    except BdqmError:
        return ""


def _what_to_do(stores: Stores, error: Exception) -> str:
    """What helps where the tracking store does not answer."""
    if is_disk_full(error):
        return "make room, and start the same command again"
    if stores.tracking is None:
        return "`bdqm-tune services status` says how the servers are, `bdqm-tune services up` starts them"
    return "see that it runs and that MLFLOW_TRACKING_URI names it; --patience says for how many minutes to wait"


def _pause(seconds: float) -> None:
    told_to_end.wait(seconds)
    check()


def context_tags() -> dict[str, str]:
    """What MLflow finds out about this process: user, source, commit; without the passwords of its URLs."""
    return {name: without_secrets(str(value)) for name, value in resolve_tags().items()}


class _Creation:
    """The creation of a run, which is idempotent: a retry after a lost answer returns the run of the first attempt.

    Args:
        identity: of the creation, stored in a tag.
        started: in milliseconds since 1970; None: now.
    """

    def __init__(self, name: str, identity: str, started: int | None = None) -> None:
        self._name, self.identity, self._tried = name, identity, False
        self._started = started or get_current_time_millis()

    def run(self, client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Run:
        if self._tried and (existing := client.search_runs([experiment_id], f"tags.{CREATION} = '{self.identity}'")):
            return existing[0]
        self._tried = True
        return client.create_run(experiment_id, self._started, {**tags, CREATION: self.identity}, self._name)


def _described(context: str, split: Split) -> dict[str, str]:
    described = split.describe()
    source = described.pop("source")
    return {
        "name": Path(source).name,
        "digest": split.digest[:32],  # MLflow takes 36 characters
        "source": json.dumps({"uri": source}),
        "profile": json.dumps(described),
        "context": context,
    }
