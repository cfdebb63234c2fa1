"""Trials that end while the stores are away: kept on the disk, sent by the next command, and nothing twice."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.samplers import rungs
from bdqm_tune.study.study import LOSSES, RUN_ID, load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.trial_run import TrialRun
from bdqm_tune.tuning import trial as trials
from bdqm_tune.tuning.tune import tune
from bdqm_tune.workers.outbox import EndedTrial, Outbox, line, outbox_folder, read_outbox, taken
from bdqm_tune.workers.outbox_delivery import deliver_outboxes
from tests.commands import Call
from tests.forked import run
from tests.mariadb import MariaDb
from tests.places import write_connection
from tests.whole import assert_once

EPOCHS = 9
SENT = "sent 1 trials of the study 'small' that had ended while its stores were away"


def ended(number: int) -> EndedTrial:
    opening = {"number": number, "parameters": {"lr": "0.1"}}
    metrics = [({"val_energy_mae": 0.1, "lr": 1e-3}, 1, 1)]
    files, result = {"model/potential.json": "e30="}, {"state": "complete"}
    mark, reports = f"w:{number}", [(1, 0.5)]
    return EndedTrial("s", "id", number, mark, "run", opening, metrics, {}, {}, 2, files, result, reports)


def files(stores: Stores) -> list[Path]:
    return sorted(outbox_folder(stores.home).glob("*"))


def test_what_is_told_of_is_forgotten_and_the_rest_stays(tmp_path: Path) -> None:
    journal = Outbox(tmp_path)
    journal.add(ended(0))
    journal.add(ended(1))
    journal.told("w:0")
    journal.told("w:2")
    journal.add(ended(2))  # of which the study was told meanwhile
    assert journal.close() == 1
    with taken(journal.path) as content:
        assert content is not None
        assert [trial.trial_id for trial in content.trials] == [0, 1]
    other = Outbox(tmp_path / "other")
    other.add(ended(0))
    assert other.path.exists()
    other.told("w:0")
    assert other.close() == 0
    assert not other.path.exists()


def test_one_process_has_it(tmp_path: Path) -> None:
    journal = Outbox(tmp_path)
    journal.add(ended(0))
    look = f"""
from pathlib import Path
from bdqm_tune.workers.outbox import taken
with taken(Path({str(journal.path)!r})) as content:
    print(content is None)
"""
    seen = []
    for _ in range(2):
        done = run(["-c", look])
        assert done.returncode == 0, done.stderr
        seen.append(done.stdout)
        journal.close()
    assert seen == ["True\n", "False\n"]
    with taken(journal.path) as first, taken(journal.path) as second:
        assert first is not None
        assert second is None


def test_every_cut_and_every_bit_that_flips_is_noticed() -> None:
    written = [ended(number) for number in range(3)]
    content = b"".join(map(line, written))
    ends = [len(b"".join(map(line, written[:n]))) for n in range(4)]
    for cut in range(len(content)):
        whole = sum(cut >= end - 1 for end in ends[1:])  # the newline at its end says nothing
        found = read_outbox(content[:cut])
        assert found.trials == written[:whole]
        assert len(found.damaged) == (0 if cut in ends or cut + 1 in ends else 1)
    random = Random(0)
    for place in random.sample(range(len(content)), 400):
        changed = bytearray(content)
        changed[place] ^= 1 << random.randrange(8)
        found = read_outbox(bytes(changed))
        assert all(trial in written for trial in found.trials)
        # A newline that is none any more makes one line of two; the last of all is not needed.
        lost = 0 if place == len(content) - 1 and len(found.trials) == 3 else 2 if content[place] == 10 else 1
        assert (len(found.trials), bool(found.damaged)) == (3 - lost, lost > 0) or place == len(content) - 1


def test_a_file_outside_its_folder_is_not_written() -> None:
    for name in ("../x", "/tmp/x", "a/../../x"):
        assert read_outbox(line(replace(ended(0), files={name: ""}))).damaged == [1]


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """`cut_off(trial, act)`: act once after epoch 5 of a trial; a study is then not waited for long."""

    def arrange(number: int, act: Callable[[], None]) -> None:
        log, done = TrialRun.log_metrics, threading.Event()

        def logged(self: TrialRun, metrics: dict[str, float], step: int) -> None:
            log(self, metrics, step)
            if step == 5 and self.opening.number == number and not done.is_set():
                done.set()
                self._tracker.wait(self.send(lambda client, run_id: None))  # what was flushed is there
                act()

        monkeypatch.setattr(TrialRun, "log_metrics", logged)
        monkeypatch.setattr(trials, "TOLD_WITHIN", 0.1)

    return arrange


def options(n_trials: int, pruner: str = "none", **other: Any) -> dict[str, Any]:
    return {
        "study": {"name": "small", "n_trials": n_trials, "pruner": pruner},
        "training": {"epochs": EPOCHS, "early_stopping": None},
        "": {"cohort": 1, **other},
    }


class AwayFromMlflow:
    """MLflow's store as it is while its server is away, which can come back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._log_batch = monkeypatch, MlflowClient.log_batch

    def go(self) -> None:
        def fail(*arguments: Any, **given: Any) -> None:
            raise MlflowException("API request failed: Connection refused")

        self._patch.setattr(MlflowClient, "log_batch", fail)

    def come_back(self) -> None:
        self._patch.setattr(MlflowClient, "log_batch", self._log_batch)


