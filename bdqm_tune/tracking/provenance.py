"""Where, with what and from which sources something was computed."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bdqm_tune.threads import usable_cores

JOB_ID_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID")
PACKAGES = ("bdqm-tune", "torch", "optuna", "mlflow", "ase", "numpy", "sphericart", "vesin")


@cache
def provenance_tags() -> dict[str, str]:
    """Tags that say host, processor, cores, scheduler job, source state and versions."""
    tags = {
        "host": socket.gethostname(),
        "cpu": _cpu(),
        "cores": str(usable_cores()),
        "version.python": platform.python_version(),
    }
    for variable in JOB_ID_VARIABLES:
        if job := os.environ.get(variable):
            tags["scheduler_job_id"] = job
    if commit := _git("rev-parse", "HEAD"):
        tags["git_commit"] = commit
        tags["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:  # run from its sources, not installed
            continue
    return tags


def _cpu() -> str:
    """The processor's name, or its kind where the system does not report the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str:
    """Output of a git command in the package's repository, empty where it is not in one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
