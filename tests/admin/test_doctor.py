"""What `doctor` says of packages, git, the GPU and the disk."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from bdqm_tune.admin import doctor
from bdqm_tune.admin.doctor import disk, git, gpu, judge_gpu, packages
from bdqm_tune.services.diagnostics import ERROR, OK, WARNING


class Usage(NamedTuple):
    """Of a disk, in bytes."""

    total: int
    used: int
    free: int


def test_this_environment_is_as_required() -> None:
    (found,) = packages()
    assert found.state == OK
    assert found.message.startswith("Python 3.")
    assert gpu().check == "gpu"


def test_what_is_too_old_or_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["optuna>=99", "no-such-package>=2", "numpy>=1", "never-asked-for>=1; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    old, missing = packages()
    assert (old.state, old.help) == (ERROR, "pip install --upgrade 'optuna>=99'")
    assert old.message.endswith("is here, >=99 is needed")
    assert (missing.state, missing.message) == (ERROR, "no-such-package is missing")


def test_sources_that_are_not_installed_are_told() -> None:
    (found,) = packages("no-such-distribution-of-ours")
    assert (found.state, found.help) == (WARNING, "make setup")


def test_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert git().state == OK
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git().state == WARNING


@pytest.mark.parametrize(
    ("driver", "built_for", "names", "visible", "state", "said", "help_"),
    [
        (False, None, [], None, OK, "no NVIDIA driver here: training uses the CPU", ""),
        (True, None, [], None, WARNING, "built for the CPU alone", "pip install --force-reinstall torch==2.13.0"),
        (True, "13.0", [], "", WARNING, "torch sees no GPU; CUDA_VISIBLE_DEVICES=:", "unset CUDA_VISIBLE_DEVICES"),
        (True, "13.0", [], None, WARNING, "torch sees no GPU: training uses the CPU", "nvidia-smi"),
        (True, "13.0", ["H100"], "2", OK, "H100; CUDA_VISIBLE_DEVICES=2; torch 2.13.0+cpu", ""),
    ],
)
def test_the_gpu(
    driver: bool, built_for: str | None, names: list[str], visible: str | None, state: str, said: str, help_: str
) -> None:
    found = judge_gpu(driver, built_for, names, visible, "2.13.0+cpu")
    assert found.state == state
    assert said in found.message
    assert found.help.startswith(help_)
    assert bool(found.help) == bool(help_)


@pytest.mark.parametrize(("free", "state"), [(5e8, ERROR), (2e9, WARNING), (2e10, OK)])
def test_the_disk_is_that_of_the_home_which_is_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, state: str
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Usage:
        asked.append(folder)
        return Usage(10**12, 0, int(free))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = disk(tmp_path / "a" / ".bdqm")
    assert (asked, found.state) == ([tmp_path], state)
    assert not (tmp_path / "a").exists()
