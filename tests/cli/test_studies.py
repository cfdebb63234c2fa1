"""A worker that is killed, as its user sees it: status, doctor, delete-study."""

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bdqm_tune.admin.status import study_status
from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import find_stores
from tests.commands import Call
from tests.forked import Forked


@contextmanager
def worker_that_trains() -> Iterator[Forked]:
    """One on the study `s`, with two trials of three, which never ends by itself."""
    Path("endless.yaml").write_text("training: {epochs: 1000000, early_stopping: null}\nstudy: {pruner: none}\n")
    options = ["--config", "endless.yaml", "--study", "s", "--n-trials", "3", "--cohort", "2"]
    options += ["--set", "num_layers=1,num_nodes=4"]
    process = Forked(["-m", "bdqm_tune", "tune", *options])
    try:
        deadline = time.monotonic() + 180
        while not _both_have_runs():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.5)
        yield process
    finally:
        process.kill()
        process.wait()


def _both_have_runs() -> bool:
    try:
        found = study_status(find_stores(), "s")
    except BdqmError:  # the study is being made
        return False
    if found.running < 2:
        return False
    return len(MlflowClient().search_runs([_experiment()], "attributes.status = 'RUNNING'")) == 3


def _experiment() -> str:
    experiment = MlflowClient().get_experiment_by_name("s")
    assert experiment is not None
    return str(experiment.experiment_id)


def test_a_worker_that_is_killed(call: Call) -> None:
    with worker_that_trains() as process:
        code, out, _ = call("status", "s", "--json")
        assert code == 0
        found = json.loads(out)
        assert [found[state] for state in ("waiting", "running", "complete", "pruned", "failed")] == [1, 2, 0, 0, 0]
        (worker,) = found["workers"]
        assert (worker["pid"], worker["state"], worker["trials"]) == (str(process.pid), "running", [0, 1])
        code, out, err = call("delete-study", "s", "--yes")
        assert (code, out) == (1, "")
        assert f"workers run on study 's': {process.pid} on " in err
        code, out, _ = call("doctor")
        assert f"ok       workers   s: 1 running: {process.pid} on " in out
        assert "fixed  " not in out

        process.send_signal(signal.SIGKILL)
        process.wait()
    code, out, _ = call("status", "s")
    assert code == 0
    assert re.search(rf"^gone     {process.pid} on .*: trials 0, 1$", out, re.MULTILINE)

    code, out, err = call("doctor", "--json")
    assert code == 0, out
    fixed = [finding["message"] for finding in json.loads(out) if finding["state"] == "fixed"]
    assert re.fullmatch(rf"s: worker {process.pid} on \S+ is dead: its process was gone", fixed[0])
    assert fixed[1:] == [f"s: trial {number} is requeued, as its worker died (1 of 3)" for number in (0, 1)]
    runs = {run.info.run_name: run for run in MlflowClient().search_runs([_experiment()])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "s": "KILLED",
        "trial-000": "SCHEDULED",
        "trial-001": "SCHEDULED",
    }
    assert runs["s"].data.tags["reason"] == "its worker died: its process was gone"
    assert runs["trial-000"].data.tags["trial_state"] == "waiting"
    assert "fixed  " not in call("doctor")[1], "nothing is left to fix"

    code, out, _ = call("status", "s")
    assert "3 waiting" in out
    assert "losses   trials whose workers died: 0 (once), 1 (once)" in out
    code, out, _ = call("studies")
    assert out.splitlines()[1].split()[:6] == ["s", "3", "0", "0", "0", "0"]

    code, out, err = call("delete-study", "s")
    assert (code, out) == (2, "")
    assert "--yes says that it may" in err
    code, out, _ = call("delete-study", "s", "--yes")
    assert code == 0
    assert "deleted: the study s, 3 trials, 3 runs" in out
    store = f"sqlite:///{Path('mlflow.db').absolute()}"
    assert f"`mlflow gc --backend-store-uri {store} --tracking-uri {store}`" in out
    assert call("studies")[1] == "there is no study yet\n"
    assert call("status", "s")[0] == 2


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_deleting_is_asked_for(call: Call, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    import optuna

    Path(".bdqm").mkdir()
    optuna.create_study(storage=find_stores().storage_url, study_name="s")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
    found, _, err = call("delete-study", "s")
    assert found == code
    assert "the study s: 0 trials, for good" in err
    assert ("nothing was deleted" in err) == (answer == "n")
    assert (call("status", "s")[0] == 2) == (answer == "y")


def test_where_nothing_is_nothing_is_made(call: Call) -> None:
    assert call("studies") == (0, "there is no study yet\n", "")
    assert call("studies", "--json")[1] == "[]\n"
    for command in (["status", "s"], ["delete-study", "s", "--yes"]):
        code, out, err = call(*command)
        assert (code, out) == (2, "")
        assert "no study 's' in " in err
    code, out, _ = call("doctor")
    assert code == 0
    assert "optuna.db is not made yet" in out
    assert "mlflow.db is not made yet" in out
    assert list(Path().iterdir()) == []


def test_doctor_says_what_only_the_user_can_mend(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDQM_STORAGE", "mysql+pymysql://me:t0ps3cret@127.0.0.1:1/optuna")
    monkeypatch.setattr("bdqm_tune.storage.database.OTHER_TIMEOUT", 0.1)
    code, out, err = call("doctor")
    assert code == 1
    assert re.search(
        r"^error    studies   cannot open the study database .*me:\*\*\*@127\.0\.0\.1:1/optuna: ", out, re.M
    )
    assert "t0ps3cret" not in out + err


def test_help_has_an_example(call: Call) -> None:
    for command in ("status", "studies", "delete-study", "doctor"):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert f"Example: bdqm-tune {command}" in out.replace("`", "")


@pytest.mark.parametrize(
    "command",
    [
        "tune --study s --epochs 1 --n-trials 1",
        "status s",
        "studies",
        "front s",
        "delete-study s --yes",
        "evaluate --study s",
        "ensemble --study s",
        "confirm --study s",
        "register --study s",
        f"reproduce {'0' * 32}",
        f"predict {'0' * 32} x.xyz",
        "gc --keep-best 1",
        "report s",
    ],
)
def test_no_command_uses_files_while_the_users_servers_are_down(
    call: Call, workdir: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("bdqm_tune.services.connection.RESTART", 0.0)
    (workdir / "servers").mkdir()
    (workdir / "servers" / "settings.json").write_text("{}")
    monkeypatch.setenv("BDQM_SERVICES", str(workdir / "servers"))
    status, out, err = call(*command.split())
    assert (status, out) == (1, "")
    assert "are not up: `bdqm-tune services up` starts them; to use files of this folder" in err
    assert err.count("\n") == 1
    assert [path.name for path in workdir.iterdir()] == ["servers"]


def test_jobs_and_doctor_do_not_wait_for_servers(call: Call, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workdir / "servers").mkdir()
    (workdir / "servers" / "settings.json").write_text("{}")
    monkeypatch.setenv("BDQM_SERVICES", str(workdir / "servers"))
    status, _, err = call("jobs")
    assert (status, "waiting" in err) == (0, False)
    status, out, err = call("doctor")
    assert (status, "waiting" in err) == (1, False)
    assert "are not up: `bdqm-tune services up`" in out
