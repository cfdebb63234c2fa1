"""The ensemble of the champion's seeds, where it is better than they are on average."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bdqm_tune.cli.results import confirmation_lines
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation import seed_ensemble
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.models.registry import register
from bdqm_tune.models.store import load_model, load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.data import study_dataset, trial_config
from bdqm_tune.study.selection import chosen_model
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune

MANY = {"validation": {"fraction": 0.3}}  # 12 structures: enough to calibrate on


@pytest.fixture
def tuned(configure: Callable[..., Any], files: dict[str, str]) -> Callable[..., Config]:
    """`tuned(stores, data=…)`: the study `small`, of two complete trials, each trained until it is of use."""

    def go(stores: Stores, **groups: Any) -> Config:
        data = {"train": files["train"], "test": files["test"], **groups.pop("data", MANY)}
        options = {"name": "small", "n_trials": 2, "pruner": "none"}
        config: Config = configure(study=options, data=data, **({"training": {"epochs": 30}} | groups))
        tune(prepare(config, stores.home), config, stores)
        return config

    return go


def test_it_is_the_model_of_the_study_from_then_on(
    stores: Stores, tuned: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed_ensemble, "COST", 100.0)  # times are not what is tested here
    tuned(stores)
    made = confirm(stores, "small", Options(best=1, seeds=4))
    champion, client, study = made.champion, tracking_client(stores), load_study(stores, "small")
    assert champion.is_ensemble, made.ensemble
    found = load_model(champion.run_id, stores)
    assert isinstance(found, Ensemble)
    assert list(found.members) == [f"seed-{seed}" for seed in made.seeds]

    # Its error is that of the mean of the members, below the mean of their errors.
    first = client.get_run(champion.run_ids[0])
    held_out = study_dataset(trial_config(client, first), first, stores.home).validation.structures
    singles = [load_potential(run_id, stores).predict(held_out.atoms, False).energies for run_id in champion.run_ids]
    errors = np.abs(np.array(singles) - held_out.energies).mean(axis=1)
    assert champion.value == pytest.approx(np.abs(np.mean(singles, axis=0) - held_out.energies).mean(), rel=1e-4)
    assert champion.value < errors.mean() == pytest.approx(champion.mean, rel=1e-4)
    assert champion.seed == made.seeds[int(errors.argmin())]
    run = client.get_run(champion.run_id)
    assert run.data.tags["mlflow.parentRunId"] == champion.confirmation_run_id
    assert run.data.tags["model_run_ids"] == ", ".join(champion.run_ids)
    lines = confirmation_lines(made)
    assert any(line.endswith(f"run {champion.run_ids[int(errors.argmin())]}") for line in lines)
    (line,) = (line for line in lines if line.startswith("its model is the ensemble of its 4 seeds: "))
    assert line.endswith(f"run {champion.run_id}")

    # What takes the study's model takes it.
    chosen = chosen_model(study)
    assert (chosen.run_id, chosen.trained_in) == (champion.run_id, champion.run_ids[0])
    evaluation = evaluate_best(stores, "small")
    assert (evaluation.trial, evaluation.opening.model) == (0, "the ensemble of trial 0 with 4 seeds")
    assert evaluation.coverage is not None
    version = register(stores, "small")
    assert version.run_id == champion.run_id
    served = load_model("models:/small@champion", stores)
    assert isinstance(served, Ensemble)
    predicted = served.predict(held_out.atoms, False).energies
    assert predicted == pytest.approx(found.predict(held_out.atoms, False).energies)
    with pytest.raises(BadInput, match=f"a member of it is one, such as runs:/{champion.run_id}/ensemble/seed-1$"):
        load_potential(champion.run_id, stores)
    assert load_potential(f"runs:/{champion.run_id}/ensemble/seed-1", stores)

    # Again nothing is made twice; without the option the best training is the champion.
    assert confirm(stores, "small", Options(best=1, seeds=4)).champion == champion
    single = confirm(stores, "small", Options(best=1, seeds=4, ensemble=False)).champion
    best = champion.run_ids[int(errors.argmin())]
    assert single == replace(champion, run_id=best, value=single.value, is_ensemble=False)


def test_it_is_not_where_it_is_no_better_or_takes_too_long(
    stores: Stores, tuned: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(stores)
    monkeypatch.setattr(seed_ensemble, "COST", 0.5)  # no ensemble is faster than a member
    made = confirm(stores, "small", Options(best=1, seeds=3))
    assert not made.champion.is_ensemble
    assert made.champion.run_id in made.champion.run_ids
    assert made.ensemble.startswith("its model is not the ensemble of its 3 seeds: ")
    assert made.ensemble in confirmation_lines(made)


def test_without_enough_structures_to_calibrate_on_there_is_none(stores: Stores, tuned: Callable[..., Config]) -> None:
    tuned(stores, data={})
    made = confirm(stores, "small", Options(best=1, seeds=2))
    assert not made.champion.is_ensemble
    assert made.ensemble.startswith("no ensemble of its seeds was made: a coverage of 0.9 needs at least 9 structures")
