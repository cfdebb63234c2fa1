"""The package as a wheel, and an environment that has it in place of the repository."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from sysconfig import get_path

import pytest

PROJECT = Path(__file__).parents[1]
SOURCES = ("bdqm_tune", "jobs", "MLproject", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in SOURCES:  # a build leaves files beside the sources
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if "Could not find a version" in done.stderr and "BDQM_REQUIRE" not in os.environ:
        pytest.skip("no package index, from which a wheel's build takes setuptools")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def install(wheel: Path, environment: Path) -> Path:
    """Make an environment with the wheel, and the other packages of this one; gives the folder of its commands."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(get_path("purelib") + "\n")  # whose own .pth files are not read
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(command, check=True)
    return environment / "bin"
