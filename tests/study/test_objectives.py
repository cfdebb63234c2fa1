"""Studies of several objectives: what trials are told, which are on the front, and what a user takes from it."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

import bdqm_tune as bt
from bdqm_tune.admin.artifact_gc import remove_artifacts
from bdqm_tune.admin.status import all_studies, status_lines, study_status
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.confirm import NONE, Options, confirm
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.registry import register
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.objectives import is_on_pareto_front
from bdqm_tune.study.pareto_front import pareto_front_lines, study_pareto_front
from bdqm_tune.study.results import load_results
from bdqm_tune.study.selection import champion_of, chosen_model
from bdqm_tune.study.study import RUN_ID, load_study
from bdqm_tune.tracking.trial_run import TrialRun
from bdqm_tune.tuning import prediction_time
from bdqm_tune.tuning.prediction_time import DESCRIPTOR_TIME
from bdqm_tune.tuning.tune import tune
from tests.marks import few

Run = Callable[..., Any]
SIZE = ["val_energy_mae", "n_parameters"]
ALL = [*SIZE, "time_per_atom"]


def several(objectives: list[str], **options: Any) -> dict[str, Any]:
    return {"name": "several", "n_trials": 6, "objectives": objectives, **options}


@pytest.fixture
def study(run: Run) -> optuna.Study:
    """Six trials, judged by error and size."""
    made, _ = run(study=several(SIZE), training={"epochs": 2})
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize("sampler", few(["tpe", "nsgaii"], ["random", "gp", "qmc", "grid"]))
def test_every_trial_is_told_all_objectives(run: Run, stores: Stores, sampler: str) -> None:
    study, results = run(study=several(ALL, sampler=sampler), training={"epochs": 1})
    assert [direction.name for direction in study.directions] == ["MINIMIZE"] * 3
    assert len(results) == 6
    for trial, result in zip(study.get_trials(), results, strict=True):
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [result.val_energy_mae, result.n_parameters, result.time_per_atom]
        assert 0 < result.time_per_atom < 1e-2
        run_ = MlflowClient().get_run(trial.user_attrs[RUN_ID])
        logged = [run_.data.metrics[name] for name in ("best_val_energy_mae", *ALL[1:])]
        assert logged == trial.values
        assert run_.data.tags["objectives"] == "val_energy_mae, n_parameters, time_per_atom"
        assert run_.data.tags["pruner"] == "none"


def test_the_sampler_goes_by_all_objectives(run: Run) -> None:
    """A search that weighs size as well comes to smaller networks than one that does not."""
    search = {"num_layers": {"int": [1, 8]}, "num_nodes": {"int": [4, 60]}, "batch_size": 16, "lr": 1e-3}
    sizes: list[float] = []
    for objectives in (SIZE, SIZE[:1]):
        options = several(objectives, name=objectives[-1], n_trials=24, pruner="none")
        _, results = run(study=options, training={"epochs": 1}, search=search)
        sizes.append(statistics.median([result.n_parameters for result in results[12:]]))
    assert sizes[0] < sizes[1]


def test_the_front_is_optunas(study: optuna.Study, stores: Stores) -> None:
    found = study_pareto_front(stores, "several")
    assert {one.trial for one in found.trials} == {trial.number for trial in study.best_trials}
    for one in found.trials:
        trial = study.get_trials()[one.trial]
        assert [one.values[name] for name in SIZE] == trial.values
        assert one.parameters.items() >= trial.params.items()
        assert one.parameters["descriptor.cutoff"] == 4.0, "what is fixed is named, too"
        assert "time_per_atom" in one.values  # measured, though it is no objective here
    lines = pareto_front_lines(found)
    assert lines[0] == f"several: {len(found.trials)} of 6 complete trials are on the Pareto front"
    errors = ["val_energy_mae_per_atom", "(meV/atom)", "val_energy_mae", "(eV)*"]
    assert lines[1].split()[:7] == ["trial", *errors, "n_parameters*", "time_per_atom"]
    assert [int(line.split()[0]) for line in lines[2 : 2 + len(found.trials)]] == [one.trial for one in found.trials]
    assert max(map(len, lines)) <= 120


def test_points_on_a_front() -> None:
    points = [(1, 5), (2, 2), (2, 2), (3, 3), (2, 6), (5, 1), (1, 5.5)]
    assert is_on_pareto_front(points).tolist() == [True, True, True, False, False, True, False]
    assert is_on_pareto_front(np.zeros((0, 2))).tolist() == []
    random = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(float)
    study = optuna.create_study(directions=["minimize"] * 3)
    for values in random:
        study.add_trial(optuna.trial.create_trial(values=list(values)))
    assert set(np.flatnonzero(is_on_pareto_front(random))) == {trial.number for trial in study.best_trials}


def test_what_reads_a_study_reads_one_of_several_objectives(study: optuna.Study, stores: Stores) -> None:
    least = min(study.get_trials(), key=lambda trial: trial.values[0])
    status = study_status(stores, "several")
    assert (status.best_trial, status.best_value) == (least.number, least.values[0])
    assert status.objectives == SIZE
    assert set(status.front) == {trial.number for trial in study.best_trials}
    assert any(
        line.startswith("front ") and line.endswith("`bdqm-tune front several`") for line in status_lines(status)
    )
    (summary,) = all_studies(stores)
    assert (summary.best_value, summary.objectives) == (least.values[0], SIZE)
    results = load_results(stores, "several")
    assert (results.objective, list(results.objectives)) == ("val_energy_mae", SIZE)
    assert results.trials["time_per_atom"].gt(0).all()
    (parent,) = MlflowClient().search_runs(["1"], "tags.kind = 'study'")
    assert parent.data.tags["objectives"] == "val_energy_mae, n_parameters"
    for place, name in enumerate(SIZE):
        assert parent.data.metrics[f"best_{name}"] == min(trial.values[place] for trial in study.get_trials()), name


def test_a_trial_must_be_picked_from_a_front(study: optuna.Study, stores: Stores) -> None:
    front = ", ".join(str(one.trial) for one in study_pareto_front(stores, "several").trials)
    message = f"on its Pareto front the trials {front}: pick one with --trial N; `bdqm-tune front several` shows them"
    for work in (
        lambda: evaluate_best(stores, "several"),
        lambda: register(stores, "several"),
        lambda: confirm(stores, "several", Options(random=NONE)),
    ):
        with pytest.raises(BadInput, match=message):
            work()
    with pytest.raises(BadInput, match="--trial 6: study 'several' has trials 0 to 5"):
        evaluate_best(stores, "several", trial=6)
    picked = study.best_trials[-1]
    assert evaluate_best(stores, "several", trial=picked.number).trial == picked.number
    registered = register(stores, "several", trial=picked.number)
    assert (registered.trial, registered.run_id) == (picked.number, picked.user_attrs[RUN_ID])


def test_from_python(study: optuna.Study, stores: Stores) -> None:
    with pytest.raises(BadInput, match="pick one with --trial N"):
        bt.evaluate(study)
    picked = study.best_trials[0].number
    assert bt.register(study, trial=picked).trial == picked
    assert bt.confirm(study, seeds=2, random=NONE, trial=picked).champion.trial == picked
    assert bt.evaluate("several", trial=picked).trial == picked


def test_the_picked_trial_is_confirmed_and_becomes_the_champion(study: optuna.Study, stores: Stores) -> None:
    picked = study.best_trials[0].number
    made = confirm(stores, "several", Options(seeds=2, random=NONE, trial=picked))
    assert made.champion.trial == picked
    study = load_study(stores, "several")
    assert champion_of(study) == made.champion
    assert chosen_model(study).run_id == made.champion.run_id
    other = next(trial for trial in study.get_trials() if trial.number != picked)
    registered = register(stores, "several", trial=other.number)
    version = MlflowClient().get_model_version("several", registered.version)
    assert "confirmation_run_id" not in version.tags, "that was of another one"


def test_the_descriptors_time_is_measured_once_a_study(
    study: optuna.Study, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*arguments: Any) -> float:
        raise AssertionError

    monkeypatch.setattr(prediction_time, "descriptor_seconds", again)
    (described,) = [value for key, value in study.user_attrs.items() if key.startswith(DESCRIPTOR_TIME)]
    _, results = run(study=several(SIZE, n_trials=1), training={"epochs": 2})
    assert results[0].time_per_atom > described > 0
    search = {"descriptor.orders": {"choice": [[0], [0, 1]]}}
    monkeypatch.setattr(prediction_time, "descriptor_seconds", lambda descriptor, _: float(descriptor.n_features))
    searched, results = run(study=several(SIZE, name="searched"), training={"epochs": 1}, search=search)
    widths = {"[0]": 3, "[0, 1]": 6}
    for trial, result in zip(searched.get_trials(), results, strict=True):
        assert int(result.time_per_atom) == widths[trial.params["descriptor.orders"]]


def test_gc_leaves_the_front(study: optuna.Study, stores: Stores) -> None:
    (freed,) = remove_artifacts(stores, "several", 1, dry_run=True)
    assert set(freed.kept) == {trial.number for trial in study.best_trials}


@pytest.mark.parametrize(("then", "now"), [(SIZE, None), (None, SIZE), (SIZE, ["val_energy_mae", "time_per_atom"])])
def test_other_objectives_under_the_same_name_are_refused(
    run: Run, configure: Callable[..., Config], stores: Stores, then: list[str] | None, now: list[str] | None
) -> None:
    run(study={"n_trials": 1, "objectives": then}, training={"epochs": 1})
    with pytest.raises(BadInput, match="study 'small' was made with other objectives: .* then, .* now"):
        run(study={"n_trials": 1, "objectives": now}, training={"epochs": 1})
    assert len(load_study(stores, "small").get_trials()) == 1
    again = (then or ["val_energy_mae"])[::-1]
    run(study={"n_trials": 1, "objectives": again}, training={"epochs": 1})
    assert len(load_study(stores, "small").get_trials()) == 2


def test_a_study_of_one_objective_has_no_front(run: Run, stores: Stores) -> None:
    run(study={"n_trials": 1}, training={"epochs": 1})
    with pytest.raises(BadInput, match="study 'small' has one objective, val_energy_mae, and no Pareto front"):
        study_pareto_front(stores, "small")


def test_forces_against_energies(run: Run) -> None:
    objectives = ["val_energy_mae", "val_forces_mae"]
    study, results = run(
        study=several(objectives, n_trials=2),
        training={"epochs": 1, "forces": True},
        target={"objective": "val_forces_mae"},
        search={"force_coefficient": {"float": [0.01, 1.0]}},
    )
    for trial, result in zip(study.get_trials(), results, strict=True):
        assert trial.values == [result.val_forces_mae, result.val_energy_mae]


def test_a_trial_that_was_handed_back_is_judged_by_all_objectives(
    run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, told = TrialRun.log_metrics, [False]

    def interrupted(self: TrialRun, metrics: dict[str, float], step: int) -> None:
        log(self, metrics, step)
        if step == 3 and not told[0]:
            told[0] = True
            raise KeyboardInterrupt

    monkeypatch.setattr(TrialRun, "log_metrics", interrupted)
    options = several(ALL, n_trials=2)
    with pytest.raises(KeyboardInterrupt):
        run(study=options, training={"epochs": 6})
    first = load_study(stores, "several").get_trials()[0]
    assert first.state == TrialState.WAITING
    study, _ = run(study={**options, "n_trials": 1}, training={"epochs": 6})
    trials = study.get_trials()
    assert [len(trial.values) for trial in trials] == [3, 3, 3]
    assert trials[0].user_attrs[RUN_ID] == first.user_attrs[RUN_ID]
    history = MlflowClient().get_metric_history(first.user_attrs[RUN_ID], "val_energy_mae")
    assert [metric.step for metric in history] == list(range(1, 7))


def test_in_a_database_of_the_servers(place: Any, configure: Callable[..., Config]) -> None:
    config = configure(study=several(ALL, n_trials=4, sampler="nsgaii"), training={"epochs": 1}, **{"": {"cohort": 2}})
    study = tune(prepare(config, place.stores.home), config, place.stores)
    assert {one.trial for one in study_pareto_front(place.stores, "several").trials} == {
        t.number for t in study.best_trials
    }
    assert all(len(trial.values) == 3 for trial in study.get_trials())


def test_the_command_line(call: Callable[..., tuple[int, str, str]], files: dict[str, str], workdir: Path) -> None:
    tune_ = ["tune", "--train", files["train"], "--test", files["test"], "--n-trials", "2", "--epochs", "1"]
    tune_ += ["--objectives", "n_parameters, val_energy_mae"]
    for options, message in {
        ("--pruner", "median"): "study: with several objectives nothing is pruned: pruner must be none, got median",
        (
            "--sampler",
            "cmaes",
        ): "study: sampler cmaes knows one objective only; of several do tpe, random, gp, grid, qmc",
        ("--objectives", "n_parameters"): "study.objectives: must have the error among them",
        ("--objectives", "val_energy_mae,size"): "study.objectives.1: Input should be",
        ("--objectives", "n_parameters,n_parameters"): "study: objectives must differ from each other",
        (
            "--objectives",
            "val_energy_mae,val_forces_mae",
            "--set",
            "training.forces=false",
        ): "val_forces_mae needs training.forces: true",
    }.items():
        code, out, err = call(*tune_, *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    assert not list(workdir.iterdir())
    code, out, err = call(*tune_)
    assert code == 0
    assert " on the Pareto front" in err + out
    assert "µs an atom, " in err + out
    assert "`bdqm-tune front default` shows the Pareto front" in out
    code, out, _ = call("front", "default", "--json")
    front = json.loads(out)
    assert (code, front["objectives"]) == (0, SIZE)
    number = str(front["trials"][0]["trial"])
    code, out, err = call("evaluate", "--study", "default")
    assert (code, out) == (2, "")
    assert "pick one with --trial N" in err
    for arguments, message in {
        ("evaluate", "--trial", "first"): "--trial must be the number of a trial, as 7; got 'first'",
        ("evaluate", "--trial", "0", "--ensemble", "latest"): "--trial and --ensemble are two models",
        ("confirm", "--trial", "0", "--best", "3"): "--best and --trial choose what is confirmed in two ways",
        ("front", "none"): "no study 'none' in ",
    }.items():
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert message in err
    code, out, _ = call("evaluate", "--study", "default", "--trial", number)
    assert (code, out.split()[1:3]) == (0, ["trial", number])
