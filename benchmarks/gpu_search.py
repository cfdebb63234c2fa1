"""A search of the size of the predecessor's big one, by batched trials on a GPU.

python -m benchmarks.gpu_search [--one-at-a-time 2] [--at-once N]
python -m benchmarks.gpu_search --device cpu --images 300 --atoms 20 --trials 8 --epochs 3    # a small one here

50,000 images of 73 atoms with 32 random features, made on the device, a tenth of them to validate; 150 trials of 250
epochs with batches of 256, in networks of 6 to 20 layers of 10 to 30 nodes. It prints the machine, the wall time, the
time of a trial and epoch, the operations of the products a second beside the peak of large products as measured in the
same run, and the memory. `--one-at-a-time` also trains so many of the trials by torch's operations, one after the
other, for two epochs each.
"""

import argparse
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

from bdqm_tune.backends.native import DTYPES, pick_device
from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.batched import BatchedTrainer
from bdqm_tune.learning.batched.at_once import trials_at_once
from bdqm_tune.learning.batched.epoch_schedule import Data
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.memory_budget import GIB
from benchmarks.training import processor

N_FEATURES, LAYERS, NODES, VALIDATION = 32, (6, 20), (10, 30), 0.1
FEW_EPOCHS = 2  # of trials that are trained one at a time


def random_split(images: int, atoms: int, device: torch.device, dtype: torch.dtype) -> SplitTensors:
    """Images of as many atoms each, with a target that can be learned."""
    features = torch.randn(images * atoms, N_FEATURES, device=device, dtype=dtype)
    targets = torch.tanh(features[:, 0]).view(images, atoms).sum(1).cpu().double().numpy()
    return SplitTensors(features, np.full(images, atoms), targets / targets.std(), device, dtype)


def random_trials(n: int, activations: list[str], batchnorm: bool, batch_size: int) -> list[Hyperparameters]:
    """Networks from all over the ranges."""
    random = np.random.default_rng(0)
    return [
        Hyperparameters(
            num_layers=int(random.integers(LAYERS[0], LAYERS[1] + 1)),
            num_nodes=int(random.integers(NODES[0], NODES[1] + 1)),
            activation=activations[i % len(activations)],
            batchnorm=batchnorm,
            batch_size=batch_size,
            lr=float(10 ** random.uniform(-4, -2.5)),
        )
        for i in range(n)
    ]


def operations(trial: Hyperparameters, train_atoms: int, validation_atoms: int) -> float:
    """Floating point operations of the products of an epoch, without padding; see benchmarks/training.py."""
    products = [2 * a * b for a, b in pairwise([N_FEATURES, *trial.layers, 1])]
    return train_atoms * (3 * sum(products) - products[0]) + validation_atoms * sum(products)


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of products of large matrices, as measured now."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        a @ a
        wait(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device) -> float:
    """Most that was taken, GiB: on a GPU of its memory, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def number_at_once(splits: list[SplitTensors], trial: Hyperparameters) -> int:
    """Trials that the engine would train together here."""
    middle, largest = (
        trial.model_copy(update={"num_layers": layers, "num_nodes": nodes})
        for layers, nodes in ((sum(LAYERS) // 2, sum(NODES) // 2), (LAYERS[1], NODES[1]))
    )
    return trials_at_once(Data(*splits), middle, largest)


def seconds(splits: list[SplitTensors], trials: list[Hyperparameters], epochs: int, at_once: int | None) -> float:
    """Wall time of all trials, so many batched at a time, or by torch's operations one after the other."""
    training, trainer = Training(epochs=epochs, early_stopping=None), BatchedTrainer() if at_once else None

    def train(trial: Hyperparameters) -> None:
        for _ in Fit(trial, training, *splits, 1.0, 0, compiled=False, trainer=trainer):
            pass

    with ThreadPoolExecutor(at_once or 1) as pool:
        start = time.perf_counter()
        list(pool.map(train, trials))
        return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--atoms", type=int, default=73, help="of each image (73)")
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--activations", default="tanh,relu,gelu,silu", help="in turn (tanh,relu,gelu,silu)")
    parser.add_argument("--batchnorm", action="store_true")
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--at-once", type=int, default=0, help="trials that are batched (measured)")
    parser.add_argument("--one-at-a-time", type=int, default=0, help="trials that torch trains, to compare (0)")
    options = parser.parse_args()
    try:
        device = pick_device(options.device)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    dtype = DTYPES[options.precision]
    best = peak(device, dtype)
    n_validation = max(1, round(VALIDATION * options.images))
    splits = [random_split(n, options.atoms, device, dtype) for n in (options.images - n_validation, n_validation)]
    trials = random_trials(options.trials, options.activations.split(","), options.batchnorm, options.batch_size)
    at_once, how = options.at_once, "as requested"
    if not at_once:
        start = time.perf_counter()
        at_once = number_at_once(splits, trials[0])
        how = f"as was found in {time.perf_counter() - start:.1f} s"
    wall = seconds(splits, trials, options.epochs, at_once)
    work = sum(operations(trial, *(len(split) * options.atoms for split in splits)) for trial in trials)
    rate = work * options.epochs / wall
    epoch = wall / options.trials / options.epochs
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor()} (CPU)"
    print(f"{name}; torch {torch.__version__}, {options.precision}")
    print(f"{options.images} images × {options.atoms} atoms × {N_FEATURES} features, batches of {options.batch_size}")
    print(f"{options.trials} trials × {options.epochs} epochs: {wall:.1f} s, {at_once} trials at once, {how}")
    print(f"a trial and epoch: {1e3 * epoch:.2f} ms")
    print(f"products: {rate / 1e12:.3f} TFLOP/s, {rate / best:.1%} of the {best / 1e12:.2f} TFLOP/s of large ones")
    print(f"memory: {memory(device):.2f} GiB")
    if few := trials[: options.one_at_a_time]:
        alone = seconds(splits, few, FEW_EPOCHS, None) / len(few) / FEW_EPOCHS
        print(f"one at a time by torch's operations: {1e3 * alone:.2f} ms, {alone / epoch:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
