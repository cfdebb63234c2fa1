"""Configurations trained once more, with seeds of their own: each a run of MLflow, several at the same time."""

import hashlib
import json
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bdqm_tune.backends import Backend, OutOfProcess, TrainingRun, make_backend
from bdqm_tune.config import earlier_training
from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import as_before
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Diverged
from bdqm_tune.progress import check, interruptible
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.study import run_contents as training_record
from bdqm_tune.tracking.client import ARTIFACTS, TrackingFailed
from bdqm_tune.tracking.tracker import Tracker
from bdqm_tune.tracking.trial_run import STATUS, TrialRun

KIND = "confirm"  # tag of the runs
IDENTITY = "configuration_digest"  # tag: of all that what is trained depends on, except the seed
ENDED = ("complete", "pruned")  # states that training once more would not change


@dataclass(frozen=True)
class Job:
    """A configuration, with its seed, to be trained."""

    config: Config  # nothing in it is searched; `study.seed` is the training's
    name: str  # of the run
    trial: int | None  # whose configuration it is; None: of none of this study

    @property
    def seed(self) -> int:
        return self.config.study.seed


@dataclass(frozen=True)
class Retraining:
    """What a job gave, as its run has it."""

    seed: int
    run_id: str
    state: str  # complete; pruned: it diverged; failed
    value: float  # the objective of the best epoch, eV or eV/Å; NaN where it is not complete
    n_parameters: int | None
    seconds: float
    reason: str  # why it is not complete
    known: bool  # from an earlier time
    value_per_atom: float = float("nan")  # eV/atom, where energies are the objective


def identity(config: Config, dataset: Dataset) -> str:
    """Digest of all that the model depends on, except the seed and the machine."""
    content = config.model_dump(mode="json", include={"descriptor", "target", "training"})
    content["backend"] = config.trained_by
    if config.backend_options:
        content["backend_options"] = config.declared.compared(config.backend_options)
    content["descriptor"] = as_before(content["descriptor"])
    content["target"]["objective"] = config.objective
    content["training"] = earlier_training.as_before(content["training"])
    tried = training_record.tried_by(config).hyperparameters.model_dump(mode="json")
    text = json.dumps([content, tried, dataset.digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Retrainer:
    """Trains jobs on one dataset, and takes those that were trained before from their runs.

    Args:
        dataset: described in whatever way.
        tracker: with the run under which those of the jobs come.
    """

    def __init__(self, study: str, dataset: Dataset, tracker: Tracker, client: MlflowClient) -> None:
        self._study, self._dataset, self._tracker, self._client = study, dataset, tracker, client
        self._stopped = threading.Event()

    def run(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Retraining], None, None]:
        """What each job gave: first of those that were trained before, then of the others as they end.

        Raises:
            MlflowException, OSError: the tracking store cannot be read.
            TrackingFailed: it cannot be written.
        """
        known = self._known()
        left: dict[str, list[Job]] = {}
        for job in jobs:
            found = known.get((identity(job.config, self._dataset), job.seed))
            if found is not None:
                yield job, found
            else:
                left.setdefault(job.config.descriptor.model_dump_json(), []).append(job)
        for group in left.values():  # one descriptor after the other, as each has the memory for itself
            yield from self._train_all(group)

    def _train_all(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Retraining], None, None]:
        config = jobs[0].config
        dataset = self._dataset.described_by(config.descriptor)
        backend = make_backend(config, dataset)
        with ThreadPoolExecutor(backend.at_once if config.cohort == "auto" else config.cohort) as pool:
            try:
                running = {pool.submit(self._train, job, backend, dataset): job for job in jobs}
                for done in as_completed(running):
                    yield running[done], done.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _known(self) -> dict[tuple[str, int], Retraining]:
        """What was trained before, by identity and seed; runs of dead processes are set to KILLED."""
        experiment = self._tracker.run.info.experiment_id
        found: dict[tuple[str, int], Retraining] = {}
        for run in self._client.search_runs([experiment], f"tags.kind = '{KIND}'", max_results=50_000):
            tags = run.data.tags
            if tags.get("study") != self._study or ARTIFACTS in tags:
                continue
            state = tags["trial_state"]
            if state in ENDED and run.info.status == STATUS[state]:
                found[tags[IDENTITY], int(tags["seed"])] = self._from_run(run)
            elif run.info.status == "RUNNING":  # where its process lives, it sets this right at its end
                self._client.set_terminated(run.info.run_id, status="KILLED")
        return found

    def _from_run(self, run: Run) -> Retraining:
        tags, metrics = run.data.tags, run.data.metrics
        complete = tags["trial_state"] == "complete"
        objective = self._dataset.config.objective
        return Retraining(
            seed=int(tags["seed"]),
            run_id=run.info.run_id,
            state=tags["trial_state"],
            value=metrics[f"best_{objective}"] if complete else float("nan"),
            n_parameters=int(metrics["n_parameters"]) if "n_parameters" in metrics else None,
            seconds=metrics["trial_seconds"],
            reason=tags.get("reason", ""),
            known=True,
            value_per_atom=metrics.get(f"best_{objective}_per_atom", float("nan")) if complete else float("nan"),
        )

    def _train(self, job: Job, backend: Backend, dataset: Dataset) -> Retraining:
        start = time.perf_counter()
        run = self._open_run(job, backend, dataset)
        training: TrainingRun | None = None
        state, reason, error = "complete", "", ""
        try:
            with interruptible(self._stopped.is_set):
                check()
                training = backend.start(training_record.tried_by(job.config).hyperparameters, job.seed, dataset)
                for _ in run.follow(training, dataset.config.training.epochs):
                    pass
        except Diverged as diverged:
            state, reason = "pruned", str(diverged)
        except TrackingFailed:
            raise
        except (KeyboardInterrupt, SystemExit):
            self._tracker.hurry()
            run.finish("interrupted", {}, lambda folder: None)
            raise
        except Exception as exception:
            state, reason, error = "failed", f"{type(exception).__name__}: {exception}", traceback.format_exc()
        finally:
            if isinstance(training, OutOfProcess):
                training.close()
        seconds = time.perf_counter() - start
        reason, error = (without_secrets(text, self._tracker.stores) for text in (reason, error))
        run.log_metrics(training_record.summary_metrics(training, seconds), len(training.records) if training else 0)
        run.finish(
            state,
            {"reason": reason[:500]} if reason else {},
            lambda folder: training_record.write_artifacts(folder, training, job.config, dataset, error),
        )
        best = training.best if training is not None and state == "complete" else None
        objective = job.config.objective
        per_atom = best.val_energy_mae_per_atom if best and objective == "val_energy_mae" else None
        return Retraining(
            seed=job.seed,
            run_id=run.wait().info.run_id,
            state=state,
            value=best.value(objective) if best else float("nan"),
            n_parameters=training.n_parameters if training else None,
            seconds=seconds,
            reason=reason,
            known=False,
            value_per_atom=float("nan") if per_atom is None else per_atom,
        )

    def _open_run(self, job: Job, backend: Backend, dataset: Dataset) -> TrialRun:
        tags = {
            **training_record.tags(self._study, dataset, backend),
            "kind": KIND,
            IDENTITY: identity(job.config, dataset),
            "seed": str(job.seed),
            **({} if job.trial is None else {"trial": str(job.trial)}),
        }
        parameters = training_record.parameters(job.config, training_record.tried_by(job.config), backend.device)
        splits = {"training": dataset.train, "validation": dataset.validation}
        return self._tracker.start_trial(job.trial or 0, parameters, tags, splits, name=job.name)
