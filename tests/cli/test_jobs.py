"""`submit`, `jobs` and `cancel`: what they print, what they refuse before anything is submitted."""

import json
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner, Result

from bdqm_tune.cli.main import app
from bdqm_tune.errors import BadInput
from bdqm_tune.services.submission import SCHEDULERS, make_scheduler
from bdqm_tune.services.submissions import Submission, records_folder, write_record
from tests.jobs.conftest import FakeProject, project, write_site
from tests.test_layers import PACKAGE
from tests.waiting import eventually

__all__ = ["project"]
JOBS = PACKAGE.parent / "jobs"


def call(*arguments: str) -> Result:
    """A command in this process; what it refuses is raised."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path / "site.toml")


def test_a_dry_run_prints_scripts_and_commands(workdir: Path, site: Path) -> None:
    (workdir / "train.traj").write_text("")
    options = ["--workers", "8", "--n-trials", "200", "--study", "my oc20", "--train", "train.traj", "--set=lr=1e-3"]
    output = call("submit", *options, "-P", "seed=3", "--site", str(site), "--dry-run").output
    for script in ("servers.sbatch", "tune.sbatch"):
        assert (JOBS / script).read_text() in output
    parameters = [
        line for line in output.splitlines() if line.startswith("export BDQM_PARAMETERS=") and "n_trials=200" in line
    ]
    assert len(parameters) == 1
    for part in ("device=cpu", "study=my oc20", f"train={workdir}/train.traj", "set=lr=1e-3", "seed=3"):
        assert part in parameters[0]
    (command,) = [line for line in output.splitlines() if line.startswith("sbatch") and "--array" in line]
    assert "--time=10:00" in command
    assert "--array=1-8" in command
    assert {path.name for path in workdir.iterdir()} == {"train.traj", "site.toml"}


def test_several_files_and_slices_reach_the_workers_with_absolute_paths(workdir: Path, site: Path) -> None:
    (workdir / "a.traj").write_text("")
    options = ["--train", "a.traj@:9,*.traj", "--validation", "a.traj@9:", "--site", str(site), "--dry-run"]
    output = call("submit", *options).output
    assert f"train={workdir}/a.traj@:9,{workdir}/*.traj" in output
    assert f"validation={workdir}/a.traj@9:" in output
    with pytest.raises(BadInput, match=r"b/\*.traj: no file fits this pattern"):
        call("submit", "--test", "b/*.traj", "--site", str(site), "--dry-run")


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("job", ["servers", "analysis"])
def test_each_job_has_a_script_for_each_scheduler(workdir: Path, site: Path, job: str, scheduler: str) -> None:
    output = call("submit", "--job", job, "--site", str(site), "--scheduler", scheduler, "--dry-run").output
    assert (JOBS / f"{job}{make_scheduler(scheduler).suffix}").read_text() in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "4"], "no option --epoch; `tune` has: train, test, validation, study, n-trials"),
        (["--epochs", "x"], "training.epochs: Input should be a valid integer"),
        (["--n-trials", "0"], "study.n_trials: Input should be greater than or equal to 1"),
        (["--train", "nope.traj"], "--train nope.traj: no such file"),
        (["--epochs"], "--epochs needs a value"),
        (["8"], "unexpected argument '8'"),
        (["--job", "evaluate"], "--job: unknown job 'evaluate'; there are: tune, servers, analysis, interactive"),
        (["--job", "servers", "--epochs", "3"], "--job servers takes no options of `tune` but --study; got epochs"),
        (["--scheduler", "lsf"], "unknown scheduler 'lsf'; there are: slurm, pbs, pbspro, local"),
        (["--walltime", "2 h"], "--walltime: must be one word of letters, digits and . : + = @ / % - _, got '2 h'"),
        (["-P", "note=mysql://u:hunter2@host/x"], "holds a URL with a password"),
    ],
)
def test_what_cannot_work_is_refused(workdir: Path, site: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput) as error:
        call("submit", "--site", str(site), *arguments)
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)
    assert not (workdir / ".bdqm").exists()


def test_the_example_is_shown_and_not_submitted(workdir: Path) -> None:
    """What a new user sees before anything is edited."""
    output = call("submit", "--site", str(JOBS / "site.toml"), "--dry-run").output
    assert output.startswith("# account 'gts-YOURPI' is an example: before you submit, write your group's into ")
    assert "--account=gts-YOURPI" in output
    with pytest.raises(BadInput, match="account: 'gts-YOURPI' is an example; write your group's, or leave it empty"):
        call("submit", "--site", str(JOBS / "site.toml"))
    assert list(workdir.iterdir()) == []


def test_a_job_without_an_id_is_shown_and_cannot_be_cancelled(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BDQM_HOME", str(tmp_path / "home"))
    write_record(records_folder(tmp_path / "home"), Submission("", "slurm", "tune", "2026-01-01T00:00:00", "a b"))
    assert "not known" in call("jobs").output
    with pytest.raises(BadInput, match=r"if `squeue --me` shows its job, write its id as job_id into .*-slurm\.json"):
        call("cancel", "a b")


def test_a_task_of_an_array_is_named_with_what_ends_it(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BDQM_HOME", str(tmp_path / "home"))
    for job_id in ("90", "91[].pbs"):
        record = Submission(job_id, "slurm", "tune", f"2026-01-01T00:00:0{job_id[1]}", "s", 2)
        write_record(records_folder(tmp_path / "home"), record)
    (tmp_path / "squeue").write_text(
        "#!/bin/bash\necho '90|90_1|RUNNING|n|1:00|None'; echo '91[].pbs|x|RUNNING|n|1|None'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for task in ("90_1", "90_[2-3]"):
        with pytest.raises(BadInput, match=r"there are: 90 \(s\), .*; `bdqm-tune cancel 90` ends all of that array"):
            call("cancel", task)
    with pytest.raises(BadInput, match=r"`bdqm-tune cancel '91\[\]\.pbs'` ends all of that array"):
        call("cancel", "91[2].pbs")


def test_without_a_scheduler_nothing_is_made(workdir: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="no Slurm here: there is no sbatch"):
        call("submit", "--site", str(site))
    assert not (workdir / ".bdqm").exists()


def test_on_a_workstation_from_submission_to_cancellation(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two workers as processes of this machine, with the user's own stores, so that no servers are needed."""
    monkeypatch.setenv("BDQM_STORAGE", f"sqlite:///{tmp_path}/optuna.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.folder}/mlflow.db")
    monkeypatch.setenv("BDQM_HOME", str(tmp_path / "home"))
    made = json.loads(
        call("submit", "--scheduler", "local", "--workers", "2", "--study", "a b", "--json").output.splitlines()[-1]
    )
    eventually(lambda: len(project.report) == 2, 60, str(list((tmp_path / "home/jobs/logs").iterdir())))
    assert project.report == ["tune " + f"{made['job_id']} --study a b"] * 2
    listed = json.loads(call("jobs", "--json").output)
    assert {(one["job_id"], one["study"], one["state"]) for one in listed} == {
        (f"{made['job_id']}_{task}", "a b", "running") for task in (1, 2)
    }
    assert {(one["trials_done"], one["trials"]) for one in listed} == {(None, None)}, "the workers here make no study"
    study = optuna.create_study(study_name="a b", storage=f"sqlite:///{tmp_path}/optuna.db")
    study.tell(study.ask(), 1.0)
    study.ask()
    assert {(one["trials_done"], one["trials"]) for one in json.loads(call("jobs", "--json").output)} == {(1, 2)}
    assert call("jobs").output.count(" 1/2 ") == 2
    assert "bdqm-tune status 'a b'" in call("jobs").output
    with pytest.raises(BadInput, match=rf"no job 'b' waits or runs; there are: {made['job_id']} \(a b\)"):
        call("cancel", "b")
    assert f"cancelled: job {made['job_id']} (a b)" in call("cancel", "a b").output
    assert sorted(project.report[2:]) == ["got SIGTERM"] * 2 + ["handed back"] * 2
    assert "no job waits or runs" in call("jobs").output
    assert "ended" in call("jobs", "--all").output
