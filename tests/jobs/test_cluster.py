"""A study on a cluster from `submit` to `cancel`: the servers as a job, an array of workers, real training.

`pytest tests/jobs/test_cluster.py` takes about ten minutes, most of them waiting: Slurm's limits count minutes.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ase.io
import psutil
import pytest
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import builtin_structures
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from tests.jobs.conftest import PROJECT, write_site
from tests.servers import Servers
from tests.slurm import Slurm
from tests.waiting import eventually
from tests.wheels import install, wheel

__all__ = ["wheel"]

QUICK = ["--set", "num_layers=1,num_nodes=4"]
FINISHED = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Cluster:
    """A user's account on it."""

    slurm: Slurm
    servers: Servers
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        mine = {"BDQM_HOME": str(self.folder / "home"), "BDQM_SITE": str(self.folder / "site.toml")}
        return self.slurm.environ | self.servers.environ | mine

    @property
    def stores(self) -> Stores:
        return Stores(self.folder / "home", connection_file=self.servers.places.connection)

    def bdqm(self, *arguments: str) -> str:
        """Output of a command."""
        done = subprocess.run(
            [sys.executable, "-m", "bdqm_tune", *arguments],
            cwd=PROJECT,
            env=self.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.output()}"
        return done.stdout

    def output(self) -> str:
        """What the jobs said."""
        logs = sorted((self.folder / "home" / "jobs" / "logs").glob("*"))
        return "\n".join(f"==> {path.name}\n{path.read_text()[-3000:]}" for path in logs)

    def trials(self, study: str) -> list[FrozenTrial]:
        return load_study(self.stores, study).get_trials()

    def finished(self, study: str) -> int:
        """How many trials have ended; 0 before a worker has made the study."""
        try:
            return sum(trial.state.is_finished() for trial in self.trials(study))
        except BdqmError:
            return 0

    def runs_agree(self, study: str) -> None:
        """See that each trial has ended, and has one run, which says so and has its whole curve once."""
        trials = self.trials(study)
        assert {trial.state for trial in trials} <= FINISHED.keys(), Counter(trial.state.name for trial in trials)
        client = tracking_client(self.stores)
        for trial in trials:
            run = client.get_run(trial.user_attrs["mlflow_run_id"])
            assert run.info.status == FINISHED[trial.state]
            assert run.data.tags["trial_number"] == str(trial.number)
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val_energy_mae")]
            assert steps == list(range(1, len(steps) + 1)), "one curve, no epoch twice"

    def workers(self, job: str) -> list[psutil.Process]:
        """The Python processes of a job's workers; other clusters on this machine have jobs of the same number."""
        mine = {"BDQM_SUBMISSION": f"slurm-{job}", "SLURM_CONF": self.slurm.environ["SLURM_CONF"]}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "bdqm_tune" in process.cmdline() and "tune" in process.cmdline():
                    found += [process] if mine.items() <= process.environ().items() else []
        assert os.getpid() not in {process.pid for process in found}
        return found


@pytest.fixture
def cluster(slurm: Slurm, new_servers: Servers, tmp_path: Path) -> Iterator[Cluster]:
    write_site(tmp_path / "site.toml")
    yield Cluster(slurm, new_servers, tmp_path)
    for job in ("tune", "servers"):
        slurm.run("scancel", f"--name=bdqm-{job}", status=None)
    eventually(lambda: slurm.run("squeue", "--noheader").stdout == "", 150, "jobs are left")


@pytest.mark.endurance
def test_from_submission_to_cancellation(cluster: Cluster) -> None:
    submitted = cluster.bdqm(
        "submit", "--workers", "2", "--n-trials", "4", "--study", "slurm", "--epochs", "3", "--json", *QUICK
    )
    job = json.loads(submitted)
    assert (job["scheduler"], job["study"], job["workers"]) == ("slurm", "slurm", 2)
    listed = {(one["job"], one["state"]) for one in json.loads(cluster.bdqm("jobs", "--json"))}
    assert ("servers", "running") in listed
    cluster.slurm.wait(job["job_id"], 800)
    assert len(cluster.trials("slurm")) == 4, "n_trials is the total of all workers"
    cluster.runs_agree("slurm")
    cluster.bdqm("submit", "--job", "analysis", "--study", "slurm", "--json")
    again = cluster.bdqm("submit", "--n-trials", "1", "--study", "slurm", "--epochs", "3", "--json", *QUICK)
    assert len([one for one in json.loads(cluster.bdqm("jobs", "--json")) if one["job"] == "servers"]) == 1
    cluster.slurm.wait(json.loads(again)["job_id"], 400)
    eventually(lambda: "analysis" not in cluster.bdqm("jobs"), 400, "analysis")
    assert "test_energy_mae" in cluster.output()
    assert "cancelled: job" in cluster.bdqm("cancel", "servers")
    none = "no job waits or runs; --all shows those that have ended\n"
    eventually(lambda: cluster.bdqm("jobs") == none, 180, "servers")
    assert not cluster.servers.places.connection.exists()
    assert cluster.output().count(" down\n") == 1


