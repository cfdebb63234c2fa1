"""The project's own engine."""

from collections.abc import Iterator

import scipy.linalg.cython_blas  # noqa: F401  (what compiled epochs call; loaded, it can be told how many cores to take)
import torch
from threadpoolctl import threadpool_limits

from bdqm_tune.config import Config
from bdqm_tune.errors import BadInput
from bdqm_tune.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import split_tensors
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import EpochRecord, Fit
from bdqm_tune.learning.potential import Potential
from bdqm_tune.learning.room import Room
from bdqm_tune.threads import usable_cores


class NativeRun:
    """One training of the engine."""

    def __init__(self, fit: Fit, dataset: Dataset, hyperparameters: Hyperparameters) -> None:
        self._fit, self._dataset, self._hyperparameters = fit, dataset, hyperparameters

    @property
    def n_parameters(self) -> int:
        return self._fit.n_parameters

    @property
    def best(self) -> EpochRecord | None:
        return self._fit.best

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self._fit)

    def potential(self) -> Potential:
        return Potential.from_dataset(self._dataset, self._hyperparameters, self._fit.best_network)


BLAS_THREADS = 64  # that may call it at the same time, as SciPy builds it
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class NativeBackend:
    """Keeps both splits as tensors on the device, or as much of them as it has room for, once for all trials."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self._config, self._dataset = config, dataset
        device = pick_device(config.device)
        self.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        dtype = DTYPES[config.training.precision]
        room = Room.on(device, config.memory)
        self._train, self._validation = (
            split_tensors(dataset, split, device, dtype, config.training.forces, room)
            for split in (dataset.train, dataset.validation)
        )
        self.at_once = 1
        # From the disk one trial at a time: the batches of each take memory.
        if device.type == "cpu" and self._train.loaded and self._validation.loaded:
            self.at_once = min(usable_cores(), BLAS_THREADS)
            # One core a trial; of several that share one, each would wait for the others in every step.
            torch.set_num_threads(1)
            threadpool_limits(1, user_api="blas")

    def start(self, hyperparameters: Hyperparameters, seed: int) -> NativeRun:
        fit = Fit(
            hyperparameters,
            self._config.training,
            self._train,
            self._validation,
            self._dataset.scale,
            seed,
            self._config.target.objective,
        )
        return NativeRun(fit, self._dataset, hyperparameters)


def pick_device(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N.

    Raises:
        BadInput: there is no such GPU here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device {name}: there are {torch.cuda.device_count()} usable GPUs here; use --device cpu or auto"
        )
    return device
