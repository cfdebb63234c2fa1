"""The main job through the servers: four `mlflow run .` at once on OC20; then what both stores, the logs and MLflow's
page say of it, and that no password is anywhere.
"""

import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from playwright.sync_api import expect

from bdqm_tune.mlflow_server.backup import _dump
from bdqm_tune.mlflow_server.database import own_database
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT, load_study
from bdqm_tune.tracking.client import tracking_client
from scripts.mlflow_page import opened_page, show_curves, show_runs
from tests.servers import Servers

PROJECT = Path(__file__).parents[2]
WORKERS, TRIALS, EPOCHS = 4, 20, 12  # each worker adds as many trials
STATES = {TrialState.COMPLETE: ("FINISHED", "complete"), TrialState.PRUNED: ("KILLED", "pruned")}
TROUBLE = re.compile(r"\b(error|traceback|exception|warning: |critical|does not answer)\b", re.IGNORECASE)

pytestmark = pytest.mark.endurance


@dataclass
class Job:
    """What four workers did."""

    servers: Servers
    stores: Stores
    folder: Path
    outputs: list[str]
    command_lines: set[str] = field(default_factory=set)  # all that were seen on the machine meanwhile

    @property
    def study(self) -> optuna.Study:
        return load_study(self.stores, "oc20")

    @property
    def client(self) -> MlflowClient:
        return tracking_client(self.stores)

    def trial_runs(self) -> list[Run]:
        experiment = self.study.user_attrs[EXPERIMENT]
        return list(self.client.search_runs([experiment], "tags.trial_number IS NOT NULL", max_results=1000))


@pytest.fixture(scope="module")
def job(
    require: Callable[[str], None], shared: Path, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """`eval "$(bdqm-tune services env)"`, and four times `mlflow run .`, each from a folder of its own."""
    folder = tmp_path_factory.mktemp("job")
    home = folder / "home"
    exports = servers.services("env").stdout
    variables = dict(re.findall(r"export (\w+)=(\S+)", exports))
    scripts = Path(sys.executable).parent
    data = shared / "data"
    parameters = {
        "train": data / "oc20_300_train.traj",
        "test": data / "oc20_300_test.traj",
        "study": "oc20",
        "n_trials": TRIALS,
        "epochs": EPOCHS,
        "set": "training.forces=false",  # whose errors are no trouble to be looked for in logs
    }
    options = [f"-P{name}={value}" for name, value in parameters.items()]
    command = [scripts / "mlflow", "run", str(PROJECT), "--env-manager", "local", *options]
    environ = servers.environ | variables | {"BDQM_HOME": str(home)}
    environ["PATH"] = f"{scripts}:{environ['PATH']}"
    started = []
    for number in range(WORKERS):
        log = (folder / f"worker-{number}.log").open("w")
        started.append(subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, text=True))
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.3):
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or []))

    watcher = threading.Thread(target=watch)
    watcher.start()
    codes = [process.wait(timeout=900) for process in started]
    done.set()
    watcher.join()
    outputs = [(folder / f"worker-{number}.log").read_text() for number in range(WORKERS)]
    assert codes == [0] * WORKERS, "\n".join(output[-2000:] for output in outputs)
    return Job(servers, Stores(home, connection_file=servers.places.connection), folder, outputs, seen)


@pytest.mark.timeout(1200)
def test_all_trials_are_in_both_stores_and_agree(job: Job) -> None:
    trials = job.study.get_trials()
    assert len(trials) == WORKERS * TRIALS
    assert {trial.state for trial in trials} <= STATES.keys()
    runs = {run.info.run_id: run for run in job.trial_runs()}
    assert len(runs) == len(trials), "one run a trial"
    assert {trial.user_attrs["mlflow_run_id"] for trial in trials} == runs.keys()
    for trial in trials:
        run = runs[trial.user_attrs["mlflow_run_id"]]
        status, state = STATES[trial.state]
        assert (run.info.status, run.data.tags["trial_state"]) == (status, state)
        assert (run.info.run_name, run.data.tags["trial_number"]) == (f"trial-{trial.number:03d}", str(trial.number))
        for name, value in trial.params.items():
            assert run.data.params[name] == str(value)
        result = trial.user_attrs["result"]
        curve = job.client.get_metric_history(run.info.run_id, "val_energy_mae")
        assert sorted(metric.step for metric in curve) == list(range(1, result["epochs"] + 1))
        assert min(metric.value for metric in curve) == pytest.approx(result["val_energy_mae"])
        if trial.state == TrialState.COMPLETE:
            assert trial.value == result["val_energy_mae"] == run.data.metrics["best_val_energy_mae"]


