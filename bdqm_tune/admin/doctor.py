"""Whether this machine and Python have what is needed, and the two stores can be used as they are."""

import os
import platform
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import get_args

import mlflow
import requests
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement

from bdqm_tune.config import backends
from bdqm_tune.config.backends import find_backend, named
from bdqm_tune.config.config import Sampler
from bdqm_tune.config.descriptor_options import DESCRIPTORS
from bdqm_tune.config.descriptor_plugins import find_descriptor
from bdqm_tune.errors import BdqmError
from bdqm_tune.plugins import Kind, load_plugin, plugins
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.diagnostics import ERROR, OK, WARNING, Finding
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.services.submission import SCHEDULERS
from bdqm_tune.storage.database import StudyDatabase, not_made_yet, opened
from bdqm_tune.threads import usable_cores
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.search import tracking_not_made_yet
from bdqm_tune.units import bytes_text

FULL, NEARLY_FULL = 1e9, 5e9  # bytes that are free
# Names of this package, which no other package can replace.
BUILT_IN: Mapping[Kind, Collection[str]] = {
    "backend": backends.BUILT_IN,
    "descriptor": DESCRIPTORS,
    "sampler": get_args(Sampler),
    "scheduler": SCHEDULERS,
}


def check_studies(stores: Stores) -> Finding:
    """The database of studies: reached, and of this version of Optuna."""
    try:
        database = StudyDatabase(stores)
        if not_made_yet(stores):
            return Finding("studies", OK, f"{database} is not made yet; `bdqm-tune tune` makes it")
        with opened(stores) as storage:
            backend = storage.backend
            count = len(backend.get_all_studies())
            where = str(database).partition("?")[0]
            counted = f"{where}: {count} {'study' if count == 1 else 'studies'}"
            return Finding("studies", OK, f"{counted}, tables of Optuna's revision {backend.get_current_version()}")
    except BdqmError as error:
        return Finding("studies", ERROR, str(error))


def check_runs(stores: Stores) -> Finding:
    """MLflow's store: reached, and of this version of MLflow."""
    try:
        where = without_secrets(stores.tracking_uri or mlflow.get_tracking_uri())
        if tracking_not_made_yet(stores):
            return Finding("runs", OK, f"MLflow's store {where} is not made yet; `bdqm-tune tune` makes it")
        tracking_client(stores).search_experiments(max_results=1)
    except (MlflowException, requests.RequestException, OSError) as error:
        return Finding("runs", ERROR, f"MLflow's store {where}: {reason(error)}")
    except BdqmError as error:
        return Finding("runs", ERROR, str(error))
    # A server checks its tables itself, and may be of another version.
    fits = "" if where.startswith("http") else f", its tables fit mlflow {mlflow.__version__}"
    return Finding("runs", OK, f"MLflow's store {where} answers{fits}")


def packages(distribution: str = "bdqm-tune") -> Iterator[Finding]:
    """Python and the packages beside the oldest versions that are supported."""
    try:
        needed = [Requirement(text) for text in requires(distribution) or ()]
    except PackageNotFoundError:
        yield Finding("packages", WARNING, f"{distribution} is not installed in this Python", "make setup")
        return
    needed = [package for package in needed if package.marker is None or package.marker.evaluate({"extra": ""})]
    versions = [(package, _version(package.name)) for package in needed]
    wrong = [(package, found) for package, found in versions if not (found and package.specifier.contains(found, True))]
    for package, found in wrong:
        name, specifier = package.name, package.specifier
        message = f"{name} {found} is here, {specifier} is needed" if found else f"{name} is missing"
        yield Finding("packages", ERROR, message, f"pip install --upgrade '{name}{specifier}'")
    if not wrong:
        message = f"Python {platform.python_version()}, {len(needed)} packages as required"
        yield Finding("packages", OK, f"{message}; optuna {_version('optuna')}, mlflow {_version('mlflow')}")


def _version(name: str) -> str:
    """The version of a package, "" if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def git() -> Finding:
    """Whether MLflow can record the commit."""
    if shutil.which("git"):
        return Finding("git", OK, "there")
    return Finding("git", WARNING, "not on the PATH: no run records its commit", "sudo apt-get install git")


def gpu() -> Finding:
    """What training uses, and whether it could use more."""
    import torch

    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return judge_gpu(driver, torch.version.cuda or torch.version.hip, names, visible, torch.__version__)


def judge_gpu(
    driver: bool, built_for: str | None, names: Sequence[str], visible: str | None, torch_version: str
) -> Finding:
    """What these mean together.

    Args:
        driver: whether NVIDIA's is there.
        built_for: version of CUDA that torch is built for, if it is.
        names: of the devices that torch sees.
        visible: CUDA_VISIBLE_DEVICES.
    """
    setting = "" if visible is None else f"; CUDA_VISIBLE_DEVICES={visible}"
    if names:
        return Finding("gpu", OK, f"{', '.join(names)}{setting}; torch {torch_version}")
    cpu = f"training uses the CPU, {usable_cores()} cores"
    if not driver:
        return Finding("gpu", OK, f"no NVIDIA driver here: {cpu}")
    if built_for is None:
        plain = torch_version.partition("+")[0]
        return Finding(
            "gpu",
            WARNING,
            f"there is an NVIDIA driver, but torch {torch_version} is built for the CPU alone: {cpu}",
            f"pip install --force-reinstall torch=={plain}",
        )
    if visible is not None:
        return Finding(
            "gpu",
            WARNING,
            f"torch sees no GPU{setting}: {cpu}",
            "unset CUDA_VISIBLE_DEVICES, or request a GPU in the job",
        )
    return Finding("gpu", WARNING, f"there is an NVIDIA driver, but torch sees no GPU: {cpu}", "nvidia-smi")


def disk(home: Path) -> Finding:
    """Room where features, test splits and the embedded database are."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    message = f"{bytes_text(free)} free at {home}"
    if free >= NEARLY_FULL:
        return Finding("disk", OK, message)
    return Finding(
        "disk", ERROR if free < FULL else WARNING, message, "bdqm-tune gc --keep-best 5; or BDQM_HOME=FOLDER"
    )


def other_packages() -> Iterator[Finding]:
    """What other packages add: each by kind, name and distribution, and why one cannot be used."""
    for kind, name, where, problem in plugins(BUILT_IN):
        # Its message names it once more, for those who see nothing else.
        problem = (problem or _problem(kind, name)).removeprefix(f"{kind} {name!r}: ")
        problem = problem.removeprefix(f"{where.partition(' ')[0]} ")
        finding = f"{kind} {name!r}: {where}"
        yield Finding("plugins", WARNING, f"{finding}: {problem}") if problem else Finding("plugins", OK, finding)


def _problem(kind: Kind, name: str) -> str:
    """Why what loads is still no plugin of its kind; "" if it is one."""
    try:
        if kind == "backend":
            backend = find_backend(name)
            _ = named(backend.make), named(backend.load)
        elif kind == "descriptor":
            descriptor = find_descriptor(name)
            _ = named(descriptor.make), named(descriptor.load)
        elif not callable(load_plugin(kind, name)):
            return "cannot be called"
    except BdqmError as error:
        return str(error)
    return ""
