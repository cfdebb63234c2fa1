"""What is to be known of the first GPU, in one call: whether the batched trainer is right there, and how fast.

python -m benchmarks.first_gpu --minutes 6 [--out first_gpu]

It needs nothing but this repository and torch with CUDA. In this order, so that what matters most is known where time
runs out: the check of all activations and options (as `bdqm-tune doctor --gpu`); the time of an epoch of one trial by
torch's operations, and of 1, 2, 4, … 64 batched ones, without and with batch normalisation and dropout; at most a tenth
of the epochs of the predecessor's search (benchmarks/gpu_search.py), as time allows, from which the whole is
extrapolated. It writes FOLDER/first_gpu.json and FOLDER/first_gpu.md after each part. Without a GPU it says so, and
does the check alone, on the CPU.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bdqm_tune.backends.native import DTYPES, pick_device
from bdqm_tune.cli.gpu_check import lines
from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched import BatchedTrainer
from bdqm_tune.learning.batched.verification import all_cases, verify
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.fit import Fit
from benchmarks.gpu_search import memory, number_at_once, random_split, random_trials, seconds

CHECK_SECONDS = 90.0
IMAGES, ATOMS, BATCH_SIZE = 4000, 73, 256  # of the epochs that are timed
EPOCHS = 3  # the first of them is not timed: libraries initialise, and steps are captured
AT_ONCE = (1, 2, 4, 8, 16, 32, 64)
NETWORKS: dict[str, dict[str, Any]] = {
    "plain network": {},
    "batchnorm": {"batchnorm": True},
    "dropout": {"dropout": True},
}
SEARCH = {"images": 50_000, "trials": 150, "epochs": 250}  # the predecessor's, see gpu_search


class Report:
    """What was found so far, written after each part."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._parts = folder, dict[str, Any]()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, part: Any) -> None:
        """Add a part, plain JSON, and write both files."""
        self._parts[name] = part
        (self._folder / "first_gpu.json").write_text(json.dumps(self._parts, indent=1), encoding="utf-8")
        (self._folder / "first_gpu.md").write_text(page(self._parts), encoding="utf-8")


def page(parts: dict[str, Any]) -> str:
    """The report as Markdown.

    Args:
        parts: by name: `note`, `check` with its `lines`, `epochs` as rows, `search`; those that are there.
    """
    found = ["# The first GPU", ""]
    if note := parts.get("note"):
        found += [note, ""]
    if check := parts.get("check"):
        found += ["## The batched trainer beside torch's operations", "", "```", *check["lines"], "```", ""]
    if rows := parts.get("epochs"):
        found += ["## Milliseconds of an epoch, for each trial", ""]
        found += ["| network | trainer | trials at once | ms | GiB |", "|---|---|--:|--:|--:|"]
        for row in rows:
            which = f"| {row['network']} | {row['trainer']} | {row['at_once']} |"
            found.append(f"{which} {row['ms']:.1f} | {row['gib']:.2f} |")
        found.append("")
    if search := parts.get("search"):
        took = f"{search['what']}: {search['seconds']:.1f} s; the whole: {search['hours_of_the_whole']:.2f} h"
        found += ["## The large search", "", took, ""]
    return "\n".join(found)


def epoch_ms(splits: Sequence[SplitTensors], trials: Sequence[Hyperparameters], batched: bool) -> float:
    """Milliseconds of an epoch of each trial, all of them at the same time, without the first epoch."""
    trainer = BatchedTrainer() if batched else None
    training = Training(epochs=EPOCHS, early_stopping=None)

    def train(trial: Hyperparameters) -> float:
        fit = Fit(trial, training, *splits, 1.0, 0, compiled=False, trainer=trainer)
        return sum(record.epoch_seconds for record in fit if record.epoch > 1)

    with ThreadPoolExecutor(len(trials)) as pool:
        longest = max(pool.map(train, trials))
    return 1e3 * longest / (EPOCHS - 1) / len(trials)


def time_epochs(
    splits: Sequence[SplitTensors], device: torch.device, is_over: Callable[[], bool], report: Report
) -> None:
    """Add a row of each network, trainer and number of trials to the report, while there is time."""
    rows: list[dict[str, Any]] = []
    for name, options in NETWORKS.items():
        for at_once in (0, *AT_ONCE):
            if is_over():
                return
            trials = [
                trial.model_copy(update=options)
                for trial in random_trials(max(1, at_once), ["silu"], False, BATCH_SIZE)
            ]
            row = {"network": name, "trainer": "batched" if at_once else "torch", "at_once": max(1, at_once)}
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            try:
                ms = epoch_ms(splits, trials, at_once > 0)
            except torch.OutOfMemoryError:
                break
            rows.append({**row, "ms": ms, "gib": memory(device)})
            report.add("epochs", rows)


def search(device: torch.device, left: float, report: Report) -> None:
    """A part of the predecessor's search that takes about as many seconds as are left, extrapolated to the whole."""
    n_validation = SEARCH["images"] // 10
    splits = [random_split(n, ATOMS, device, torch.float32) for n in (SEARCH["images"] - n_validation, n_validation)]
    trials = random_trials(SEARCH["trials"], ["tanh", "relu", "gelu", "silu"], False, BATCH_SIZE)
    at_once = number_at_once(splits, trials[0])
    few = trials[:at_once]
    one = seconds(splits, few, 1, at_once)  # an epoch of each
    epochs = max(1, min(SEARCH["epochs"] // 10, int(left / max(one, 1e-3)) - 1))
    wall = seconds(splits, few, epochs, at_once)
    report.add(
        "search",
        {
            "what": f"{len(few)} trials at once, {epochs} epochs, {SEARCH['images']} images × {ATOMS} atoms",
            "seconds": wall,
            "hours_of_the_whole": wall / len(few) / epochs * SEARCH["trials"] * SEARCH["epochs"] / 3600,
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="that it may take, about (6)")
    parser.add_argument(
        "--out", type=Path, default=Path("first_gpu"), metavar="FOLDER", help="of the files (first_gpu)"
    )
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    report, device = Report(options.out), pick_device("auto")
    on_gpu = device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
        report.add("note", "No GPU is here: the check ran on the CPU, and nothing was timed.")
    verdict = verify(all_cases(), device, DTYPES["float32"], min(CHECK_SECONDS, 20 * options.minutes))
    text = lines(verdict, on_gpu)
    report.add("check", {**asdict(verdict), "agrees": verdict.agrees, "lines": text})
    print("\n".join(text), flush=True)
    if on_gpu:
        splits = [random_split(n, ATOMS, device, torch.float32) for n in (IMAGES, IMAGES // 10)]
        half = time.monotonic() + 0.6 * (end - time.monotonic())
        time_epochs(splits, device, lambda: time.monotonic() > half, report)
        del splits
        search(device, 0.6 * (end - time.monotonic()), report)
    print(f"written to {options.out}")
    return 0 if verdict.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
