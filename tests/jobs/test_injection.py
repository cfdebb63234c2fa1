"""Names that are shell, options or paths, through a job's command, its variables and its script: data all the way."""

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bdqm_tune.cli.main import app
from bdqm_tune.errors import BadInput
from bdqm_tune.services.jobspec import JobSpec, Scheduler
from bdqm_tune.services.pbs import Pbs
from bdqm_tune.services.pbspro import PbsPro
from bdqm_tune.services.site import Site, load_site
from bdqm_tune.services.slurm import Slurm
from bdqm_tune.services.submission import SCHEDULERS, make_scheduler
from tests.fuzzing import NAMES, bounded, refused
from tests.jobs.conftest import FakeProject, project, write_site
from tests.jobs.test_scripts import finish, start

__all__ = ["project"]
# What the system does not carry in arguments and variables: zero bytes, and halves of characters.
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)
STUB = '#!/bin/bash\nprintf "%s\\0" "$BDQM_PARAMETERS" "${BDQM_SUCCESSOR:-}" "$@"\n'


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment whose sbatch and qsub print what reaches them."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name in ("sbatch", "qsub"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def plain_site(tmp_path: Path) -> Site:
    return load_site(write_site(tmp_path / "site.toml"))


def said(text: str, environ: dict[str, str]) -> list[str]:
    """What reaches the scheduler's command when a shell runs the text."""
    done = subprocess.run(["bash", "-euc", text], env=environ, capture_output=True, check=True)
    assert not done.stderr
    return done.stdout.decode().split("\0")


@pytest.mark.parametrize("kind", [Slurm, Pbs, PbsPro])
def test_a_submission_as_text_is_the_submission(
    workdir: Path, stubs: dict[str, str], tmp_path: Path, kind: type[Scheduler]
) -> None:
    """What `--dry-run` prints, run by a shell, gives the scheduler what `submit` would give it."""
    site, scheduler = plain_site(tmp_path), kind()

    @given(name=st.sampled_from(NAMES) | texts)
    @bounded(25)
    def check(name: str) -> None:
        folder = "".join("_" if one in "/\n" else one for one in name)[:80]
        parameters = shlex.join(["-P", f"study={name}"])
        spec = JobSpec("tune", workdir / folder, site, workdir / folder, 2, {"BDQM_PARAMETERS": parameters})
        text = scheduler.text(spec).partition("\nexport ")[2]  # without the change to a folder that is not there
        reached, successor, *arguments, end = said(f"export {text}", stubs)
        assert reached == parameters
        assert arguments == scheduler.command(spec)[1:]
        assert end == ""
        if successor:
            command = scheduler.command(replace(spec, workers=0))[1:]
            folder, qsub, *flags = shlex.split(successor)[1:2] + shlex.split(successor)[3:]
            assert (folder, Path(qsub).name, flags) == (str(scheduler.folder(spec)), "qsub", command)

    check()
    assert {path.name for path in workdir.iterdir()} == {"site.toml", "stubs"}


@given(name=st.sampled_from(NAMES) | texts)
@bounded(25)
def test_the_script_reads_parameters_as_they_were_given(workdir: Path, name: str) -> None:
    line = 'eval "parameters=(${BDQM_PARAMETERS:-})"'
    for script in ("tune.sbatch", "tune.pbs"):
        text = (Path(__file__).parents[2] / "jobs" / script).read_text()
        assert re.search(r'^eval "parameters=\(\$\{?BDQM_PARAMETERS(:-\})?\)"$', text, flags=re.MULTILINE)
    parameters = ["-P", f"study={name}", "-P", f"train=/data/{name}"]
    done = subprocess.run(
        ["bash", "-euc", f'{line}; printf "%s\\0" "${{parameters[@]}}"'],
        env={**os.environ, "BDQM_PARAMETERS": shlex.join(parameters)},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split("\0")[:-1] == parameters
    assert not any("escaped" in path.name for path in workdir.iterdir())


HARMFUL = "-rf a'b\"c $(touch escaped) `touch escaped`; touch escaped & touch escaped > escaped"


def test_through_the_script_and_mlflow_to_the_worker(project: FakeProject) -> None:
    """The real script, the real `mlflow run`: the worker gets the name, and nothing in it is run."""
    project.leave(0)
    output = finish(start("tune.sbatch", BDQM_PARAMETERS=shlex.join(["-P", "device=cpu", "-P", f"study={HARMFUL}"])), 0)
    assert len(project.report) == 1, output
    assert project.report[0].endswith(f" --study {HARMFUL}")
    assert not list(project.folder.rglob("escaped"))


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_submission_of_any_name_is_recorded_and_shown(
    workdir: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, stubs: dict[str, str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BDQM_HOME", str(workdir / "home of mine"))
    (workdir / "train.traj").write_text("")
    for name in NAMES:
        options = ["--study", name, "--train", "train.traj", "--site", str(write_site(tmp_path / "site.toml"))]
        result = CliRunner().invoke(app, ["submit", *options, "--scheduler", scheduler, "--dry-run"])
        if isinstance(result.exception, BadInput):
            assert "study.name" in str(result.exception)
            continue
        assert result.exit_code == 0, (name, result.exception)
        (exported,) = {
            line
            for line in result.output.splitlines()
            if line.startswith("export BDQM_PARAMETERS=") and "study=" in line
        }
        assert f"study={name}" in shlex.split(shlex.split(exported)[1].partition("=")[2])
    assert {path.name for path in workdir.iterdir()} == {"train.traj", "site.toml", "stubs"}


@pytest.mark.parametrize(
    "text",
    [
        'scheduler = "slurm"\nscheduler = "pbs"\n',
        "scheduler = 1\n",
        "[tune]\n[tune]\n",
        "\x00",
        'account = "a\nb"',
        "[[tune]]\n",
        "tune = 3\n",
        "warning = 1e400\n",
        "a" * 100_000,
        "[" * 3000,
        "x = " + "[" * 3000,
    ],
)
def test_a_site_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.toml").write_text(text)
    assert refused(lambda: load_site(tmp_path / "site.toml")).startswith(f"site {tmp_path / 'site.toml'}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("walltime", "1:00:00 --wrap=x"),
        ("walltime", "1:00:00\n"),
        ("memory", "1G\n"),
        ("memory", "$(touch escaped)"),
        ("gpu", "V100:1,x=1"),
        ("cores", "2; touch escaped"),
    ],
)
def test_a_resource_that_is_more_than_one_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = write_site(tmp_path / "site.toml")
    assert refused(lambda: load_site(path, {("tune", key): ("--this", value)})).startswith("--this: ")


def test_every_scheduler_is_looked_at() -> None:
    assert {type(make_scheduler(name)).__name__ for name in SCHEDULERS} == {"Slurm", "Pbs", "PbsPro", "Local"}