def test_the_work_was_shared_and_every_run_has_its_parent(job: Job) -> None:
    parents = Counter(run.data.tags["mlflow.parentRunId"] for run in job.trial_runs())
    assert len(parents) == WORKERS, "each `mlflow run` did some"
    for parent in parents:
        run = job.client.get_run(parent)
        assert (run.info.status, run.data.tags["kind"]) == ("FINISHED", "study")
        assert run.data.params["study.n_trials"] == str(TRIALS)


def test_models_are_small_and_come_through_the_server(job: Job) -> None:
    sizes = []
    for run in job.trial_runs():
        files = {file.path: file.file_size for file in job.client.list_artifacts(run.info.run_id, "model")}
        assert files.keys() == {"model/potential.safetensors", "model/potential.json"}
        sizes.append(sum(files.values()))
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert max(sizes) < 500_000
    assert not (job.folder / "mlruns").exists()


def test_no_log_has_an_error(job: Job) -> None:
    texts = dict(enumerate(job.outputs)) | {
        path.name: path.read_text() for path in job.servers.places.logs.glob("*.log")
    }
    assert len(texts) == WORKERS + 4
    lines = [f"{name}: {line}" for name, text in texts.items() for line in text.splitlines() if TROUBLE.search(line)]
    assert lines == []


def test_no_password_is_anywhere(job: Job) -> None:
    """On no command line, in no log, no output, no file that the job made, and not in the stores."""
    places, secrets = job.servers.places, job.servers.secrets()
    assert len(secrets) == 6 + 2
    dump = job.folder / "dump.sql"
    database = own_database(places, "127.0.0.1", 0)
    _dump(places, database, dump)
    assert b"CREATE TABLE `trials`" in dump.read_bytes()
    texts = {"command lines": "\n".join(job.command_lines).encode(), "schemas": dump.read_bytes()}
    dump.unlink()
    own = [places.passwords, places.connection, places.mlflow / "auth.ini", *places.tls.glob("*.key")]
    for folder in (job.folder, places.logs, places.artifacts, places.mlflow, places.tls, places.folder):
        pattern = "*" if folder in (places.folder, places.mlflow, places.tls) else "**/*"
        texts |= {str(path): path.read_bytes() for path in folder.glob(pattern) if path.is_file() and path not in own}
    texts["my.cnf"] = (places.database / "my.cnf").read_bytes()
    assert len(texts) > WORKERS * TRIALS
    assert any("mlflow server" in line for line in job.command_lines)
    found = [name for name, text in texts.items() for secret in secrets if secret.encode() in text]
    assert found == []
    for path in own:
        assert path.stat().st_mode & 0o777 == 0o600, path
    for path in (places.folder, *places.folder.iterdir()):
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700, path


def test_mlflows_page_lists_the_runs_and_draws_their_curves(job: Job, require: Callable[[str], None]) -> None:
    require("chromium")
    connection = job.servers.connection
    experiment, trials = job.study.user_attrs[EXPERIMENT], job.study.get_trials()
    with opened_page(connection, height=4000) as page:
        show_runs(page, connection.tracking_uri, experiment)
        assert page.get_by_text(re.compile(r"^trial-\d{3}$")).count() >= 1
        expect(page.get_by_text("oc20", exact=True).first).to_be_visible()
        some = [trial.user_attrs["mlflow_run_id"] for trial in trials[:5]]
        show_curves(page, connection.tracking_uri, experiment, some, "val_energy_mae")
        for trial in trials[:5]:
            expect(page.get_by_text(f"trial-{trial.number:03d} (val_energy_mae)")).to_be_visible()
        lines = page.locator(".js-plotly-plot .scatterlayer .js-line")
        assert len({lines.nth(i).get_attribute("d") for i in range(lines.count())}) >= len(some)