def lose_mlflow(
    stores: Stores, configure: Callable[..., Config], cut_off: Callable[..., None], away: AwayFromMlflow
) -> None:
    """A worker that ends since MLflow does not come back; its only trial has ended."""
    config = configure(**options(1, patience=0.02))
    cut_off(0, away.go)
    with pytest.raises(BdqmError, match="Connection refused"):
        tune(prepare(config, stores.home), config, stores)
    away.come_back()
    assert len(files(stores)) == 1


def test_what_could_not_be_sent_is_sent_by_the_next_command(
    stores: Stores,
    configure: Callable[..., Config],
    cut_off: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> None:
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    status, out, err = call("status", "small")
    assert (status, err.splitlines()[-1]) == (0, f"bdqm-tune: {SENT}")
    assert "complete" in out
    assert_once(stores, "small", 1, EPOCHS)
    assert load_study(stores, "small").trials[0].user_attrs.get(LOSSES, 0) == 0
    assert files(stores) == list(stores.home.glob("checkpoints/*/*")) == []
    assert list(deliver_outboxes(stores)) == []
    assert_once(stores, "small", 1, EPOCHS)


def test_a_run_that_is_made_of_a_journal_begins_when_its_trial_did(
    stores: Stores,
    configure: Callable[..., Config],
    cut_off: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the worker's own run is not there any more."""
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    client, trial = tracking_client(stores), load_study(stores, "small").trials[0]
    began = client.get_run(trial.user_attrs[RUN_ID]).info.start_time
    for there in client.search_runs(["1"]):
        client.delete_run(there.info.run_id)
    time.sleep(0.1)
    assert SENT in list(deliver_outboxes(stores))
    assert_once(stores, "small", 1, EPOCHS)
    made = client.get_run(load_study(stores, "small").trials[0].user_attrs[RUN_ID])
    assert made.info.run_id != trial.user_attrs[RUN_ID]
    assert made.info.start_time == began < made.info.end_time


@pytest.mark.parametrize("again", ["run", "sent"])
def test_a_trial_that_is_kept_and_run_again_counts_once(
    again: str,
    stores: Stores,
    configure: Callable[..., Config],
    cut_off: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    (journal,) = files(stores)
    content = journal.read_bytes()
    if again == "run":  # by a worker that does not look for journals
        config = configure(**options(1))
        tune(prepare(config, stores.home), config, stores)
    else:  # by a command that was killed when it had sent it
        assert len(list(deliver_outboxes(stores))) == 1
    n_trials = len(load_study(stores, "small").trials)
    assert_once(stores, "small", n_trials, EPOCHS)
    journal.write_bytes(content)
    assert list(deliver_outboxes(stores)) == []
    assert_once(stores, "small", n_trials, EPOCHS)
    assert files(stores) == []


def test_a_damaged_journal_is_named_and_its_trial_run_again(
    stores: Stores, configure: Callable[..., Config], cut_off: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    (journal,) = files(stores)
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 4
    journal.write_bytes(content)
    (said,) = deliver_outboxes(stores)
    assert said.startswith(f"{journal}: damaged in lines 1, which are not used")
    assert [file.name for file in files(stores)] == [f"{journal.name}.damaged"]
    assert list(deliver_outboxes(stores)) == []
    config = configure(**options(1))
    tune(prepare(config, stores.home), config, stores)
    assert_once(stores, "small", 2, EPOCHS)


def test_a_journal_of_another_database_is_left(
    stores: Stores, configure: Callable[..., Config], cut_off: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    other = replace(stores, storage=f"sqlite:///{stores.home}/other.db")
    (said,) = deliver_outboxes(other)
    assert "1 trials of the study 'small' that have ended cannot be sent yet: this database does not have it" in said
    assert len(files(stores)) == 1
    assert len(list(deliver_outboxes(stores))) == 1
    assert_once(stores, "small", 1, EPOCHS)


@pytest.mark.endurance
def test_both_servers_killed_when_the_worker_ends(
    mariadb: MariaDb,
    server: Any,
    configure: Callable[..., Config],
    cut_off: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    workdir: Path,
) -> None:
    """They come back elsewhere, and the next command of that folder sends what was not sent: nothing twice."""
    monkeypatch.setenv("BDQM_SERVICES", str(workdir / "services"))
    stores = Stores(workdir / ".bdqm", connection_file=workdir / "services" / "connection.json")

    def announce() -> None:
        write_connection(stores, mariadb.url("both"), server.uri, "admin", server.password)

    def kill() -> None:
        mariadb.kill()
        server.stop(signal.SIGKILL)

    (workdir / "services").mkdir(mode=0o700)
    mariadb.execute("CREATE DATABASE `both`")
    announce()
    monkeypatch.setattr("bdqm_tune.tuning.pruning.WITHIN", 0.1)
    config = configure(**options(3, "median", patience=0.05))
    cut_off(1, kill)
    with pytest.raises(BdqmError, match=r"^(the MLflow tracking store|the study database) .* failed: "):
        tune(prepare(config, stores.home), config, stores)
    (journal,) = files(stores)
    with taken(journal) as content:
        assert content is not None
        assert [trial.opening["number"] for trial in content.trials] == [1]
    mariadb.start()
    server.start()
    announce()
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    status, _, err = call("tune", "--config", "config.yaml", "--n-trials", "1")
    assert status == 0, err
    assert SENT in err
    assert_once(stores, "small", 4, EPOCHS)
    assert files(stores) == []
    reports = set(rungs(config.study.pruner, EPOCHS))
    assert all(trial.intermediate_values.keys() == reports for trial in load_study(stores, "small").trials)
