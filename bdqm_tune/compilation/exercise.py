"""Calls everything that numba compiles, so that it is compiled.

python -m bdqm_tune.compilation.exercise

A process of its own: a user's script that imports this package would be run again by processes that it spawns.
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def gaussian_multipoles(_folder: Path) -> None:
    """Features of Gaussian multipoles and their derivatives."""
    from bdqm_tune.descriptors import GMP, GMPGroups

    _features(GMP([0, 1, 2], [0.5, 1.0], 4.0))
    _features(GMPGroups({0: [1], 1: [1], 2: [1, 2]}, [0.5, 1.0], 4.0, square=False))


def symmetry_functions(_folder: Path) -> None:
    """Symmetry functions of all kinds and their derivatives."""
    from bdqm_tune.descriptors import SymmetryFunctions

    angular = {"etas": [0.01], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}
    for cutoff_function in ("cosine", "polynomial"):
        gamma = 2.0 if cutoff_function == "polynomial" else None
        radial = {"etas": [0.1], "rs": [0.0]}
        _features(SymmetryFunctions(["Cu"], 4.0, radial, angular, angular, cutoff_function, gamma))


def _features(descriptor: Any) -> None:
    atoms = _structures()[0]
    features = descriptor.compute(atoms)
    descriptor.derivatives(atoms)
    descriptor.with_backward(atoms)[1](features[None])


def training(folder: Path) -> None:
    """Epochs of training, in which forces change no type of numba's; predictions; and how a GPU's tiles are cut."""
    import ase.io
    import torch

    from bdqm_tune.backends.native import NativeBackend
    from bdqm_tune.config.config import load_config
    from bdqm_tune.config.hyperparameters import Hyperparameters
    from bdqm_tune.learning.batched.epoch_schedule import Data, EpochSchedule
    from bdqm_tune.learning.batches import split_tensors
    from bdqm_tune.learning.dataset import prepare

    train = folder / "train.traj"
    ase.io.write(train, _structures())
    groups: dict[str, dict[str, Any]] = {
        "data": {"train": str(train)},
        "descriptor": {"orders": [0, 1], "sigmas": 2, "cutoff": 4.0},
        "": {"device": "cpu"},
    }
    for precision in ("float32", "float64"):
        config = load_config(None, groups | {"training": {"epochs": 1, "forces": True, "precision": precision}})
        dataset = prepare(config, folder / "home")
        run = NativeBackend(config, dataset).start(Hyperparameters(), 0)
        list(run)
        run.potential().predict(_structures()[:1])
    place = torch.device("cpu"), torch.float32
    data = Data(*(split_tensors(dataset, split, *place) for split in (dataset.train, dataset.validation)))
    EpochSchedule(data, torch.arange(data.n_train), [data.n_train], 128, whole=False)


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


def main() -> None:
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


if __name__ == "__main__":
    main()
