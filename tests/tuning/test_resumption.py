"""Trials that go on elsewhere: from their checkpoint, in the same run, one curve, the same numbers."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.fit import EpochRecord, Fit
from bdqm_tune.services.connection import Stores
from bdqm_tune.study import checkpoints
from bdqm_tune.study.study import LOSSES, RUN_ID, load_study
from bdqm_tune.tracking.trial_run import TrialRun
from bdqm_tune.tuning.tune import tune
from tests.forked import Forked

Run = Callable[..., Any]
SPACE: dict[str, Any] = {
    "search": {
        "dropout": True,
        "batchnorm": True,
        "num_layers": 2,
        "batch_size": 8,
        "num_nodes": 8,
        "activation": "tanh",
    }
    | {"gamma": 0.5, "step_size": 10, "dropout_rate": 0.1},
    "training": {"epochs": 12, "early_stopping": None},
}


SLOW = """
import time
from bdqm_tune.cli.main import main
from bdqm_tune.study import checkpoints
from bdqm_tune.learning.fit import Fit
epoch, checkpoints.EVERY = Fit._run, 0.05
Fit._run = lambda *arguments: (time.sleep(0.01), epoch(*arguments))[1]
main()
"""


def curve(study: optuna.Study, number: int, name: str = "val_energy_mae") -> list[tuple[int, float]]:
    run_id = study.get_trials()[number].user_attrs[RUN_ID]
    return [(metric.step, metric.value) for metric in MlflowClient().get_metric_history(run_id, name)]


def outcome(study: optuna.Study) -> list[tuple[str, float | None, dict[int, float]]]:
    return [(trial.state.name, trial.value, trial.intermediate_values) for trial in study.get_trials()]


@pytest.mark.parametrize("pruner", ["none", "halving"])  # hyperband goes by the names of studies too
def test_a_trial_that_was_handed_back_goes_on_as_if_it_had_never_been(
    run: Run, interrupted: Callable[[int], None], stores: Stores, pruner: str
) -> None:
    # With all of it given, no sampler's state matters.
    rates = {"lr": {"float": [1e-5, 1e-2], "log": True}}
    options = {"training": {**SPACE["training"], "epochs": 30}, "search": SPACE["search"] | rates}
    tried = [{"lr": lr} for lr in (1e-3, 1e-2, 1e-5, 3e-3)]
    reference, _ = run(study={"name": "whole", "n_trials": 4, "pruner": pruner, "enqueue": tried}, **options)
    interrupted(7)
    with pytest.raises(KeyboardInterrupt):
        run(study={"name": "parts", "n_trials": 4, "pruner": pruner, "enqueue": tried}, **options)
    (folder,) = (stores.home / "checkpoints").iterdir()
    assert [file.name for file in folder.iterdir()] == ["trial-000.checkpoint"]
    assert load_study(stores, "parts").get_trials()[0].state == TrialState.WAITING
    epochs = count_epochs(lambda: run(study={"name": "parts", "n_trials": 1, "pruner": pruner}, **options))
    study = load_study(stores, "parts")
    assert outcome(study)[:4] == outcome(reference)
    for number in range(4):
        assert curve(study, number) == curve(reference, number)
        steps = [step for step, _ in curve(study, number)]
        assert steps == list(range(1, len(steps) + 1))
    assert epochs[0] == 8
    assert not list(folder.iterdir())


def count_epochs(work: Callable[[], Any]) -> list[int]:
    """The numbers of the epochs that are trained in the work."""
    trained, train = list[int](), Fit._run

    def counted(self: Fit, epoch: int) -> EpochRecord:
        trained.append(epoch)
        return train(self, epoch)

    Fit._run = counted  # type: ignore[method-assign]
    try:
        work()
    finally:
        Fit._run = train  # type: ignore[method-assign]
    return trained


def test_a_damaged_checkpoint_lets_the_trial_begin_anew(
    run: Run, interrupted: Callable[[int], None], stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    reference, _ = run(study={"name": "whole", "n_trials": 1}, **SPACE)
    interrupted(7)
    with pytest.raises(KeyboardInterrupt):
        run(study={"name": "parts", "n_trials": 1}, **SPACE)
    (file,) = (stores.home / "checkpoints").glob("*/*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    run(study={"name": "parts", "n_trials": 1, "seed": 0}, **SPACE)
    study = load_study(stores, "parts")
    assert "damaged" in caplog.text
    assert curve(study, 0) == curve(reference, 0)


def test_training_goes_on_without_room_for_checkpoints(
    run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    stores.home.mkdir()
    (stores.home / "checkpoints").write_text("in the way")
    study, _ = run(study={"n_trials": 1}, **SPACE)
    assert study.best_value > 0
    assert caplog.text.count("no checkpoint can be written") == 1


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGUSR1, id="walltime", marks=pytest.mark.endurance),
    ],
)
def test_another_worker_goes_on_where_one_was_killed(
    files: dict[str, str], configure: Callable[..., Config], stores: Stores, workdir: Path, how: int
) -> None:
    options = {
        "study": {"name": "s", "n_trials": 2, "pruner": "none"},
        "search": SPACE["search"],
        "training": {"epochs": 300, "early_stopping": None},
    }
    config = configure(**options)
    Path("config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    Path("slow.py").write_text(SLOW)
    worker = Forked(["slow.py", "tune", "--config", "config.yaml"])
    deadline = time.monotonic() + 120
    while (
        not list(stores.home.glob("checkpoints/*/trial-000.checkpoint"))
        and worker.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    worker.send_signal(how)
    _, err = worker.communicate(timeout=180)
    assert worker.returncode == (0 if how == signal.SIGUSR1 else -how), err
    epochs = count_epochs(
        lambda: tune(prepare(config, stores.home), config.updated({"study": {"n_trials": 1}}), stores)
    )
    study = load_study(stores, "s")
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert trials[0].user_attrs.get(LOSSES, 0) == (1 if how == signal.SIGKILL else 0)
    assert 1 < epochs[0] < 300
    assert [step for step, _ in curve(study, 0)] == list(range(1, 301))
    reference = tune(prepare(config, stores.home), config.updated({"study": {"name": "whole", "n_trials": 1}}), stores)
    assert curve(study, 0) == curve(reference, 0)
    statuses = {run.info.run_name: run.info.status for run in MlflowClient().search_runs(["1"])}
    assert statuses["trial-000"] == "FINISHED"
    assert sorted(run.info.status for run in MlflowClient().search_runs(["1"]) if run.info.run_name == "s") == [
        "FINISHED",
        "KILLED" if how == signal.SIGKILL else "FINISHED",
    ]


def test_a_trial_waits_only_when_all_of_it_is_in_its_run(
    run: Run, interrupted: Callable[[int], None], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is on its way would be in the run twice, as the next worker has already looked what is there."""
    log_batch, seen = MlflowClient.log_batch, list[int]()

    def slow(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return log_batch(self, *arguments, **options)

    requeue = TrialRun.requeue

    def look(self: TrialRun) -> None:
        requeue(self)
        run_id = self.wait().info.run_id
        seen.extend(metric.step for metric in MlflowClient().get_metric_history(run_id, "val_energy_mae"))

    monkeypatch.setattr(MlflowClient, "log_batch", slow)
    monkeypatch.setattr(TrialRun, "requeue", look)
    interrupted(7)
    with pytest.raises(KeyboardInterrupt):
        run(study={"name": "parts", "n_trials": 1}, **SPACE)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
