"""Backends side by side: studies of the same split and the same time on this machine, and what their best models do.

python -m benchmarks.trainers [--data ../shared/data] [--only Mo Si] [--backends native mace] [--minutes 15]

For each data set and backend one `tune` runs for `--minutes`, with more trials than it can finish, and is then told
to end, as a job is at its walltime. `evaluate` opens the test split for the best trial, and `compare` prints both
studies in one table, with the time of predictions. A trial of MACE has fewer epochs than others, for one takes seconds
on a CPU. Nothing is chosen by the errors on the test split. mace-torch has to be installed (`make mace`).
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmarks.accuracy import CASES, DATA, command, environment

OPTIONS = {"mace": ["--set", "training.epochs=30"]}
GRACE = 120  # seconds in which a worker ends
MANY = "1000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=("Mo", "Si"), default=("Mo", "Si"), help="these data sets")
    parser.add_argument("--backends", nargs="+", default=("native", "mace"), help="that are compared")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each study")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.only:
        case = CASES[name]
        with TemporaryDirectory(prefix="trainers-") as folder:
            files = ["--train", str(options.data.resolve() / case.train)]
            files += ["--test", str(options.data.resolve() / case.test)]
            for backend in options.backends:
                tune(
                    folder,
                    [*files, "--study", backend, "--backend", backend, *OPTIONS.get(backend, [])],
                    options.minutes,
                )
                rows.append(row(name, backend, folder))
                print(rows[-1], file=sys.stderr, flush=True)
            print(f"{name}\n{command(folder, 'compare', *options.backends)}", flush=True)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4g}".format))
    return 0


def tune(folder: str, arguments: Sequence[str], minutes: float) -> None:
    """Tune for so long. Raises CalledProcessError if it fails before."""
    run = [sys.executable, "-m", "bdqm_tune", "tune", *arguments, "--n-trials", MANY]
    with subprocess.Popen(run, cwd=folder, env=environment(), stdout=subprocess.DEVNULL) as worker:
        try:
            status = worker.wait(60 * minutes)
            raise subprocess.CalledProcessError(status, run)
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGTERM)
            worker.wait(GRACE)


def row(data: str, backend: str, folder: str) -> dict[str, Any]:
    """The line of a study: trials, and its best model on the test split."""
    status = json.loads(command(folder, "status", backend, "--json"))
    found = json.loads(command(folder, "evaluate", "--study", backend, "--json"))
    return {
        "data": data,
        "backend": backend,
        "complete": status["complete"],
        "pruned": status["pruned"],
        "energies, meV/atom": 1000 * found["test_energy_mae_per_atom"],
        "forces, eV/Å": found["test_forces_mae"],
        "µs/atom": 1e6 * found["inference_seconds_per_atom_with_forces"],
    }


if __name__ == "__main__":
    sys.exit(main())
