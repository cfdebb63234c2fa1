"""Where pruners compare trials."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.pruners import ThresholdPruner
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import TrialState

import bdqm_tune as bt
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import find_stores
from bdqm_tune.study.samplers import make_pruner, make_sampler, rungs


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        ("hyperband", 100, [11, 33]),
        ("halving", 60, [6, 18]),
        ("hyperband", 9, [1, 3]),
        ("halving", 1, [1]),
        ("median", 100, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
        ("none", 100, []),
        ("python:PercentilePruner", 4, [1, 2, 3]),
        ("python:NopPruner", 4, []),
    ],
)
def test_rungs(pruner: str, epochs: int, expected: list[int]) -> None:
    assert list(rungs(pruner, epochs)) == expected


def test_successive_halving_prunes_at_our_rungs_and_nowhere_else() -> None:
    study = optuna.create_study(pruner=make_pruner("halving", 60))
    pruned_at = set()
    for number in range(12):
        trial = study.ask()
        for epoch in range(1, 61):
            trial.report(float(number), epoch)  # each trial is worse than those before it
            if trial.should_prune():
                pruned_at.add(epoch)
                break
        study.tell(trial, float(number))
    assert pruned_at
    assert pruned_at <= set(rungs("halving", 60))


def test_tpe_learns_from_all_trials_under_hyperband() -> None:
    """Optuna would show it one bracket's trials only, and it would draw at random for ten trials a bracket."""
    study = optuna.create_study(sampler=make_sampler("tpe", 0, 0), pruner=make_pruner("hyperband", 81))
    for _ in range(60):
        trial = study.ask()
        study.tell(trial, (trial.suggest_float("x", 0, 1) - 0.3) ** 2)
    late = [abs(trial.params["x"] - 0.3) for trial in study.trials[40:]]
    assert sum(late) / len(late) < 0.1  # 0.29 at random


def test_objects_of_optuna_are_used_and_recorded_by_their_class(
    configure: Callable[..., Config], workdir: Path
) -> None:
    data = prepare(configure(study={"enqueue": []}), find_stores().home)
    nodes = PartialFixedSampler({"num_nodes": 5}, RandomSampler(seed=1))
    study = bt.tune(data, "objects", 2, nodes, ThresholdPruner(upper=-1.0, n_warmup_steps=2))
    assert [trial.params["num_nodes"] for trial in study.trials] == [5, 5]
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 2
    assert [max(trial.intermediate_values) for trial in study.trials] == [2, 2]
    trials = bt.load_results("objects").trials
    assert set(trials["sampler"]) == {"python:PartialFixedSampler"}
    assert set(trials["pruner"]) == {"python:ThresholdPruner"}
    # By names it goes on; what was an object cannot be had by its name.
    assert len(bt.tune(data, "objects", 1, "random", "none").trials) == 3
    with pytest.raises(BadInput, match=r"study\.sampler: python:PartialFixedSampler was an object.*--sampler NAME"):
        bt.tune(data, "objects", 1, "python:PartialFixedSampler")
    assert len(bt.load_results("objects").trials) == 3


def test_names_of_samplers_and_pruners_are_listed() -> None:
    with pytest.raises(BadInput, match="study.sampler: should be 'tpe', .* or 'nsgaii', got 'tbe'"):
        load_config(None, {"study": {"sampler": "tbe"}})
    with pytest.raises(BadInput, match="study.pruner: should be 'hyperband', .* or 'none', got 'hb'"):
        load_config(None, {"study": {"pruner": "hb"}})
