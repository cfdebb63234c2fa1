"""Trials at the same time: each as it would be alone, the budget kept, and all handed back where the worker stops."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.backends.native import NativeBackend
from bdqm_tune.config.config import Config
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import EpochRecord, Fit
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import load_study
from bdqm_tune.tuning.tune import at_once, tune

Run = Callable[..., Any]

SPACE = {
    "activation": {"choice": ["tanh", "relu", "gelu", "silu", "softplus"]},
    "batchnorm": {"choice": [True, False]},
    "dropout": {"choice": [True, False]},
    "network": {"choice": ["single", "per_element"]},
    "optimizer": {"choice": ["adam", "adamw", "lbfgs"]},
    "scheduler": {"choice": ["step", "cosine", "one_cycle", "plateau"]},
}


def curves(study: optuna.Study) -> dict[int, list[tuple[int, float]]]:
    client = MlflowClient()
    return {
        trial.number: [
            (metric.step, metric.value)
            for metric in client.get_metric_history(trial.user_attrs["mlflow_run_id"], "val_energy_mae")
        ]
        for trial in study.get_trials()
    }


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.endurance)])
def test_a_trial_does_not_depend_on_who_else_trains(run: Run, precision: str) -> None:
    options: dict[str, Any] = {"training": {"precision": precision, "early_stopping": 3}, "search": SPACE}
    enqueue = [
        {
            "num_layers": 1 + n % 3,
            "num_nodes": 4 + n,
            "batch_size": 8,
            "activation": SPACE["activation"]["choice"][n % 5],
        }
        | {"batchnorm": n % 2 == 0, "dropout": n % 3 == 0, "network": "per_element" if n % 4 == 3 else "single"}
        | {"optimizer": ["adam", "adamw", "lbfgs"][n % 3], "lr": 0.001 * (n + 1)}
        for n in range(8)
    ]
    found = []
    for name, cohort in (("alone", 1), ("together", 5)):
        study = {"name": name, "n_trials": 8, "pruner": "none", "enqueue": enqueue}
        found.append(curves(run(study=study, **options, **{"": {"cohort": cohort}})[0]))
    assert found[0] == found[1]
    assert [len(curve) >= 3 for curve in found[0].values()] == [True] * 8


def test_batched_trials_are_those_of_threads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, but here: five runners share one trainer, and what it cannot train trains beside it."""
    options: dict[str, Any] = {"training": {"precision": "float64", "early_stopping": 3}, "search": SPACE}
    enqueue = [
        {"num_layers": 1 + n % 3, "num_nodes": 4 + n, "batch_size": [4, 8, 16][n % 3], "dropout": False}
        | {"activation": SPACE["activation"]["choice"][n % 2], "batchnorm": n % 4 == 0, "lr": 0.001 * (n + 1)}
        | {"optimizer": "lbfgs" if n == 5 else "adamw", "network": "per_element" if n == 6 else "single"}
        for n in range(8)
    ]
    study = {"n_trials": 8, "pruner": "none", "enqueue": enqueue}
    alone = curves(run(study={"name": "alone", **study}, **options, **{"": {"cohort": 1}})[0])
    batched = []

    def backend(config: Config, dataset: Dataset) -> NativeBackend:
        batched.append(NativeBackend(config, dataset, batched=True))
        return batched[-1]

    monkeypatch.setattr("bdqm_tune.tuning.tune.make_backend", backend)
    together = curves(run(study={"name": "together", **study}, **options, **{"": {"cohort": 5}})[0])
    assert len(batched) == 1
    for number, curve in alone.items():
        assert [epoch for epoch, _ in together[number]] == [epoch for epoch, _ in curve]
        assert [mae for _, mae in together[number]] == pytest.approx([mae for _, mae in curve], rel=1e-6), number
    assert not [thread for thread in threading.enumerate() if thread.name == "batched-trainer"]


@pytest.mark.parametrize(
    ("cohort", "sampler", "n_trials", "expected"),
    [("auto", "tpe", 20, 5), ("auto", "tpe", 200, 16), ("auto", "gp", 3, 1), ("auto", "grid", 3, 16), (7, "tpe", 4, 7)],
)
def test_a_sampler_that_learns_has_some_rounds(
    configure: Callable[..., Config], cohort: str | int, sampler: str, n_trials: int, expected: int
) -> None:
    config = configure(study={"sampler": sampler, "n_trials": n_trials}, **{"": {"cohort": cohort}})
    assert at_once(config, most=16) == expected


def test_several_train_at_the_same_time_and_the_budget_holds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone, met = threading.Barrier(3, timeout=60), set[str]()
    epoch = Fit._run

    def meet(self: Fit, number: int) -> EpochRecord:
        if number == 1 and len(met) < 3:
            met.add(threading.current_thread().name)
            everyone.wait()  # passes only if three trainings are in their first epoch at once
        return epoch(self, number)

    monkeypatch.setattr(Fit, "_run", meet)
    study, results = run(study={"n_trials": 7}, **{"": {"cohort": 3}})
    assert len(met) == 3
    assert sorted(result.number for result in results) == list(range(7))
    assert all(trial.state.is_finished() for trial in study.get_trials())


def test_an_interruption_hands_all_of_them_back(
    stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdqm_tune.tracking.request_queue.HURRY", 100.0)  # for busy machines
    config = configure(
        training={"epochs": 100_000, "early_stopping": None},
        study={"n_trials": 4, "pruner": "none"},
        **{"": {"cohort": 3}},
    )

    def training(study: str) -> int:
        return sum("mlflow_run_id" in trial.user_attrs for trial in load_study(stores, study).get_trials())

    def interrupt() -> None:
        while threading.main_thread().is_alive():
            time.sleep(0.5)
            with suppress(BdqmError):  # the study is being made
                if training("small") == 3:
                    break
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        tune(prepare(config, stores.home), config, stores)
    study, client = load_study(stores, "small"), MlflowClient()
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING] * 4
    started = [trial for trial in study.get_trials() if "mlflow_run_id" in trial.user_attrs]
    assert len(started) == 3
    for trial in started:
        assert client.get_run(trial.user_attrs["mlflow_run_id"]).info.status == "SCHEDULED"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trials")]


def test_trials_that_all_fail_alike_stop_the_study(run: Run, monkeypatch: pytest.MonkeyPatch, stores: Stores) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(NativeBackend, "start", fail)
    with pytest.raises(BdqmError, match="the first 3 trials failed in the same way\n(.|\n)*no such luck"):
        run(study={"n_trials": 20}, **{"": {"cohort": 2}})
    states = [trial.state for trial in load_study(stores, "small").get_trials()]
    assert states.count(TrialState.FAIL) in range(3, 8)
    assert states.count(TrialState.RUNNING) == 0


def test_a_store_that_fails_stops_all(run: Run, monkeypatch: pytest.MonkeyPatch, stores: Stores) -> None:
    from bdqm_tune.tracking.client import TrackingFailed
    from bdqm_tune.tracking.trial_run import TrialRun

    def fail(*_: Any) -> None:
        raise TrackingFailed("the store is gone")

    monkeypatch.setattr(TrialRun, "finish", fail)
    with pytest.raises(TrackingFailed):
        run(study={"n_trials": 6, "pruner": "none"}, **{"": {"cohort": 2}})
    states = [trial.state for trial in load_study(stores, "small").get_trials()]
    assert states == [TrialState.WAITING] * 6
