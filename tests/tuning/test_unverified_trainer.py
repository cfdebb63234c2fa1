"""A study whose batched trainer is wrong, as it may be on some GPU: it says so, and trains by plain operations."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from bdqm_tune.backends.native import NativeBackend
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched import passes
from bdqm_tune.learning.dataset import Dataset

Run = Callable[..., Any]


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> list[NativeBackend]:
    """Those of the studies, which are as on a GPU."""
    made: list[NativeBackend] = []

    def backend(config: Config, dataset: Dataset) -> NativeBackend:
        made.append(NativeBackend(config, dataset, batched=True, verified=True))
        return made[-1]

    monkeypatch.setattr("bdqm_tune.tuning.tune.make_backend", backend)
    return made


@pytest.mark.parametrize("wrong", [False, True])
def test_where_the_trainer_is_wrong_the_study_does_without(
    run: Run,
    backends: list[NativeBackend],
    wrong: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if wrong:
        right = passes.SLOPES["silu"]
        monkeypatch.setitem(passes.SLOPES, "silu", lambda *values: right(*values) * 1.01)
    space = {"activation": {"choice": ["tanh", "silu"]}, "num_layers": 2, "num_nodes": 6}
    study, _ = run(study={"n_trials": 2}, search=space, training={"epochs": 3})
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 2
    (backend,) = backends
    engine = backend.start(Hyperparameters(activation="silu"), seed=0).key["engine"]
    assert (engine == "BatchedEpochs") is not wrong
    lines = [line for line in capsys.readouterr().err.splitlines() if "batched trainer" in line]
    assert len(lines) == wrong
    client = MlflowClient()
    runs = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    tags = {run.info.run_name: run.data.tags for run in runs}
    assert len(tags) == 3
    for name, found in tags.items():
        assert found["batched_trainer"].startswith("off: " if wrong else "verified"), name
        assert found["batched_trainer.device"] == "cpu"
        assert found["batched_trainer.versions"].startswith("torch ")
    if wrong:
        assert "silu" in tags["trial-000"]["batched_trainer"]
