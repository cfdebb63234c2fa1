"""What a single validation split and cross-validation choose, at an equal number of trainings.

python -m benchmarks.folds [--data ../shared/data] [--only OC20 Mo] [--seeds 10] [--trainings 30] [--folds 5]

For each data set and each seed of the split, configurations are drawn at random from the default search space, the
default one first. With `fraction: 0.1` each is a training; with k folds each is k + 1 trainings, so that a (k + 1)th of
them are tried. The configuration with the least validation error is taken, and its model is judged by the test split.

The table has means over the seeds, with their standard error: the test error of what was chosen, and that less the one
of a single split, its validation error, how much too low that is (test less validation), and how much it was estimated
to be, by the choice among the trials alone (`study.optimism`). `--equal-trials` also tries as many configurations
with folds as without.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
from scipy import stats

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import stored_features
from bdqm_tune.learning.bootstrap import selection_optimism
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.fit import Diverged
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.structures import read_structures
from bdqm_tune.study.search_space import suggest
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.units import FORCE_LENGTH, OBJECTIVE_UNITS, shown

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CASES = {
    "OC20": ("oc20_300_train.traj", "oc20_300_test.traj", {"forces": False}),
    "Mo": ("mlearn/Mo_train.xyz", "mlearn/Mo_test.xyz", {"forces": True}),
}


class Tried(NamedTuple):
    """One configuration, trained."""

    value: float  # the objective, on what validates it
    parts: list[float]  # of it, by groups of structures
    potential: NetworkPotential


class Chosen(NamedTuple):
    """The best configuration of one seed, in the objective's unit."""

    test: float
    validation: float
    estimated: float  # optimism of the choice


@dataclass(frozen=True, eq=False)
class Way:
    """How configurations are validated, and how many are tried."""

    name: str
    validation: dict[str, Any]
    trials: int
    trainings: int  # of one network, in all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is wanted and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these data sets")
    parser.add_argument("--seeds", type=int, default=10, help="of the split and the networks")
    parser.add_argument("--trainings", type=int, default=30, help="of each seed, with a single split and with folds")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--equal-trials", action="store_true", help="also as many configurations with folds as without")
    options = parser.parse_args(arguments)
    quiet_libraries()
    n, networks = options.trainings, options.folds + 1
    folded = [n // networks, *([n] if options.equal_trials else [])]
    single = Way("fraction 0.1", {"fraction": 0.1}, n, n)
    of_folds = [Way(f"{options.folds} folds", {"folds": options.folds}, k, k * networks) for k in folded]
    rows = []
    for name in options.only:
        found: dict[Way, list[Chosen]] = defaultdict(list)
        with TemporaryDirectory(prefix="folds-") as home:
            test = Test(name, options.data, Path(home))
            for seed in range(options.seeds):
                for ways in ([single], of_folds):
                    config = configuration(options.data, name, ways[0].validation, seed, options.epochs)
                    tried = train(config, Path(home), seed, ways[-1].trials)
                    for way in ways:
                        found[way].append(choose(tried[: way.trials], test, config))
                        print(
                            f"{name}, seed {seed}, {way.trials} × {way.name}: {found[way][-1]}",
                            file=sys.stderr,
                            flush=True,
                        )
        rows += [row(name, way, config, results, found[single]) for way, results in found.items()]
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def configuration(data: Path, name: str, validation: dict[str, Any], seed: int, epochs: int) -> Config:
    """The default configuration of a data set, with this validation."""
    train, _, training = CASES[name]
    split = {**validation, "seed": 12 + seed}
    groups: dict[str, dict[str, Any]] = {
        "data": {"train": str(data / train), "validation": split},
        "training": {**training, "epochs": epochs},
        "": {"device": "cpu"},
    }
    return load_config(None, groups)


def train(config: Config, home: Path, seed: int, n_trials: int) -> list[Tried | None]:
    """Train a number of configurations; None where one diverged."""
    dataset = prepare(config, home)
    backend = make_backend(config, dataset)

    def run(number: int, hyperparameters: Hyperparameters) -> Tried | None:
        training = backend.start(hyperparameters, 1000 * seed + number)
        try:
            for _ in training:
                pass
        except Diverged:
            return None
        best, held_out = training.best, training.held_out()
        assert best is not None
        assert held_out is not None
        return Tried(best.value(config.objective), held_out.by_group(config.objective), training.potential())

    drawn = configurations(config, seed, n_trials, len(dataset.train.structures))
    with ThreadPoolExecutor(backend.at_once) as pool:
        return list(pool.map(run, range(n_trials), drawn))


def choose(trials: Sequence[Tried | None], test: "Test", config: Config) -> Chosen:
    """The configuration with the least validation error, judged by the test split."""
    tried = [one for one in trials if one is not None]
    best = min(tried, key=lambda one: one.value)
    optimism = selection_optimism(np.array([one.parts for one in tried])) if len(tried) > 1 else 0.0
    return Chosen(test.error(best.potential, config), best.value, optimism)


def configurations(config: Config, seed: int, n_trials: int, n_train: int) -> list[Hyperparameters]:
    """The default configuration and random ones, the same with folds and without."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    drawn = [suggest(study.ask(), config, n_train).hyperparameters for _ in range(n_trials - 1)]
    return [Hyperparameters(**config.fixed), *drawn]


class Test:
    """The test split of a data set."""

    def __init__(self, name: str, data: Path, home: Path) -> None:
        self._file, self._home = str(data / CASES[name][1]), home

    def error(self, potential: NetworkPotential, config: Config) -> float:
        """The objective on it, in its unit."""
        test = read_structures(self._file, config.data)
        if not config.training.forces:
            features = np.asarray(stored_features(test, potential.descriptor, self._home / "features"))
            return float(np.abs(potential.predict_features(features, test.atoms) - test.energies).mean())
        predicted = potential.predict(test.atoms)
        assert predicted.forces is not None
        assert test.forces is not None
        forces = np.abs(np.concatenate(predicted.forces) - np.concatenate(test.forces)).mean()
        return float((np.abs(predicted.energies - test.energies) / test.n_atoms).mean() + FORCE_LENGTH * forces)


def row(name: str, way: Way, config: Config, results: Sequence[Chosen], single: Sequence[Chosen]) -> dict[str, Any]:
    """A line of the table.

    Args:
        single: what a single split chose with the same seeds.
    """
    factor, unit = shown(1.0, OBJECTIVE_UNITS[config.objective])
    frame = pd.DataFrame(results)
    frame["too_low"] = frame["test"] - frame["validation"]
    frame["less"] = frame["test"] - pd.DataFrame(single)["test"]

    def text(column: str) -> str:
        values = factor * frame[column].to_numpy(dtype=float)
        spread = f" ± {stats.sem(values):.2g}" if len(values) > 1 else ""
        return f"{values.mean():.4g}{spread}"

    return {
        "data": name,
        "unit": unit,
        "validation": way.name,
        "trials": way.trials,
        "trainings": way.trainings,
        "test error": text("test"),
        "its deviation": f"{factor * frame['test'].std():.2g}",
        "less single": text("less"),
        "validation error": text("validation"),
        "too low by": text("too_low"),
        "estimated": text("estimated"),
    }


if __name__ == "__main__":
    sys.exit(main())
