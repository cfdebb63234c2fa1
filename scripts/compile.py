"""Compile what numba compiles, or copy it from this user's cache where the same code was compiled before.

python -m scripts.compile

`make setup` and `make test` call it. Numba itself compiles a function at its first call, a minute in all, in every
clone and in each of several processes that begin at the same moment; and it does not notice when a function that is
compiled into another one changes in another file. Here the compiled files are kept by a digest of the code.
"""

import fcntl
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1] / "bdqm_tune"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bdqm-tune" / "compiled"
KEPT = 5  # digests of which compiled files are kept, the latest used; 7 MB each
SUFFIXES = (".nbi", ".nbc")
UNFINISHED = "new-"  # begins the name of a folder that is being filled


def sources(package: Path = PACKAGE) -> list[Path]:
    """All files of the folders in which something is compiled: one may be compiled into another."""
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    folders = {path.parent for path, text in texts.items() if "bdqm_tune.compiled import" in text}
    return sorted(path for path in texts if path.parent in folders or path == package / "compiled.py")


def digest(package: Path = PACKAGE) -> str:
    """Digest of the sources, and of what compiles them for which processor."""
    import llvmlite
    import numba
    import numpy
    from llvmlite import binding

    versions = [sys.version, numba.__version__, llvmlite.__version__, numpy.__version__, binding.get_host_cpu_name()]
    whole = hashlib.sha256(repr(versions).encode())
    for path in sources(package):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(package)} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:32]


def compiled_files(package: Path = PACKAGE) -> list[Path]:
    """Numba's files in a tree, of this version of Python."""
    version = f".py{sys.version_info.major}{sys.version_info.minor}."
    return [path for path in package.rglob("*.nb?") if path.suffix in SUFFIXES and version in path.name]


def take(key: str, package: Path = PACKAGE, cache: Path = CACHE) -> bool:
    """Copy the compiled files of this digest into the tree; False if there are none."""
    folder = cache / key
    if not folder.is_dir():
        return False
    folder.touch()  # used now
    shutil.copytree(folder, package, dirs_exist_ok=True)
    return True


def keep(key: str, package: Path = PACKAGE, cache: Path = CACHE) -> None:
    """Copy the compiled files of the tree into the cache, whole or not at all, and forget the oldest.

    Where there are none (numba was told to put them elsewhere), or no cache can be written, nothing is kept.
    """
    files = compiled_files(package)
    if not files:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=cache))
        for path in files:
            copy = made / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        if (cache / key).exists():  # another process was faster
            shutil.rmtree(made)
        else:
            made.rename(cache / key)
        made_before = [folder for folder in cache.iterdir() if not folder.name.startswith(UNFINISHED)]
        for old in sorted(made_before, key=lambda folder: folder.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        print(f"What was compiled is not kept for other clones: {error}", file=sys.stderr)


def gaussian_multipoles(folder: Path) -> None:
    """Features of Gaussian multipoles and their derivatives."""
    from bdqm_tune.descriptors import GMP, GMPGroups

    _features(GMP([0, 1, 2], [0.5, 1.0], 4.0))
    _features(GMPGroups({0: [1], 1: [1], 2: [1, 2]}, [0.5, 1.0], 4.0))


def symmetry_functions(folder: Path) -> None:
    """Symmetry functions of all kinds and their derivatives."""
    from bdqm_tune.descriptors import SymmetryFunctions

    angular = {"etas": [0.01], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}
    for cutoff_function in ("cosine", "polynomial"):
        gamma = 2.0 if cutoff_function == "polynomial" else None
        radial = {"etas": [0.1], "rs": [0.0]}
        _features(SymmetryFunctions(["Cu"], 4.0, radial, angular, angular, cutoff_function, gamma))


def _features(descriptor: Any) -> None:
    atoms = _structures()[0]
    descriptor.compute(atoms)
    descriptor.derivatives(atoms)


def training(folder: Path) -> None:
    """Epochs of training, in which forces change no type of numba's; and how they are cut into tiles for a GPU."""
    import ase.io
    import torch

    from bdqm_tune.backends import NativeBackend
    from bdqm_tune.config.config import load_config
    from bdqm_tune.config.hyperparameters import Hyperparameters
    from bdqm_tune.learning.batches import split_tensors
    from bdqm_tune.learning.dataset import prepare
    from bdqm_tune.learning.stacked.plan import Data, Plan

    train = folder / "train.traj"
    ase.io.write(train, _structures())
    groups = {
        "data": {"train": str(train)},
        "descriptor": {"orders": [0, 1], "sigmas": 2, "cutoff": 4.0},
        "": {"device": "cpu"},
    }
    for precision in ("float32", "float64"):
        config = load_config(None, groups | {"training": {"epochs": 1, "forces": True, "precision": precision}})
        dataset = prepare(config, folder / "home")
        list(NativeBackend(config, dataset).start(Hyperparameters(), 0))
    place = torch.device("cpu"), torch.float32
    data = Data(*(split_tensors(dataset, split, *place) for split in (dataset.train, dataset.validation)))
    Plan(data, torch.arange(data.n_train), [data.n_train], 128, whole=False)


def _structures() -> list[Any]:
    """A dozen small cells of copper."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    made = []
    for number in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=number)
        atoms.calc = EMT()
        atoms.get_forces()
        made.append(atoms)
    return made


def compile_all() -> None:
    """Compile what is not yet: first features, which training needs, and then training in each precision.

    Two processes at once have no function in common: numba's index of a function is not made for two that write it.
    """
    with tempfile.TemporaryDirectory() as folder:
        stages: tuple[list[Callable[[Path], None]], ...] = ([gaussian_multipoles, symmetry_functions], [training])
        context = multiprocessing.get_context("spawn")
        for stage in stages:
            with ProcessPoolExecutor(len(stage), context) as pool:
                for done in [pool.submit(each, Path(folder)) for each in stage]:
                    done.result()


def bring(package: Path = PACKAGE, cache: Path = CACHE) -> None:
    """Have compiled files of the code as it is in the tree, and no others."""
    folder = package / "__pycache__"
    folder.mkdir(exist_ok=True)
    with (folder / "compiled.lock").open("w") as lock:  # of two at once, one compiles
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = folder / f"compiled.{sys.implementation.cache_tag}.digest"
        while not (mark.exists() and mark.read_text() == digest(package)):
            key = digest(package)
            mark.unlink(missing_ok=True)
            for path in compiled_files(package):  # of other code
                path.unlink()
            if not take(key, package, cache):
                print("Compiling loops: a minute, once for this code on this machine", flush=True)
                compile_all()
                if digest(package) != key:  # changed meanwhile
                    continue
                keep(key, package, cache)
            unfinished = mark.with_suffix(".unfinished")
            unfinished.write_text(key)
            unfinished.replace(mark)


if __name__ == "__main__":
    bring()