@pytest.mark.soak
def test_the_commands_of_the_documentation_run(cluster: Cluster, wheel: Path) -> None:
    """docs/pace.md, frame by frame, from a wheel in an empty folder, with one's own site.toml and data."""
    folder, environment = cluster.folder / "bdqm-tune", cluster.folder / "environment"
    folder.mkdir()
    environ = {name: value for name, value in cluster.environ.items() if name not in ("BDQM_HOME", "BDQM_SITE")}
    environ |= {"PATH": f"{install(wheel, environment)}:{Path(sys.executable).parent}:{environ['PATH']}"}
    subprocess.run(["bdqm-tune", "init"], cwd=folder, env=environ, check=True)
    where = ["python", "-c", "import bdqm_tune; print(bdqm_tune.__file__)"]
    assert subprocess.run(where, cwd=folder, env=environ, capture_output=True, text=True).stdout.startswith(
        str(environment)
    )
    example = folder / "jobs" / "site.toml"
    assert f'environment = "{environment}"' in example.read_text(encoding="utf-8")
    write_site(example, environment=str(environment))
    write_structures(folder)
    frames = re.findall(r"^```bash\n(.*?)^```", (PROJECT / "docs/pace.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(frames) >= 6
    for frame in frames:
        done = subprocess.run(
            ["bash", "-ec", frame], cwd=folder, env=environ, capture_output=True, text=True, timeout=300
        )
        logs = "\n".join(path.read_text()[-2000:] for path in folder.glob(".bdqm/jobs/logs/*"))
        assert done.returncode == 0, f"{frame}\n{done.stdout}\n{done.stderr}\n{logs}"
        queue = ["squeue", "--noheader", "--name=bdqm-tune,bdqm-analysis"]
        eventually(lambda queue=queue: cluster.slurm.run(*queue).stdout == "", 400, frame)  # type: ignore[misc]
    assert len(list((folder / "figures" / "oc20").glob("*.png"))) >= 4, logs
    assert (folder / "reports" / "oc20" / "report.html").is_file(), logs
    eventually(lambda: not cluster.servers.places.connection.exists(), 60, "the servers are down in the end")


@pytest.mark.soak
def test_forty_trials_through_all_that_ends_workers(cluster: Cluster) -> None:
    """Three workers of two minutes, one killed, one cancelled, the rest warned and queued again: 40 trials."""
    write_site(cluster.folder / "site.toml", warning=60, walltime="2:00")
    config = {"training": {"epochs": 700, "early_stopping": None}, "study": {"name": "forty", "pruner": "none"}}
    (cluster.folder / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--study", "forty", "--n-trials", "40", "--config", str(cluster.folder / "config.yaml"), "--cohort", "1"]
    job = json.loads(cluster.bdqm("submit", "--workers", "3", "--wait", "5", "--json", *options, *QUICK))["job_id"]
    eventually(lambda: cluster.finished("forty") >= 1, 300, "a trial")
    assert len(cluster.trials("forty")) == 40, "n_trials is the total"
    # All of them may be in the queue again for a moment, warned on a machine where their start took that long.
    eventually(lambda: bool(cluster.workers(job)), 300, cluster.output)
    (killed, *_) = cluster.workers(job)
    killed.send_signal(signal.SIGKILL)
    requeued = "trials are left: the job goes back to the queue"
    eventually(lambda: requeued in cluster.output(), 300, cluster.output)
    eventually(lambda: any(process.is_running() for process in cluster.workers(job)), 120, cluster.output)
    left = [one["job_id"] for one in json.loads(cluster.bdqm("jobs", "--json")) if one["job"] == "tune"]
    assert len(left) >= 2, "the killed one has failed, or been warned at the same time; the others go on"
    cluster.slurm.run("scancel", left[-1])
    cluster.slurm.wait(job, 900)
    assert len(cluster.trials("forty")) == 40
    assert sorted(trial.number for trial in cluster.trials("forty")) == list(range(40))
    cluster.runs_agree("forty")


def write_structures(folder: Path) -> None:
    """`train.traj` and `test.traj`: some of the built-in structures with their energies."""
    for split, name in (("train", "train.traj"), ("test", "test.traj")):
        structures = builtin_structures(split)  # type: ignore[arg-type]
        images = [atoms.copy() for atoms in structures.atoms[:40]]
        for atoms, energy in zip(images, structures.energies, strict=False):
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
        ase.io.write(folder / name, images)
