"""MLflow's client side, against a server that asks for passwords, goes away, and comes back elsewhere."""

import errno
import http.server
import os
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import DBAPIError

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.client import TrackingFailed, is_passing, tracking_client
from bdqm_tune.tracking.request_queue import Sender
from bdqm_tune.tracking.tracker import Tracker, open_tracker
from tests.lost_answers import lose_answer
from tests.places import write_connection

NAMES = [f"metric_{i}" for i in range(8)]
SOON = 60.0  # seconds of patience


def log_epochs(trial: Any, epochs: range) -> None:
    for epoch in epochs:
        trial.log_metrics(dict.fromkeys(NAMES, epoch / 7), epoch)
        if epoch % 10 == 0:
            trial.flush()


def write_files(folder: Path) -> None:
    (folder / "model").mkdir()
    for name in ("model/potential.safetensors", "model/potential.json", "config.yaml", "history.csv"):
        (folder / name).write_text("something")


def trial_runs(stores: Stores, tracker: Tracker) -> list[Run]:
    parent = tracker.run.info
    return tracking_client(stores).search_runs(
        [parent.experiment_id], f"tags.mlflow.parentRunId = '{parent.run_id}'", order_by=["tags.trial_number"]
    )


@pytest.mark.endurance
def test_nothing_is_lost_or_doubled_while_the_server_is_killed_and_comes_back_elsewhere(
    served: Stores, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = open_tracker(served, "moved", SOON)
    before = server.uri
    first = tracker.start_trial(0, {"lr": 0.1}, {"trial_number": "0"}, {})
    log_epochs(first, range(1, 31))
    first.wait()
    server.stop(signal.SIGKILL)
    server.file.unlink()
    log_epochs(first, range(31, 101))
    first.finish("complete", {}, write_files)
    second = tracker.start_trial(1, {"lr": 0.2}, {"trial_number": "1"}, {})
    log_epochs(second, range(1, 101))
    second.finish("pruned", {}, write_files)
    server.start()
    assert server.uri != before
    tracker.finish("FINISHED")

    client, runs = tracking_client(served), trial_runs(served, tracker)
    assert [(run.info.run_name, run.info.status) for run in runs] == [
        ("trial-000", "FINISHED"),
        ("trial-001", "KILLED"),
    ]
    for run in runs:
        for name in NAMES:
            history = client.get_metric_history(run.info.run_id, name)
            assert sorted((metric.step, metric.value) for metric in history) == [(i, i / 7) for i in range(1, 101)]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"model", "config.yaml", "history.csv"}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"bdqm-tune: the MLflow tracking store {before} does not answer; training continues, this waits"
    assert lines[1].startswith(f"bdqm-tune: the MLflow tracking store {server.uri} answers again, after ")
    assert len(lines) == 2


