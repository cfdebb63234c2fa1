"""MLflow: a run for the study, and one for every trial under it; requests go out off the training loop."""

import json
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.experiment.patience import duration
from bdqm_tune.experiment.sender import Request, Sender, one_attempt_each, repeated
from bdqm_tune.experiment.tracking_client import TrackingFailed, is_certificate, is_passing, reason, tracking_client
from bdqm_tune.experiment.trial_run import Opening, TrialRun
from bdqm_tune.learning.dataset import Split
from bdqm_tune.progress import check, told_to_end
from bdqm_tune.services.connection import Stores, without_password
from bdqm_tune.services.secrets import without_secrets

LONGEST_PARAMETER = 6000
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # as in luminous-shad-146, which MLflow gives a run without a name
CREATION = "creation_id"  # tag by which a run is found whose creation was not answered


class Tracker:
    """The study's run, and the way to the runs of its trials.

    Args:
        run: the study's.
        adopted: it is that of `mlflow run`, which ends it.
        patience: seconds that the tracking store may be away.
    """

    def __init__(self, stores: Stores, run: Run, adopted: bool, patience: float) -> None:
        self.stores, self.run = stores, run
        self._adopted = adopted
        self._context = context_tags()
        self._sender = Sender(lambda: tracking_client(stores), patience)

    def log_study(self, parameters: Mapping[str, Any], tags: Mapping[str, str], config: str) -> None:
        """Record the study's configuration in its run."""
        run_id = self.run.info.run_id
        items = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in parameters.items()]
        run_tags = [RunTag(key, value) for key, value in tags.items()]
        # More than one request takes is divided by the client.
        self.send(lambda client: client.log_batch(run_id, params=items, tags=run_tags))
        self.upload(lambda: self.run, lambda folder: (folder / "config.yaml").write_text(config, encoding="utf-8"))

    def start_trial(
        self,
        number: int,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        splits: Mapping[str, Split],
        run_id: str | None = None,
        opened: Callable[[str], None] = lambda run_id: None,
        name: str = "",
    ) -> TrialRun:
        """Open the run of a trial, or that of `run_id` again for a trial that was handed back.

        Args:
            opened: called with the id of a run that is made, as soon as it is known, in the thread that sends.
            name: of the run; empty: trial-NNN.
        """
        opening = Opening(
            number,
            name or f"trial-{number:03d}",
            {key: str(value) for key, value in parameters.items()},
            self._context | dict(tags) | {"trial_state": "running", MLFLOW_PARENT_RUN_ID: self.run.info.run_id},
            [_described(name, split) for name, split in splits.items()],
            uuid.uuid4().hex,
        )
        return self.open_run(opening, run_id, opened)

    def open_run(
        self, opening: Opening, run_id: str | None, opened: Callable[[str], None], tried: bool = False
    ) -> TrialRun:
        """As `start_trial`.

        Args:
            tried: another process may have made the run before.
        """
        creation, logged = _Creation(opening.name, opening.tags, opening.creation, tried), dict[str, int]()

        def make(client: MlflowClient) -> Run:
            run = creation.run(client, self.run.info.experiment_id)
            opened(run.info.run_id)
            return run

        def reopen(client: MlflowClient) -> Run:
            run = client.get_run(run_id) if run_id else make(client)
            client.update_run(run.info.run_id, status="RUNNING")
            for name in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, name)
                logged[name] = max(metric.step for metric in history)
            return run

        trial = TrialRun(self, self.send(reopen if run_id or tried else make), opening, logged)
        inputs = [_dataset_input(described) for described in opening.inputs]
        trial.send(lambda client, run_id: client.log_inputs(run_id, datasets=inputs))
        return trial

    def hurry(self) -> None:
        """Wait for the store no longer than a process may that was told to end."""
        self._sender.hurry()

    def finish(self, status: str, interrupted: bool = False) -> None:
        """Wait until everything is sent, and end the study's run unless `mlflow run` does.

        Args:
            status: FINISHED, FAILED or KILLED.
            interrupted: not to wait long.
        """
        if interrupted:
            self.hurry()
        try:
            if not self._adopted or status == "KILLED":  # of what killed us, `mlflow run` may have died before
                self.send(lambda client: client.set_terminated(self.run.info.run_id, status=status))
            self._sender.close()
        except TrackingFailed as error:
            if not interrupted:
                raise
            print(f"warning: {error}", file=sys.stderr, flush=True)

    def send(self, request: Request) -> Future[Any]:
        """Send a request that may be repeated, after those before it. Raises TrackingFailed if one of them failed."""
        return self._sender.send(request)

    def upload(self, run: Callable[[], Run], write: Callable[[Path], Any]) -> None:
        """Send the files that `write` puts into the folder it is given; which run gets them may be known later.

        Raises:
            TrackingFailed: they cannot be written, for want of space for example; or something before cannot be sent.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="bdqm-")
            write(Path(folder.name))
        except OSError as error:
            where = f"{tempfile.gettempdir()} (TMPDIR names another folder)"
            raise TrackingFailed(f"artifacts cannot be written to {where}: {error.strerror or error}") from error

        def request(client: MlflowClient) -> None:
            # The client would ask for the run first, and go on using the address that its server had then.
            get_artifact_repository(run().info.artifact_uri, client.tracking_uri).log_artifacts(folder.name)
            folder.cleanup()

        if any(Path(folder.name).iterdir()):
            self.send(request)

    def wait(self, request: Future[Any]) -> Any:
        """The answer to a request. Raises TrackingFailed if there is none."""
        try:
            return request.result(self._sender.seconds_left)
        except TimeoutError:
            raise TrackingFailed("the MLflow tracking store does not answer") from None


def open_tracker(
    stores: Stores,
    study: str,
    patience: float,
    environ: MutableMapping[str, str] = os.environ,
    alone: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tracker:
    """Adopt the run that `mlflow run` made for this process, or make one in an experiment named like the study.

    Args:
        patience: seconds that the tracking store may be away, now and later on.
        alone: lets one process at a time make the tables of a store that is no server.

    Raises:
        BdqmError: the tracking store stays away, or refuses.
        BadInput: the experiment was deleted.
    """
    if stores.tracking_uri is None:  # MLflow's own default is another one in another working directory
        stores = replace(stores, tracking=mlflow.get_tracking_uri())
    creation = _Creation(study, context_tags(), uuid.uuid4().hex)

    def attempt() -> tuple[Run, bool]:
        with nullcontext() if (stores.tracking_uri or "").startswith("http") else alone():
            client = tracking_client(stores)
            adopted = adopt_run(client, study, environ)
            return adopted or creation.run(client, _experiment(client, study)), adopted is not None

    try:
        with one_attempt_each():
            run, adopted = repeated(
                attempt,
                patience,
                lambda: f"the MLflow tracking store {_where(stores)}",
                f"waiting {duration(patience)}",
                pause=_pause,
                passes=lambda error: is_passing(error) and not is_certificate(error),
            )
    except (MlflowException, OSError) as error:
        hint = f"; {_what_to_do(stores)}" if is_passing(error) and not is_certificate(error) else ""
        raise BdqmError(f"cannot use the MLflow tracking store {_where(stores)}: {reason(error)}{hint}") from None
    return Tracker(stores, run, adopted, patience)


def _where(stores: Stores) -> str:
    """The tracking store's address without a password; "" while its servers are down."""
    try:
        return without_password(stores.tracking_uri or "")
    except BdqmError:
        return ""


