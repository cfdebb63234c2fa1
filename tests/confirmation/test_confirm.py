"""Finalists retrained: from the stores to a champion, which stands for the study from then on."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from scipy import stats

from bdqm_tune.admin.runs import runs_of_study
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.candidates import Candidate
from bdqm_tune.confirmation.confirm import Confirmation, Options, confirm
from bdqm_tune.confirmation.doubts import easier_validation
from bdqm_tune.confirmation.ranking import decide, table
from bdqm_tune.confirmation.retraining import Retraining
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.data import study_dataset, trial_config
from bdqm_tune.study.selection import chosen_model
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from tests.forked import Forked

Tuned = Callable[..., optuna.Study]


@pytest.fixture
def tuned(configure: Callable[..., Config]) -> Tuned:
    """`tuned(stores, name, …)`: a study of four complete trials."""

    def go(stores: Stores, name: str = "small", n_trials: int = 4, **groups: Any) -> optuna.Study:
        study = {"name": name, "n_trials": n_trials, "pruner": "none"} | groups.pop("study", {})
        config = configure(study=study, **({"training": {"epochs": 4}} | groups))
        return tune(prepare(config, stores.home), config, stores)

    return go


def retrained(client: MlflowClient, made: Confirmation) -> list[Run]:
    """The runs under that of the confirmation."""
    parent = client.get_run(made.champion.confirmation_run_id)
    return client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=1000
    )


def test_from_a_study_to_its_champion(both: Stores, tuned: Tuned, files: dict[str, str]) -> None:
    name = f"confirm-{both.connection_file is None}"
    study = tuned(both, name)
    (kept,) = (both.home / "test").glob("*.traj")
    kept.rename("aside.traj")
    lines: list[str] = []
    made = confirm(both, name, Options(best=2, seeds=3), lambda line, done, n: lines.append(f"{done}/{n} {line}"))
    assert not kept.exists(), "the test split is not needed, and so not looked at"
    Path("aside.traj").rename(kept)
    assert len(lines) == 9
    assert lines[-1].startswith("9/9 ")

    client = tracking_client(both)
    ranked = sorted(study.get_trials(), key=lambda trial: trial.value)
    runs = retrained(client, made)
    assert {run.info.run_name for run in runs} == {
        f"{of}-seed-{seed}" for of in (*(f"trial-{t.number:03d}" for t in ranked[:2]), "default") for seed in (1, 2, 3)
    }
    for run in runs:
        assert run.info.status == "FINISHED"
        assert (run.data.tags["kind"], run.data.tags["study"]) == ("confirm", name)
        assert run.data.tags["seed"] == run.data.params["seed"]
        assert [m.step for m in client.get_metric_history(run.info.run_id, "val_energy_mae")] == [1, 2, 3, 4]
        load_potential(run.info.run_id, both)
    of_best = [run for run in runs if run.data.tags.get("trial") == str(ranked[0].number)]
    for key, value in ranked[0].params.items():
        assert {run.data.params[key] for run in of_best} == {str(value)}

    # The table says what the runs say, and what scipy says of them.
    by_name = {str(row["name"]): row for row in made.table.to_dict("records")}
    for row in by_name.values():
        mine = [run for run in runs if run.info.run_name.startswith(f"{row['name']}-seed")]
        values = np.array(
            [r.data.metrics["best_val_energy_mae"] for r in sorted(mine, key=lambda r: r.data.tags["seed"])]
        )
        interval = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
        assert (row["mean"], row["low"], row["high"]) == pytest.approx((values.mean(), *interval))
        assert row["best"] == values.min()
        assert row["n_parameters"] == mine[0].data.metrics["n_parameters"]
    assert made.table["mean"].is_monotonic_increasing

    # It is the study's from now on.
    champion = made.champion
    (best,) = [run for run in runs if run.info.run_id == champion.run_id]
    assert champion.value == best.data.metrics["best_val_energy_mae"] == by_name[made.name]["best"]
    parent = client.get_run(champion.confirmation_run_id)
    assert (parent.data.tags["kind"], parent.data.tags["champion_run_id"]) == ("confirmation", champion.run_id)
    assert parent.data.metrics["champion_val_energy_mae_mean"] == champion.mean
    assert parent.info.status == "FINISHED"
    with pytest.raises(BadInput, match=f"that of a confirmation, whose champion is {champion.run_id}"):
        load_potential(parent.info.run_id, both)
    folder = Path(client.download_artifacts(parent.info.run_id, ""))
    pd.testing.assert_frame_equal(pd.read_csv(folder / "finalists.csv"), made.table, check_dtype=False)
    assert json.loads((folder / "confirmation.json").read_text())["champion"]["run_id"] == champion.run_id
    assert len(pd.read_csv(folder / "retrainings.csv")) == 9
    chosen = chosen_model(study)
    assert (chosen.trial, chosen.run_id) == (champion.trial, champion.run_id)
    evaluation = evaluate_best(both, name)
    assert evaluation.trial == champion.trial
    assert client.get_run(evaluation.run_id).data.tags["model_run_id"] == champion.run_id

    # Again, and with more: only what is new is trained, under the same run.
    again = confirm(both, name, Options(best=2, seeds=3), lambda line, done, n: lines.append(line))
    assert all(line.endswith("trained before") for line in lines[9:])
    pd.testing.assert_frame_equal(again.table, made.table)
    assert again.champion == champion
    more = confirm(both, name, Options(best=3, seeds=4))
    assert more.champion.confirmation_run_id == champion.confirmation_run_id
    assert len(retrained(client, more)) == 16
    of_study = {run.info.run_id for run in runs_of_study(client, name, study.get_trials(), [])}
    assert of_study >= {parent.info.run_id, *(run.info.run_id for run in retrained(client, more))}
    tuned(both, name, 1)
    assert "1 trials were added since" in chosen_model(study).why


@pytest.mark.endurance
def test_it_is_compared_with_a_random_search_of_the_same_budget(stores: Stores, tuned: Tuned) -> None:
    study = tuned(stores)
    none = confirm(stores, "small", Options(best=2, seeds=2))
    assert "there is no random search with the same signature" in none.random
    made = confirm(stores, "small", Options(best=2, seeds=2, random="run"))
    other = optuna.load_study(study_name="small-random", storage=study._storage)
    trials = other.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    best = min(trials, key=lambda trial: trial.value)
    assert made.random == "random search: the best of the first 4 trials of study 'small-random'"
    (row,) = [row for row in made.table.to_dict("records") if row["kind"] == "random"]
    assert row["name"] == f"random: trial {best.number} of small-random"
    assert any(line.startswith(row["name"]) for line in made.baselines)
    client = tracking_client(stores)
    config = trial_config(client, client.get_run(row["best_run_id"]))
    assert {key: config.fixed[key] for key in best.params} == best.params
    # It is found from now on, made only once, and brought to what the study has.
    assert confirm(stores, "small", Options(best=2, seeds=2)).random == made.random
    confirm(stores, "small", Options(best=2, seeds=2, random="run"))
    assert len(other.get_trials()) == 4
    tuned(stores, n_trials=2)
    assert "first 4 trials of study 'small-random', of 6" in confirm(stores, "small", Options(best=2, seeds=2)).random
    confirm(stores, "small", Options(best=2, seeds=2, random="run"))
    assert len(other.get_trials()) == 6

    tuned(stores, "tpe")
    tuned(stores, "longer", study={"sampler": "random"}, training={"epochs": 5})
    for name, message in {
        "tpe": "has trials that another sampler chose",
        "longer": "has another search-space signature",
        "nobody": "no other study 'nobody'; there are: .*small-random",
    }.items():
        with pytest.raises(BadInput, match=f"--random: .*{message}"):
            confirm(stores, "small", Options(best=2, seeds=2, random=name))
    assert confirm(stores, "small", Options(best=2, seeds=2, random="none")).random.startswith("not compared")


def test_a_searched_descriptor_is_trained_with_each_as_it_was(stores: Stores, tuned: Tuned) -> None:
    search = {"descriptor.cutoff": {"float": [3.0, 5.0]}, "num_layers": 1, "num_nodes": 4}
    study = tuned(stores, search=search)
    made = confirm(stores, "small", Options(best=3, seeds=2))
    client = tracking_client(stores)
    found = {run.info.run_name.rpartition("-seed-")[0]: run for run in retrained(client, made)}
    for trial in sorted(study.get_trials(), key=lambda trial: trial.value)[:3]:
        run = found[f"trial-{trial.number:03d}"]
        assert float(run.data.params["descriptor_cutoff"]) == trial.params["descriptor.cutoff"]
        assert (
            load_potential(run.info.run_id, stores).descriptor.settings["cutoff"] == trial.params["descriptor.cutoff"]
        )
    assert found.get("default", found.get("trial-000")).data.params["descriptor_cutoff"] == "4.0"


def test_the_trainings_are_those_of_the_engine(stores: Stores, tuned: Tuned) -> None:
    """With the seed of the trial itself the same numbers come out, side by side or not."""
    from bdqm_tune.backends import make_backend
    from bdqm_tune.study.run_contents import tried_by

    study = tuned(stores, n_trials=2, **{"": {"cohort": 3}})
    made = confirm(stores, "small", Options(best=2, seeds=4))
    client = tracking_client(stores)
    run = client.get_run(study.best_trial.user_attrs["mlflow_run_id"])
    config = trial_config(client, run)
    dataset = study_dataset(config, run, stores.home)
    backend = make_backend(config, dataset)
    for row in made.retrainings[made.retrainings["name"] == f"trial-{study.best_trial.number:03d}"].to_dict("records"):
        training = backend.start(tried_by(config).hyperparameters, row["seed"], dataset)
        assert min(record.val_energy_mae for record in training) == row["value"]


def test_what_cannot_be_confirmed_is_said_before_anything_is_trained(
    stores: Stores, tuned: Tuned, files: dict[str, str], workdir: Path
) -> None:
    with pytest.raises(BadInput, match="no study 'small'"):
        confirm(stores, "small", Options())
    with pytest.raises(BadInput, match="--seeds must be from 2 to 100, got 1"):
        Options(seeds=1)
    with pytest.raises(BadInput, match="--best must be from 1 to 100, got 101"):
        Options(best=101)
    study = tuned(stores, n_trials=1)
    with pytest.raises(BadInput, match=r"other\.traj: has other structures than the trials were trained on"):
        confirm(stores, "small", Options(train=files["other"]))
    with pytest.raises(BadInput, match="device cuda:77"):
        confirm(stores, "small", Options(device="cuda:77"))
    client = tracking_client(stores)
    assert client.search_runs([study.user_attrs["mlflow_experiment_id"]], "tags.kind = 'confirm'") == []
    assert chosen_model(study).why.startswith("the best trial")
    copy = workdir / "moved.traj"
    copy.write_bytes(Path(files["train"]).read_bytes())
    made = confirm(stores, "small", Options(seeds=2, train=str(copy)))
    assert made.champion.why == "trial-000 is the only finalist"


def candidates(configure: Callable[..., Config], **trained: tuple[list[float], int]) -> Any:
    """Candidates, and what they gave; NaN: it diverged. One named `default` is a baseline."""
    found, config = [], configure()
    for number, name in enumerate(trained):
        kind = "default" if name == "default" else "finalist"
        found.append(Candidate(name, kind, None if kind == "default" else number, config))
    runs = {
        name: [
            Retraining(
                i, f"{name}-{i}", "complete" if v == v else "pruned", v, size, 1.0, "" if v == v else "diverged", False
            )
            for i, v in enumerate(values)
        ]
        for name, (values, size) in trained.items()
    }
    return found, runs


def test_of_two_that_cannot_be_told_apart_the_smaller_is_chosen(configure: Callable[..., Config]) -> None:
    clear = candidates(
        configure, a=([1.0, 1.1, 0.9, 1.0], 500), b=([2.0, 2.1, 1.9, 2.0], 100), default=([3.0, 3.1, 2.9, 3.0], 1)
    )
    verdict = decide(*clear, "eV")
    assert verdict.champion.name == "a"
    assert verdict.best.run_id == "a-2"
    assert "a is better than the runner-up b: +1 eV" in verdict.why
    assert "two-sided paired t-test over the seeds" in verdict.why
    assert verdict.baselines[0].startswith("default is worse than a: +2 eV")

    few = {name: ([one.value for one in runs[:3]], runs[0].n_parameters) for name, runs in clear[1].items()}
    verdict = decide(*candidates(configure, **few), "eV")
    assert verdict.champion.name == "a", "the lesser mean, though it is not shown to be better"
    assert verdict.why.startswith("no winner is declared from 3 seeds, at least 4 are needed; a stands for the study")
    assert "such a difference needs about 4 seeds (80 % power)" in verdict.why
    said = " ".join([verdict.why, *verdict.baselines])
    assert not any(word in said for word in ("better than", "worse than", "BETTER", "p = "))

    values = {"a": [1.0, 1.2, 0.9, 1.0], "b": [1.2, 1.0, 1.1, 1.0], "default": [0.2, 0.1, 0.3, 0.2]}
    unclear = candidates(configure, a=(values["a"], 500), b=(values["b"], 100), default=(values["default"], 1))
    verdict = decide(*unclear, "eV")
    assert verdict.champion.name == "b"
    assert "a cannot be told from the runner-up b" in verdict.why
    assert "b is smaller, with 100 parameters against 500" in verdict.why
    assert verdict.baselines[0].startswith("default is BETTER than b")
    frame = table(*unclear, verdict.champion)
    assert frame["name"].tolist() == ["default", "a", "b"]
    assert frame["difference"].tolist()[:2] == pytest.approx([0.2 - 1.075, 1.025 - 1.075])

    same = candidates(configure, a=([1.0, 1.2, 0.9], 100), b=([1.2, 1.0, 1.1], 100))
    assert decide(*same, "eV").champion.name == "a"


def test_one_that_diverges_with_a_seed_is_not_chosen(configure: Callable[..., Config]) -> None:
    nan = float("nan")
    some = candidates(configure, a=([0.1, nan, 0.1], 5), b=([2.0, 2.1, 1.9], 100), default=([nan, nan, nan], 1))
    verdict = decide(*some, "eV")
    assert verdict.champion.name == "b"
    assert "trained to the end with 0 of 3 seeds only" in verdict.baselines[0]
    frame = table(*some, verdict.champion)
    assert frame["name"].tolist() == ["b", "a", "default"]
    assert frame["seeds"].tolist() == [3, 2, 0]
    with pytest.raises(BdqmError, match="no finalist was trained to the end with every seed: diverged"):
        decide(*candidates(configure, a=([0.1, nan], 5)), "eV")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.endurance
def test_an_interrupted_confirmation_goes_on(
    stores: Stores, tuned: Tuned, workdir: Path, number: signal.Signals
) -> None:
    tuned(stores, n_trials=2, training={"epochs": 200, "early_stopping": None})
    command = ["-m", "bdqm_tune", "confirm", "--study", "small", "--best", "2", "--seeds", "8"]
    process = Forked(command)
    while "4/24" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(60) == (130 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert rest.endswith("interrupted; the same command resumes what was not trained to its end\n")
    lines: list[str] = []
    made = confirm(stores, "small", Options(best=2, seeds=8), lambda line, done, n: lines.append(line))
    # What the last ones gave may not have been sent yet.
    assert 1 <= sum(line.endswith("trained before") for line in lines) < 24
    runs = retrained(tracking_client(stores), made)
    assert sum(run.info.status == "FINISHED" for run in runs) == 24
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_the_run_of_mlflow_run_is_that_of_the_confirmation(
    stores: Stores, tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tuned(stores, n_trials=1)
    client = MlflowClient()
    given = [client.create_run(study.user_attrs["mlflow_experiment_id"]).info.run_id for _ in range(2)]
    for run_id in given:
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        assert confirm(stores, "small", Options(seeds=2)).champion.confirmation_run_id == given[0]
    assert client.get_run(given[0]).info.run_name == "confirm-small"
    assert client.get_run(given[1]).data.tags["confirmation_run_id"] == given[0]


def test_a_validation_split_without_what_is_hard_is_pointed_out() -> None:
    """As oxygen that springs off a surface in a few frames, all of which the training split got."""
    metrics = {"train_energy_mae": 0.105, "val_energy_mae": 0.036, "train_forces_mae": 0.012, "val_forces_mae": 0.04}
    (note,) = easier_validation(metrics)
    assert note.startswith(
        "the champion's energies are off by 0.105 eV on training, and by 0.036 on the validation split"
    )
    assert easier_validation({**metrics, "val_energy_mae": 0.06}) == []
    (note,) = easier_validation(
        {"train_energy_mae": 0.1, "val_energy_mae": 0.1, "train_forces_mae": 1, "val_forces_mae": 0.1}
    )
    assert "forces are off by 1 eV/Å on" in note
    assert easier_validation({"train_energy_mae": 0.1, "val_energy_mae": 0.1}) == [], "forces are not trained"
