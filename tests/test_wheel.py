"""The package as a user installs it: a wheel, in an environment and a folder with nothing else in them."""

import json
import os
import subprocess
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.wheels import wheel

__all__ = ["wheel"]

PROJECT = Path(__file__).parents[1]
JOB_SCRIPTS = {path.name for path in (PROJECT / "jobs").iterdir()}


@pytest.mark.endurance
def test_the_wheel_has_one_package_with_the_job_scripts(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"bdqm_tune"}
    assert {name.rpartition("/")[2] for name in names if name.startswith("bdqm_tune/project/jobs/")} == JOB_SCRIPTS
    assert "bdqm_tune/project/MLproject" in names


@pytest.mark.endurance
def test_everything_works_from_a_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """With files of the user's own that are called like folders of the repository."""
    environment, folder = tmp_path / "environment", tmp_path / "a folder"
    venv.create(environment, with_pip=True)
    constraints = ["-c", PROJECT / "constraints.txt"]
    install = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", *constraints, wheel]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder.mkdir()
    for name in ("analysis.py", "mlflow_server.py", "jobs.py"):
        (folder / name).write_text("raise RuntimeError('the user has this for something else')\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BDQM_", "VIRTUAL_ENV"))}
    variables = kept | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "BDQM_SERVICES": str(tmp_path / "none")}

    def call(*arguments: str) -> str:
        done = subprocess.run(["bdqm-tune", *arguments], cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    tuned = ("--study", "small", "--n-trials", "2", "--epochs", "3", "--test", "builtin")
    assert json.loads(call("tune", *tuned, "--json"))["complete"] == 2
    assert "small: trial" in call("evaluate", "--study", "small", "--out", "figures/")
    assert (folder / "figures/small/parity.png").exists()
    assert "small: 2 trials" in call("compare", "small")
    assert (folder / "figures/small/history.png").exists()
    call("report", "small")
    assert (folder / "reports/small/report.html").exists()
    call("init")
    assert {path.name for path in (folder / "jobs").iterdir()} == JOB_SCRIPTS
    assert f'environment = "{environment}"' in (folder / "jobs/site.toml").read_text()
    site = folder / "jobs/site.toml"
    text = site.read_text().replace('account = "gts-YOURPI"', 'account = ""')
    site.write_text(text.replace('modules = "anaconda3"', 'modules = ""'))
    shown = call("submit", "--dry-run", "--study", "small")
    assert f"BDQM_PROJECT='{folder}'" in shown
    assert "sbatch" in shown
    stores = {"BDQM_STORAGE": ".bdqm/optuna.db", "MLFLOW_TRACKING_URI": "mlflow.db"}  # for real, without servers
    variables |= {name: f"sqlite:///{folder / file}" for name, file in stores.items()}
    call("submit", "--scheduler", "local", "--study", "small", "--n-trials", "1", "--epochs", "3", "--device", "cpu")
    eventually(lambda: '"complete": 3' in call("status", "small", "--json"), 120)


def test_init_keeps_what_is_there(call: Callable[..., tuple[int, str, str]], workdir: Path) -> None:
    status, out, _ = call("init", "here", "--json")
    assert status == 0
    assert set(json.loads(out)["written"]) == {"MLproject", *(f"jobs/{name}" for name in JOB_SCRIPTS)}
    assert "python_env" not in Path("here/MLproject").read_text()
    changed = {name: Path("here") / name for name in ("jobs/site.toml", "jobs/tune.sbatch")}
    for path in changed.values():
        path.write_text("mine\n")
    status, out, _ = call("init", "here")
    assert status == 0
    assert "here/jobs/tune.sbatch: kept, differs" in out
    assert "--replace writes again what differs" in out
    assert {path.read_text() for path in changed.values()} == {"mine\n"}
    status, out, _ = call("init", "here", "--replace")
    assert "here/jobs/tune.sbatch: written" in out
    assert changed["jobs/tune.sbatch"].read_text() == (PROJECT / "jobs/tune.sbatch").read_text()
    assert changed["jobs/site.toml"].read_text() == "mine\n"
    Path("file").touch()
    status, _, err = call("init", "file")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("bdqm-tune: cannot write the project's files to file: ")
