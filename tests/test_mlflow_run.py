"""`mlflow run` on a copy of the project, as a user types it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

PROJECT = Path(__file__).parents[1]
FILES = (
    "bdqm_tune",
    "MLproject",
    "python_env.yaml",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with 30 structures in `train.xyz` and 8 in `test.xyz`."""
    folder = tmp_path / "a project"
    folder.mkdir()
    for name in FILES:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, folder / name)
    for name, n, seed in (("train", 30, 0), ("test", 8, 100)):
        images = [bulk("Cu", cubic=True) for _ in range(n)]
        for i, atoms in enumerate(images):
            atoms.rattle(0.1, seed=seed + i)
            atoms.calc = EMT()
            atoms.get_potential_energy()
        ase.io.write(folder / f"{name}.xyz", images)
    return folder


def environments(project: Path) -> Path:
    """Where MLflow builds environments: not in the project, because MLflow cannot do with a blank in this path."""
    return project.parent / "environments"


def mlflow_run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    scripts = Path(sys.executable).parent
    return subprocess.run(
        [scripts / "mlflow", "run", ".", *arguments],
        cwd=project,
        env=os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}", "MLFLOW_ENV_ROOT": str(environments(project))},
        capture_output=True,
        text=True,
        timeout=900,
    )


def runs(project: Path) -> list[Run]:
    """All runs of the project's tracking store, the oldest first."""
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(experiments, order_by=["attributes.start_time ASC"])


LOCAL = ("--env-manager", "local")


@pytest.mark.endurance
def test_with_the_active_environment(project: Path) -> None:
    tune_and_evaluate(project)


def tune_and_evaluate(project: Path) -> None:
    options = [f"-P{name}" for name in ("train=train.xyz", "test=test.xyz", "study=oc20", "n_trials=2", "epochs=4")]
    done = mlflow_run(project, *LOCAL, *options)
    assert done.returncode == 0, done.stderr
    parent, *trials = runs(project)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["study.n_trials"] == "2"
    assert [run.info.run_name for run in trials] == ["trial-000", "trial-001"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}

    done = mlflow_run(project, *LOCAL, "-e", "evaluate", "-P", "study=oc20")
    assert done.returncode == 0, done.stderr
    (evaluation,) = [run for run in runs(project) if run.data.tags.get("kind") == "evaluation"]
    assert evaluation.data.metrics["test_energy_mae"] > 0
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    artifacts = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert {"parity.png", "errors.csv", "test_metrics.json"} <= artifacts


@pytest.mark.soak
def test_every_entry_point(project: Path) -> None:
    tune_and_evaluate(project)
    done = mlflow_run(project, *LOCAL, "-e", "ensemble", "-P", "study=oc20", "-P", "best=2", "-P", "coverage=0.7")
    assert done.returncode == 0, done.stderr
    done = mlflow_run(project, *LOCAL, "-e", "evaluate", "-P", "study=oc20", "-P", "ensemble=latest")
    assert done.returncode != 0
    assert "the test split of study 'oc20' was opened on" in done.stderr
    reopen = ("-P", "ensemble=latest", "-P", "reopen=planned from the start")
    done = mlflow_run(project, *LOCAL, "-e", "evaluate", "-P", "study=oc20", *reopen)
    assert done.returncode == 0, done.stderr
    kinds = [run.data.tags.get("kind") for run in runs(project)]
    assert (kinds.count("ensemble"), kinds.count("evaluation")) == (1, 2)

    done = mlflow_run(project, *LOCAL, "-e", "confirm", "-P", "study=oc20", "-P", "best=1", "-P", "seeds=2")
    assert done.returncode == 0, done.stderr
    (confirmation,) = [run for run in runs(project) if run.data.tags.get("kind") == "confirmation"]
    trained = [run for run in runs(project) if run.data.tags.get("kind") == "confirm"]
    assert {run.data.tags["seed"] for run in trained} == {"1", "2"}
    assert {run.data.tags["mlflow.parentRunId"] for run in trained} == {confirmation.info.run_id}
    assert confirmation.info.status == "FINISHED"

    done = mlflow_run(project, *LOCAL, "-e", "prepare", "-P", "train=train.xyz")
    assert done.returncode == 0, done.stderr
    assert "training_structures" in done.stdout


def test_bad_input_fails_the_run_with_one_line(project: Path) -> None:
    done = mlflow_run(project, *LOCAL, "-P", "n_trials=abc")
    assert done.returncode != 0
    assert "bdqm-tune: options: study.n_trials: Input should be a valid integer" in done.stderr
    (parent,) = runs(project)
    assert parent.info.status == "FAILED"
    assert not (project / ".bdqm").exists()


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_with_the_environment_that_mlflow_builds(project: Path) -> None:
    done = mlflow_run(project, "-P", "train=train.xyz", "-P", "n_trials=2", "-P", "epochs=4")
    assert done.returncode == 0, done.stderr
    assert [run.info.run_name for run in runs(project)][1:] == ["trial-000", "trial-001"]
    assert list(environments(project).glob("mlflow-*/bin/python"))
