"""A project whose worker does nothing but report what reaches it, for tests of the scripts in jobs/, unchanged."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.waiting import eventually

PROJECT = Path(__file__).parents[2]

SITE = """\
scheduler = "slurm"
account = ""
queue = ""
partition = ""
modules = ""
environment = "{environment}"
warning = {warning}
"""
TABLE = """
[{job}]
walltime = "{walltime}"
cores = 1
memory = "500M"
gpu = ""
"""

MLPROJECT = """\
name: worker
entry_points:
  main:
    parameters:
      study: {type: string, default: default}
      device: {type: string, default: auto}
    command: python -m bdqm_tune tune --study {study}
"""

WORKER = """\
import os, shlex, signal, sys, time, tomllib
from pathlib import Path

def report(text):
    with Path("report").open("a") as file:
        print(text, file=file)

def handed_back(number, _):
    for each in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(each, lambda *_: report("a second signal"))
    report(f"got {signal.Signals(number).name}")
    time.sleep(2)
    report("handed back")
    os._exit(0 if number == signal.SIGUSR1 else 130)

if sys.argv[1:] == ["services", "env"]:
    print("export MLFLOW_TRACKING_URI=" + shlex.quote(f"sqlite:///{Path('mlflow.db').absolute()}"))
elif sys.argv[1:3] == ["services", "site"]:
    settings = tomllib.loads(Path(sys.argv[3]).read_text())
    print(f"BDQM_ENVIRONMENT={settings['environment']} BDQM_MODULES= BDQM_WARNING={settings['warning']}")
elif sys.argv[1:3] == ["services", "succeeded"]:
    report("succeeded " + " ".join(sys.argv[3:]))
elif sys.argv[1] == "services":
    signal.signal(signal.SIGTERM, lambda *_: (report("servers down"), os._exit(0)))
    report("servers up " + " ".join(sys.argv[2:]))
    time.sleep(120)
elif sys.argv[1] == "status":
    if Path("status takes long").exists():
        report("asked for what is left")
        time.sleep(60)
    left = int(Path("left").read_text())
    print(f'{{"study": "{sys.argv[2]}", "waiting": {left}, "running": 0, "complete": 1}}')
    Path("left").write_text("0")
else:
    if Path("slow").exists():
        report("starts")
        time.sleep(4)
    for each in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(each, handed_back)
    report(f"tune {os.environ['BDQM_SUBMISSION']} {' '.join(sys.argv[2:])}")
    if Path("left").read_text() == "0":
        sys.exit(int(Path("exit").read_text()) if Path("exit").exists() else 0)
    time.sleep(120)
"""


@dataclass(frozen=True)
class FakeProject:
    """The folder; `left` in it says how many trials a study has left."""

    folder: Path

    @property
    def report(self) -> list[str]:
        """What reached the worker."""
        file = self.folder / "report"
        return file.read_text().splitlines() if file.exists() else []

    def leave(self, trials: int) -> None:
        (self.folder / "left").write_text(str(trials))

    def until(self, line: str, seconds: float = 180) -> None:
        """Wait until the report has a line that starts so."""
        eventually(lambda: any(text.startswith(line) for text in self.report), seconds, lambda: str(self.report))

    def runs(self) -> list[str]:
        """Status of the runs that `mlflow run` made."""
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        return [run.info.status for run in client.search_runs(["0"])]


def write_site(path: Path, warning: int = 20, walltime: str = "10:00", environment: str = sys.prefix) -> Path:
    """A site.toml for the test's own cluster and this environment; `walltime` is a worker's."""
    walltimes = {"tune": walltime, "servers": "10:00", "interactive": "10:00", "analysis": "10:00"}
    tables = [TABLE.format(job=job, walltime=time) for job, time in walltimes.items()]
    path.write_text(SITE.format(environment=environment, warning=warning) + "".join(tables))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProject:
    """That project, with the scripts as they are, and a site.toml for this machine."""
    folder = tmp_path / "a project"
    shutil.copytree(PROJECT / "jobs", folder / "jobs")
    write_site(folder / "jobs" / "site.toml")
    (folder / "MLproject").write_text(MLPROJECT)
    (folder / "bdqm_tune").mkdir()
    (folder / "bdqm_tune" / "__main__.py").write_text(WORKER)
    monkeypatch.chdir(folder)
    fake = FakeProject(folder)
    fake.leave(1)
    return fake
