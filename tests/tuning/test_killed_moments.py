"""Workers that are killed in the moments between two records, and what doctor and the next worker make of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.admin.repair import repair_leftovers
from bdqm_tune.config.config import Config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.process import process_identity
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.diagnostics import FIXED, WARNING
from bdqm_tune.study.checkpoints import TrialCheckpoint, checkpoint_folder
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.tracker import PROCESS
from bdqm_tune.tuning.tune import tune
from tests.forked import run

KILLED_AT = """
import os, signal, sys
from bdqm_tune.cli.main import main
from bdqm_tune.study import checkpoints
from bdqm_tune.tuning import tune
checkpoints.EVERY = 0.0
{where}.{name} = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["bdqm-tune", "tune", "--config", "config.yaml"]
main()
"""


def killed_at(config: Config, where: str, name: str) -> None:
    """A worker that is killed as it comes to a function."""
    Path("config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = run(["-c", KILLED_AT.format(where=where, name=name)], timeout=300)
    assert done.returncode == -9, done.stderr


def fixed(stores: Stores, state: str = FIXED) -> list[str]:
    return [finding.message for finding in repair_leftovers(stores, wait=False) if finding.state == state]


@pytest.mark.parametrize(("name", "who"), [("open_study", "doctor"), ("Heartbeat", "doctor"), ("Heartbeat", "tune")])
def test_the_run_of_a_worker_that_is_killed_as_it_begins_is_ended(
    name: str, who: str, stores: Stores, configure: Callable[..., Config]
) -> None:
    """Before there is a study, and before it is among the workers of one."""
    config = configure()
    killed_at(config, "tune", name)
    (left,) = tracking_client(stores).search_runs(["1"])
    assert left.info.status == "RUNNING"
    if who == "doctor":
        assert fixed(stores) == ["small: ended the run of a worker that was killed as it began"]
    else:
        tune(prepare(config, stores.home), config, stores)
    assert tracking_client(stores).get_run(left.info.run_id).info.status == "KILLED"
    assert fixed(stores) == []


def test_the_run_of_a_worker_that_begins_or_is_elsewhere_is_left(stores: Stores) -> None:
    client = MlflowClient()
    here, there = process_identity(), "another-boot pid:[1] 0/7@1"
    for process, start in ((here, 1), (there, 1), (there, None)):
        client.create_run("0", start, {PROCESS: process, "host": "node"}, "small")
    assert fixed(stores) == []
    (said,) = fixed(stores, WARNING)
    assert said.endswith("says that it runs, and this database knows of no worker with it")
    assert {run.info.status for run in client.search_runs(["0"])} == {"RUNNING"}


@pytest.mark.parametrize("who", ["doctor", "tune"])
def test_no_checkpoint_of_a_trial_that_has_ended_stays(
    who: str, stores: Stores, configure: Callable[..., Config]
) -> None:
    """Its worker was killed when it had told the study of it."""
    killed_at(configure(study={"name": "small", "n_trials": 1}), "checkpoints", "remove_checkpoint")
    study = load_study(stores, "small")
    assert study.trials[0].state in (TrialState.COMPLETE, TrialState.PRUNED)
    folder = checkpoint_folder(stores.home, "small", study.user_attrs)
    assert [path.name for path in folder.iterdir()] == ["trial-000.checkpoint"]
    (folder / "trial-007.checkpoint").touch()  # of one that is still to come
    if who == "doctor":
        assert "small: removed 1 checkpoints of trials that have ended" in fixed(stores)
    else:
        config = configure(study={"name": "small", "n_trials": 1})
        tune(prepare(config, stores.home), config, stores)
    assert [path.name for path in folder.iterdir()] == ["trial-007.checkpoint"]


def test_a_checkpoint_that_was_removed_is_not_written_again(
    stores: Stores, configure: Callable[..., Config], tmp_path: Path
) -> None:
    """By the thread that trains, when the one that tells the study was quicker."""
    from bdqm_tune.backends import make_backend
    from bdqm_tune.config.hyperparameters import Hyperparameters

    config = configure()
    dataset = prepare(config, stores.home)
    training = make_backend(config, dataset).start(Hyperparameters(), 0, dataset)
    next(iter(training))
    checkpoint = TrialCheckpoint(tmp_path / "checkpoints", 0)
    checkpoint.restore(training)
    checkpoint.write()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    checkpoint.remove()
    checkpoint.write()
    assert list((tmp_path / "checkpoints").iterdir()) == []