def _what_to_do(stores: Stores) -> str:
    """What helps where the tracking store does not answer."""
    if stores.tracking is None:
        return "`bdqm-tune services status` says how the servers are, `bdqm-tune services up` starts them"
    return "see that it runs and that MLFLOW_TRACKING_URI names it; --patience says for how many minutes to wait"


def _pause(seconds: float) -> None:
    told_to_end.wait(seconds)
    check()


def adopt_run(client: MlflowClient, name: str, environ: MutableMapping[str, str] = os.environ) -> Run | None:
    """The run that `mlflow run` made for this process, named `name` unless the user named it; None if there is none."""
    run_id = environ.get("MLFLOW_RUN_ID")
    if run_id is None:
        return None
    run = client.get_run(run_id)
    if GENERATED_NAME.fullmatch(run.info.run_name or ""):
        client.update_run(run_id, name=name)
    # Left in the environment, MLflow would let it override the parent of every run that is made here.
    del environ["MLFLOW_RUN_ID"]
    return run


def context_tags() -> dict[str, str]:
    """What MLflow finds out about this process: user, source, commit; without the passwords of its URLs."""
    return {name: without_secrets(str(value)) for name, value in resolve_tags().items()}


def _experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment of that name, which is made if there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # which another worker made meanwhile
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise BadInput(
            f"the MLflow experiment {name!r} is deleted; restore it with "
            f"'mlflow experiments restore -x {experiment.experiment_id}', or choose another name with --study"
        )
    return str(experiment.experiment_id)


class _Creation:
    """A run to be made; asked again, as the answer got lost, it is the run that was made before.

    Args:
        identity: of the creation, which stands in a tag.
        tried: another process may have made the run before.
    """

    def __init__(self, name: str, tags: Mapping[str, str], identity: str, tried: bool = False) -> None:
        self._name, self._tags, self._identity, self._tried = name, {**tags, CREATION: identity}, identity, tried
        self._start = get_current_time_millis()

    def run(self, client: MlflowClient, experiment_id: str) -> Run:
        if self._tried and (found := client.search_runs([experiment_id], f"tags.{CREATION} = '{self._identity}'")):
            return found[0]
        self._tried = True
        return client.create_run(experiment_id, self._start, self._tags, self._name)


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


def _dataset_input(described: Mapping[str, str]) -> DatasetInput:
    options = {key: value for key, value in described.items() if key != "context"}
    return DatasetInput(
        MlflowDataset(source_type="local", **options), [InputTag("mlflow.data.context", described["context"])]
    )
