"""The native backend: the trainers of `learning`."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  (called by compiled epochs; once loaded, its threads can be limited)
import torch
from threadpoolctl import threadpool_limits

from bdqm_tune.backends.batched_cases import cases_of
from bdqm_tune.backends.sizes import trial_of
from bdqm_tune.config import earlier_training
from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import as_before
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.batched import BatchedTrainer, Verdict, can_batch
from bdqm_tune.learning.batched.at_once import trials_at_once
from bdqm_tune.learning.batched.epoch_schedule import Data
from bdqm_tune.learning.batched.verification import verify
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.dataset import Dataset, Split
from bdqm_tune.learning.fit import Checkpoint, EpochRecord, Fit
from bdqm_tune.learning.fold_epochs import Fold
from bdqm_tune.learning.held_out import HeldOut
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import borrowed_random_numbers, make_network
from bdqm_tune.learning.plain_network import is_plain
from bdqm_tune.progress import note
from bdqm_tune.threads import usable_cores


class NativeRun:
    """One training of the native backend: of one network or, with folds, of one without each and one on all."""

    def __init__(self, fit: Fit, dataset: Dataset, hyperparameters: Hyperparameters, key: dict[str, Any]) -> None:
        self._fit, self._dataset, self._hyperparameters = fit, dataset, hyperparameters
        self.key = key

    @property
    def n_parameters(self) -> int:
        return self._fit.n_parameters

    @property
    def records(self) -> list[EpochRecord]:
        return self._fit.records

    @property
    def best(self) -> EpochRecord | None:
        return self._fit.best

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self._fit)

    def checkpoint(self) -> Checkpoint | None:
        return self._fit.checkpoint()

    def restore(self, checkpoint: Checkpoint) -> None:
        self._fit.restore(checkpoint)

    def potential(self) -> NetworkPotential:
        return NetworkPotential.from_dataset(self._dataset, self._hyperparameters, self._fit.best_network)

    def held_out(self) -> HeldOut:
        return self._fit.held_out()


class OnDevice(NamedTuple):
    """A dataset with features of one descriptor, and its splits on the device."""

    dataset: Dataset
    train: SplitTensors
    validation: SplitTensors  # with folds, the same
    folds: list[Fold]
    room: MemoryBudget  # its part of the device's budget

    @property
    def loaded(self) -> bool:
        """Whether all of it is on the device."""
        of_folds = [split for fold in self.folds for split in (fold.train, fold.validation)]
        return all(split.loaded for split in (self.train, self.validation, *of_folds))


GPU_TRIALS = 4  # parallel trials on a GPU if each may have features of its own in the GPU's memory
BLAS_THREADS = 64  # that may call BLAS at the same time, as SciPy builds it
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class NativeBackend:
    """Holds both splits on the device, as far as they fit, once for all trials.

    Of a searched descriptor it holds the datasets used last. On a GPU trials train batched where the batched trainer
    agrees with torch's operations (see `learning.batched.verification`), on a CPU in a thread each.
    """

    def __init__(
        self, config: Config, dataset: Dataset, batched: bool | None = None, verified: bool | None = None
    ) -> None:
        """
        Args:
            config: what it leaves to the data is decided as in `dataset`.
            batched: whether trials train batched; None: on a GPU.
            verified: whether the batched trainer is checked first; None: on a GPU.
        """
        decided = dataset.config.training
        config = config.decided(bool(decided.forces), bool(decided.stress))
        self._config, self._dataset = config, dataset
        self._place = pick_device(config.device)
        # With folds trials train alone: a batch is of networks on the same data.
        batches = not dataset.folds and (batched or (batched is None and self._place.type == "cuda"))
        self._trainer = BatchedTrainer() if batches else None
        self.device, self.at_once = "cpu", min(usable_cores(), BLAS_THREADS)
        if self._place.type == "cuda":
            self.device, self.at_once = torch.cuda.get_device_name(self._place), GPU_TRIALS
        else:
            # One core a trial; threads that share cores would wait for each other in every step.
            torch.set_num_threads(1)
            threadpool_limits(1, user_api="blas")
        on_gpu = self._place.type == "cuda"
        self._verdict = self._verify() if batches and (verified or (verified is None and on_gpu)) else None
        self.tags = self._verdict.tags() if self._verdict else {}
        # Parallel trials may have a descriptor each; one part more is for descriptors that later trials may use.
        at_once = self.at_once if config.cohort == "auto" else config.cohort
        self._parts = at_once + 1 if config.descriptor_spaces else 1
        self._datasets: dict[str, OnDevice] = {}  # by descriptor, the latest used last
        self._lock, self._loading = threading.Lock(), defaultdict[str, threading.Lock](threading.Lock)
        if config.descriptor_spaces:
            return
        data = self._on_device(dataset)
        if not data.loaded:
            self.at_once = 1  # the batches of each trial, from the disk, take memory
        elif self._trainer is not None and config.cohort == "auto":
            self.at_once = self._parallel_trials(data)

    def start(self, hyperparameters: Hyperparameters, seed: int, dataset: Dataset | None = None) -> NativeRun:
        data = self._on_device(dataset or self._dataset)
        may_batch = self._verdict is None or self._verdict.covers(hyperparameters)
        fit = Fit(
            hyperparameters,
            self._config.training,
            data.train,
            data.validation,
            data.dataset.scale,
            seed,
            self._config.objective,
            trainer=self._trainer if may_batch else None,
            folds=data.folds,
        )
        # A hyperparameter of what is not trained: checkpoints of the time before it existed stay good.
        idle = None if self._config.training.stress else {"stress_coefficient"}
        key = {
            "backend": "native",
            "engine": fit.engine,
            "device": self._place.type,
            "hyperparameters": hyperparameters.model_dump(mode="json", exclude=idle),
            "training": earlier_training.as_before(self._config.training.model_dump(mode="json")),
            "target": self._config.target.model_dump(mode="json") | {"objective": self._config.objective},
            "descriptor": as_before(data.dataset.config.descriptor.model_dump(mode="json")),
            "seed": seed,
            "data": data.dataset.digest,
        }
        return NativeRun(fit, data.dataset, hyperparameters, key)

    def _verify(self) -> Verdict | None:
        """Check the batched trainer for what the study can try, and do without it where it is wrong.

        None: nothing of the study can be batched.
        """
        cases = cases_of(self._config)
        if not cases:
            return None
        verdict = verify(cases, self._place, DTYPES[self._config.training.precision])
        if verdict.warning:
            note(f"bdqm-tune: {verdict.warning}")
        if not verdict.agrees:
            self._trainer = None
        return verdict

    def _parallel_trials(self, data: OnDevice) -> int:
        """The number of parallel trials on this device, by its memory and by the measured time of steps."""
        middle, largest = trial_of(self._config, "middle"), trial_of(self._config, "largest")
        n_features = data.train.n_features
        with borrowed_random_numbers():
            network = make_network(n_features, middle, data.train.elements)
        if not (can_batch(middle, data.train, data.validation) and is_plain(network, n_features, middle)):
            return 1
        return trials_at_once(Data(data.train, data.validation), middle, largest)

    def _on_device(self, dataset: Dataset) -> OnDevice:
        """The dataset on the device, loaded by the first thread that needs its descriptor."""
        key = dataset.config.descriptor.model_dump_json()
        with self._lock:
            loading = self._loading[key]
        with loading:
            with self._lock:
                data = self._datasets.pop(key, None)
            if data is None:
                data = self._load(dataset)
            with self._lock:
                while sum(other.room.taken for other in self._datasets.values()) > data.room.n_bytes:
                    del self._datasets[next(iter(self._datasets))]
                self._datasets[key] = data
        return data

    def _load(self, dataset: Dataset) -> OnDevice:
        training, room = self._config.training, MemoryBudget.on(self._place, self._config.memory, self._parts)
        forces, stress, dtype = bool(training.forces), bool(training.stress), DTYPES[training.precision]

        def tensors(own: Dataset, split: Split) -> SplitTensors:
            return split_tensors(own, split, self._place, dtype, forces, room, stress)

        train = tensors(dataset, dataset.train)
        if not dataset.folds:
            return OnDevice(dataset, train, tensors(dataset, dataset.validation), [], room)
        folds = []
        for fold in dataset.folds:
            trained, held_out = (
                torch.from_numpy(np.searchsorted(dataset.train.indices, split.indices))
                for split in (fold.train, fold.validation)
            )
            splits = tensors(fold, fold.train), tensors(fold, fold.validation)
            folds.append(Fold(*splits, trained, held_out, fold.scale))
        return OnDevice(dataset, train, train, folds, room)


def pick_device(name: str) -> torch.device:
    """The torch device of a name: auto (a GPU if there is one), cpu, cuda or cuda:N.

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
