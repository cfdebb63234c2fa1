"""How good the potentials are that come out of `tune`, `confirm` and `evaluate` at their defaults, on published data.

python -m benchmarks.accuracy [--data ../shared/data] [--only Mo Si OC20] [--seeds 3] [--set NAME=VALUE,...]

For each data set, and each seed of the validation split, the sampler and the networks, it runs the three commands as a
user does, in an empty folder, and prints the errors of the champion on the test split, which nothing was chosen by:
their mean over the seeds, the range, the CPU time and the minutes of `tune` and `confirm` together, the time that a
prediction of energy and forces takes an atom, and the share of the trials whose error of the energies on what validates
them is below that of reference energies alone. OC20's slabs get an ensemble in place of `confirm`. Published values
stand beside them, from the README files of the data. `docs/accuracy.md` has the table.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

VALIDATED = "validation_reference_energy_mae"  # of `prepare`, eV: the error of reference energies alone
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class Case(NamedTuple):
    """One data set: its files below the folder of the data, and what is known about it."""

    train: str
    test: str
    published: str  # "" where there is nothing
    energies: str = "test_energy_mae_per_atom"  # the error of energies that is quoted for it
    unit: float = 1000.0  # of it in eV/atom (or eV)
    settings: str = ""  # options of tune
    n_trials: str = ""
    ensemble: int = 0  # of so many trials, in place of confirm's champion
    pruner: str = ""


CASES = {
    "Mo": Case("mlearn/Mo_train.xyz", "mlearn/Mo_test.xyz", "n2p2 3.65 | 0.125, GAP 1.99 | 0.107"),
    "Si": Case("mlearn/Si_train.xyz", "mlearn/Si_test.xyz", "n2p2 5.63 | 0.109, GAP 3.26 | 0.079"),
    # 300 slabs of 55 elements: nobody learns their forces, a single network's energies are noisy, and so are the errors
    # of 30 validation structures.
    "OC20": Case(
        "oc20_300_train.traj",
        "oc20_300_test.traj",
        "",
        "test_energy_mae",
        1.0,
        "training.forces=false,data.validation.folds=5",
        "60",
        10,
    ),
}


class Result(NamedTuple):
    """What came out of one run of the commands."""

    energies: float  # meV/atom, or eV
    forces: float | None  # eV/Å
    cpu_seconds: float
    minutes: float
    microseconds_per_atom: float
    beating: float  # share of the trials whose validation error is below that of reference energies alone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is wanted and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these data sets")
    parser.add_argument("--train", type=Path, help="a training file of one's own in place of them, with --test")
    parser.add_argument("--test", type=Path, help="its test file")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--n-trials", default="", help="of each study; default: that of tune")
    parser.add_argument("--set", default="", help="options, as of tune")
    parser.add_argument(
        "--ensemble", type=int, default=0, help="of that number of best trials, in place of confirm's champion"
    )
    options = parser.parse_args(arguments)
    cases = {name: CASES[name] for name in options.only}
    if options.train is not None:
        cases = {options.train.stem: Case(str(options.train.resolve()), str(options.test.resolve()), "")}
    if options.ensemble:
        cases = {name: case._replace(ensemble=options.ensemble) for name, case in cases.items()}
    rows = []
    for name, case in cases.items():
        results = []
        for seed in range(options.seeds):
            results.append(run(case, options.data.resolve(), seed, options.set, options.n_trials))
            print(f"{name}, seed {seed}: {results[-1]}", file=sys.stderr, flush=True)
        rows.append(row(name, case, results))
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def run(case: Case, data: Path, seed: int, settings: str, n_trials: str) -> Result:
    """The three commands in a folder of their own."""
    with TemporaryDirectory(prefix="accuracy-") as folder:
        seeds = {"data": {"validation": {"seed": 12 + seed}}, "study": {"seed": seed}}
        (Path(folder) / "seeds.yaml").write_text(json.dumps(seeds))
        files = ["--train", str(data / case.train), "--test", str(data / case.test), "--config", "seeds.yaml"]
        options = ",".join(part for part in (case.settings, settings) if part)
        trials = ["--n-trials", n_trials or case.n_trials] if n_trials or case.n_trials else []
        before, start = _cpu_seconds(), time.perf_counter()
        pruner = ["--pruner", case.pruner] if case.pruner else []
        given = [*trials, *pruner, *(["--set", options] if options else [])]
        command(folder, "tune", *files, "--study", "accuracy", *given)
        if case.ensemble:
            command(folder, "ensemble", "--study", "accuracy", "--best", str(case.ensemble))
        else:
            command(folder, "confirm", "--study", "accuracy")
        cpu_seconds, minutes = _cpu_seconds() - before, (time.perf_counter() - start) / 60
        which = ["--ensemble", "latest"] if case.ensemble else []
        found = json.loads(command(folder, "evaluate", "--study", "accuracy", "--json", *which))
        beating = _share_beating_references(folder, files, options)
    return Result(
        energies=case.unit * found[case.energies],
        forces=found.get("test_forces_mae"),
        cpu_seconds=cpu_seconds,
        minutes=minutes,
        microseconds_per_atom=1e6
        * found.get("inference_seconds_per_atom_with_forces", found["inference_seconds_per_atom"]),
        beating=beating,
    )


def _share_beating_references(folder: str, files: Sequence[str], settings: str) -> float:
    """The share of all trials, pruned ones included, that are better than reference energies on what validates them."""
    script = "import bdqm_tune as bt; print(bt.load_results('accuracy').trials['val_energy_mae'].to_json())"
    errors = json.loads(_python(folder, "-c", script))
    given = ["--set", settings] if settings else []
    references = json.loads(command(folder, "prepare", *files, *given, "--json"))[VALIDATED]
    return float(np.mean([error is not None and error < references for error in errors.values()]))


def command(folder: str, *arguments: str) -> str:
    """What a command of the package prints. Raises CalledProcessError if it fails; its messages are shown then."""
    return _python(folder, "-m", "bdqm_tune", *arguments)


def environment() -> dict[str, str]:
    """The variables of the commands: the user's, without stores of other studies."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("BDQM_", "MLFLOW_"))}
    return own | {"MLFLOW_DISABLE_TELEMETRY": "true"}


def _python(folder: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()
    return done.stdout


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, case: Case, results: Sequence[Result]) -> dict[str, Any]:
    """The line of a data set in the table."""
    found = pd.DataFrame(results)
    unit = "meV/atom" if case.unit > 1 else "eV"

    def shown(column: str, digits: int) -> str:
        values = found[column].dropna()
        if values.empty:
            return "-"
        return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"

    return {
        "data": name,
        "energy MAE": f"{shown('energies', 2)} {unit}",
        "force MAE, eV/Å": shown("forces", 4),
        "CPU s": f"{found['cpu_seconds'].mean():.0f}",
        "minutes": f"{found['minutes'].mean():.1f}",
        "µs/atom": f"{found['microseconds_per_atom'].mean():.0f}",
        "trials below references": f"{found['beating'].mean():.0%}",
        "published": case.published or "-",
    }


if __name__ == "__main__":
    sys.exit(main())
