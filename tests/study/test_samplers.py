"""Where pruners compare trials."""

import optuna
import pytest

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
    ],
)
def test_rungs(pruner: str, epochs: int, expected: list[int]) -> None:
    assert list(rungs(pruner, epochs)) == expected  # type: ignore[arg-type]


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