def test_a_run_whose_creation_was_not_answered_is_not_made_twice(
    served: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_tracker(served, "unanswered", SOON)
    lose_answer(monkeypatch, "create_run")
    seen: list[str] = []
    trial = tracker.start_trial(0, {}, {}, {}, opened=lambda run_id: not seen.append(run_id))
    trial.finish("complete", {}, write_files)
    tracker.finish("FINISHED")
    assert [run.info.run_id for run in trial_runs(served, tracker)] == seen


@pytest.mark.endurance
def test_workers_that_start_while_the_server_restarts_wait_for_it(
    served: Stores, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before, name = server.uri, "restarted"
    server.stop(signal.SIGKILL)
    with ThreadPoolExecutor(3) as pool:
        opened = [pool.submit(open_tracker, served, name, 300.0) for _ in range(3)]
        time.sleep(3)
        assert not any(one.done() for one in opened)
        server.start()
        trackers = [one.result(120) for one in opened]
    assert len({tracker.run.info.experiment_id for tracker in trackers}) == 1
    assert len({tracker.run.info.run_id for tracker in trackers}) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [f"bdqm-tune: the MLflow tracking store {before} does not answer; waiting up to 5 min"] * 3
    assert sum("answers again" in line for line in lines) == len(lines) - 3 == 3


def test_a_study_run_whose_creation_was_not_answered_is_not_made_twice(
    served: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answer(monkeypatch, "create_run")
    run = open_tracker(served, "unanswered study", SOON).run
    (made,) = tracking_client(served).search_runs([run.info.experiment_id])
    assert made.info.run_id == run.info.run_id


def test_the_run_of_mlflow_run_is_adopted_when_the_store_answers(
    served: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking_client(served)
    given = client.create_run(client.create_experiment("of mlflow run")).info.run_id
    get, environ = MlflowClient.get_run, {"MLFLOW_RUN_ID": given}

    def fails_once(*arguments: Any) -> None:
        monkeypatch.setattr(MlflowClient, "get_run", get)
        raise MlflowException("API request failed with exception Connection refused")

    monkeypatch.setattr(MlflowClient, "get_run", fails_once)
    assert open_tracker(served, "adopts", SOON, environ).run.info.run_id == given
    assert environ == {}


@pytest.mark.parametrize(
    ("given", "hint"),
    [(True, "--patience says for how many minutes to wait"), (False, "`bdqm-tune services up` starts them")],
)
def test_who_waits_for_the_store_in_vain_is_told_what_helps(
    workdir: Path, capsys: pytest.CaptureFixture[str], given: bool, hint: str
) -> None:
    nowhere = "http://me:sesame@127.0.0.1:9"
    stores = Stores(workdir, None, nowhere if given else None, None if given else workdir / "connection.json")
    if not given:
        write_connection(stores, "sqlite:///none.db", nowhere)
    with pytest.raises(BdqmError, match=f"^cannot use the MLflow tracking store .*127.0.0.1:9: .*{hint}$") as raised:
        open_tracker(stores, "in vain", 6.0)  # the first attempt takes seconds on a busy machine
    said = capsys.readouterr().err
    assert said.count("\n") == said.count("does not answer") == said.count("waiting up to 6 s") == 1
    assert "sesame" not in said + str(raised.value)


def test_what_waiting_does_not_mend_is_told_at_once(workdir: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(BadInput, match="nonsense"):
        open_tracker(Stores(workdir, None, "nonsense://x"), "wrong", SOON)
    assert time.monotonic() - begin < SOON / 3


def test_a_certificate_that_proves_nothing_is_told_at_once(workdir: Path, mariadb: Any) -> None:
    """The certificates are of the database; it does not matter here what else the server says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(mariadb.folder / "server.pem", mariadb.folder / "server.key")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as impostor:
        impostor.socket = context.wrap_socket(impostor.socket, server_side=True)
        threading.Thread(target=impostor.serve_forever, daemon=True).start()
        stores = Stores(workdir, None, f"https://127.0.0.1:{impostor.server_port}")
        with pytest.raises(BdqmError, match="SSLCertVerificationError"):
            open_tracker(stores, "impostor", SOON)
        impostor.shutdown()


def test_a_run_that_goes_on_gets_what_it_lacks_and_nothing_twice(stores: Stores) -> None:
    """Its parameters may not have been sent before its worker was killed; the next worker may have another device."""
    tracker = open_tracker(stores, "goes on", SOON)
    first = tracker.start_trial(0, {"device": "cpu"}, {"trial_number": "0"}, {})
    log_epochs(first, range(1, 11))
    run_id = first.wait().info.run_id
    again = tracker.start_trial(0, {"device": "cuda", "lr": 0.1}, {"trial_number": "0"}, {}, run_id=run_id)
    log_epochs(again, range(1, 21))
    again.finish("complete", {}, write_files)
    tracker.finish("FINISHED")
    (run,) = trial_runs(tracker.stores, tracker)
    assert run.data.params == {"device": "cpu", "lr": "0.1"}
    history = tracking_client(tracker.stores).get_metric_history(run_id, NAMES[0])
    assert [metric.step for metric in history] == list(range(1, 21))


def test_a_worker_without_the_claim_sends_no_more_to_the_run(stores: Stores) -> None:
    """Found by random faults: a worker that had stood still sent what its successor had sent as well."""
    tracker = open_tracker(stores, "lost", SOON)
    ours = True
    run = tracker.start_trial(0, {}, {"trial_number": "0"}, {}, holds_claim=lambda: ours)
    log_epochs(run, range(1, 11))
    run_id = run.wait().info.run_id
    ours = False
    log_epochs(run, range(11, 21))
    run.finish("complete", {"reason": "none"}, write_files)
    tracker.finish("FINISHED")
    client = tracking_client(stores)
    assert [metric.step for metric in client.get_metric_history(run_id, NAMES[0])] == list(range(1, 11))
    kept = client.get_run(run_id)
    assert (kept.info.status, kept.data.tags.get("reason")) == ("RUNNING", None)
    assert not client.list_artifacts(run_id)
    assert not client.get_run(tracker.run.info.run_id).data.metrics


def test_the_claim_is_looked_at_before_every_request(stores: Stores) -> None:
    """MLflow's client makes several of more than a thousand metrics, and of several files."""
    tracker = open_tracker(stores, "lost", SOON)
    looks_left = 4  # at the run, its data sets, its parameters, the first metrics: and then it is another worker's

    def holds_claim() -> bool:
        nonlocal looks_left
        looks_left -= 1
        return looks_left >= 0

    run = tracker.start_trial(0, {}, {"trial_number": "0"}, {}, holds_claim=holds_claim)
    for epoch in range(200):
        run.log_metrics(dict.fromkeys(NAMES, epoch / 7), epoch)
    run.finish("complete", {}, write_files)
    tracker.finish("FINISHED")
    client = tracking_client(stores)
    (left,) = trial_runs(stores, tracker)
    histories = [client.get_metric_history(left.info.run_id, name) for name in NAMES]
    assert sum(map(len, histories)) == 1000
    assert not client.list_artifacts(left.info.run_id)


def test_told_to_end_at_its_end_it_sends_all_nevertheless(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, close = open_tracker(stores, "late", SOON), Sender.close
    run = tracker.start_trial(0, {}, {"trial_number": "0"}, {})

    def interrupted(self: Sender) -> None:
        monkeypatch.setattr(Sender, "close", close)
        raise KeyboardInterrupt

    monkeypatch.setattr(Sender, "close", interrupted)
    run.finish("complete", {}, write_files)
    assert tracker.finish("FINISHED")
    (sent,) = trial_runs(stores, tracker)
    assert sent.info.status == "FINISHED"
    assert tracking_client(stores).get_run(tracker.run.info.run_id).info.status == "FINISHED"


def test_who_has_lost_a_trial_opens_no_run_of_it(stores: Stores) -> None:
    tracker = open_tracker(stores, "lost", SOON)
    ours = tracker.start_trial(0, {}, {"trial_number": "0"}, {})
    ours.finish("complete", {}, write_files)
    run_id = ours.wait().info.run_id
    client = tracking_client(stores)
    before = client.get_run(run_id)
    for again in (None, run_id):
        lost = tracker.start_trial(0, {}, {"trial_number": "0"}, {}, run_id=again, holds_claim=lambda: False)
        log_epochs(lost, range(1, 3))
        lost.finish("complete", {}, write_files)
    tracker.finish("FINISHED")
    assert [run.to_dictionary() for run in trial_runs(stores, tracker)] == [before.to_dictionary()]


def test_a_run_that_was_made_too_late_goes(stores: Stores) -> None:
    """Its trial became another worker's while MLflow made it."""
    tracker = open_tracker(stores, "late", SOON)
    ours, made = True, list[str]()

    def opened(run_id: str) -> bool:
        nonlocal ours
        made.append(run_id)
        ours = False
        return ours

    late = tracker.start_trial(0, {}, {"trial_number": "0"}, {}, opened=opened, holds_claim=lambda: ours)
    late.finish("complete", {}, write_files)
    tracker.finish("FINISHED")
    assert len(made) == 1
    assert trial_runs(stores, tracker) == []


def test_a_password_that_is_not_accepted_fails_at_once(served: Stores, server: Any) -> None:
    tracker = open_tracker(served, "password", SOON)
    server.write_connection(password="another one")
    start = time.monotonic()
    tracker.start_trial(0, {}, {}, {})
    with pytest.raises(TrackingFailed, match="does not accept the user name and password.*MLFLOW_TRACKING_PASSWORD"):
        tracker.finish("FINISHED")
    assert time.monotonic() - start < 5
    with pytest.raises(TrackingFailed):
        tracker.start_trial(1, {}, {}, {})


def test_a_trial_costs_at_most_15_requests(
    served: Stores, configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bdqm_tune.learning.dataset import prepare
    from bdqm_tune.tuning.tune import tune

    sent: list[str] = []
    send = requests.Session.send

    def counted(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        sent.append(f"{request.method} {request.path_url.split('?')[0]}")
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", counted)
    config = configure(
        training={"epochs": 100, "early_stopping": None}, study={"name": "counted", "n_trials": 3, "pruner": "none"}
    )
    tune(prepare(config, served.home), config, served)
    of_the_study = 7  # the experiment is looked for and made; its run, what it holds, and its end
    print("\n".join(sent))
    assert len(sent) <= 3 * 15 + of_the_study, "\n".join(sent)
    assert Counter(sent)["POST /api/2.0/mlflow/runs/create"] == 4


def sender_that_fails(patience: float, error: Exception) -> tuple[Sender, list[float]]:
    attempts: list[float] = []

    def connect() -> MlflowClient:
        attempts.append(time.monotonic())
        raise error

    return Sender(connect, patience), attempts


def test_patience_has_an_end(workdir: Path) -> None:
    sender, attempts = sender_that_fails(1.5, MlflowException("Connection refused"))
    sender.send(lambda client: None)
    with pytest.raises(TrackingFailed, match="Connection refused"):
        sender.close()
    assert 1.4 < attempts[-1] - attempts[0] < 3
    assert len(attempts) >= 3
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_an_interrupted_process_does_not_wait_long(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bdqm_tune.tracking.request_queue.HURRY", 0.5)
    sender, _ = sender_that_fails(1800.0, MlflowException("Connection refused"))
    sender.send(lambda client: None)
    time.sleep(1.0)  # it waits for its next attempt
    start = time.monotonic()
    sender.hurry()
    with pytest.raises(TrackingFailed):
        sender.close()
    assert time.monotonic() - start < 2

    stuck = threading.Event()
    sender = Sender(lambda: MlflowClient(f"sqlite:///{workdir}/none.db"), 1800.0)
    sender.send(lambda client: stuck.wait(20))
    sender.hurry()
    with pytest.raises(TrackingFailed, match="does not answer"):
        sender.close()
    stuck.set()


def http_error(status: int, text: str = "") -> Exception:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(text, response=response)


def cannot_open(error: Exception) -> BdqmError:
    """What `tracking_client` raises where MLflow's database is named itself."""
    failed = BdqmError("MLflow cannot use the tracking store")
    failed.__cause__ = DBAPIError("", {}, error)
    return failed


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (MlflowException("API request failed with exception Connection refused"), True),
        (MlflowException("QueuePool limit of size 5 overflow 10 reached", error_code=BAD_REQUEST), True),
        (MlflowException("Invalid value", error_code=BAD_REQUEST), False),
        (http_error(503), True),
        (http_error(429), True),
        (http_error(404), False),
        (http_error(403), False),
        (requests.ConnectionError("refused"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("wrong"), False),
        (BdqmError("the servers are down"), True),
        (BadInput("no address"), False),
        (cannot_open(pymysql.OperationalError(2003, "no server")), True),
        (cannot_open(pymysql.OperationalError(1226, "exceeded")), True),
        (cannot_open(pymysql.OperationalError(1045, "access denied")), False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(error: Exception, passing: bool) -> None:
    assert is_passing(error) == passing
