"""What a light command imports: it answers before the libraries that take seconds would be there."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

HEAVY = {"ase", "mace", "matplotlib", "mlflow", "numba", "pandas", "scipy", "sklearn", "torch"}
# What each of them may import of these, and why.
ALLOWED: dict[tuple[str, ...], set[str]] = {
    ("--help",): set(),
    ("tune", "--help"): set(),
    ("status", "small"): set(),
    ("status", "small", "--json"): set(),
    ("studies",): set(),
    ("jobs",): set(),
    ("init", "here"): set(),
    ("services", "status"): set(),
    ("services", "url"): set(),
}


@pytest.fixture
def study(workdir: Path) -> str:
    """A study with a trial that is complete, in the files of the working folder."""
    home = workdir / ".bdqm"
    home.mkdir()
    made = optuna.create_study(study_name="small", storage=f"sqlite:///{home}/optuna.db")
    made.tell(made.ask(), 1.0)
    return made.study_name


def test_light_commands_import_nothing_heavy(study: str, workdir: Path) -> None:
    found = {}
    for arguments, allowed in ALLOWED.items():
        command = [sys.executable, "-X", "importtime", "-m", "bdqm_tune", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=workdir)
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        imported = {line.rsplit("|", 1)[1].strip() for line in lines}
        assert "bdqm_tune.cli.main" in imported, (arguments, done.stderr)
        if arguments[0] == "status":
            assert "small" in done.stdout, (arguments, done.stdout)
        if too_much := (imported & HEAVY) - allowed:
            found[arguments] = sorted(too_much)
    assert found == {}
