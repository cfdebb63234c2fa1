"""The best errors of a study, in the MLflow runs of its workers: the same in all of them."""

from collections.abc import Sequence

from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient
from optuna import Study

from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.storage.cache import cache_of
from bdqm_tune.study.best_so_far import BestSoFar, best_so_far
from bdqm_tune.tracking.recoverable_run import active_run
from bdqm_tune.tracking.search import search
from bdqm_tune.tracking.tracker import Tracker
from bdqm_tune.workers.registry import Workers
from bdqm_tune.workers.run_cleanup import if_it_may_be


class BestMetrics:
    """The best values of a study so far, logged to the runs of its workers.

    Args:
        objectives: of the study.
    """

    def __init__(self, tracker: Tracker, study: Study, objectives: Sequence[str]) -> None:
        storage = cache_of(study).backend
        self._tracker, self._study, self._objectives = tracker, study, objectives
        self._directions = study.directions
        self._workers = Workers(storage.engine, storage.retry, id_of(study))

    def log(self, number: int | None = None) -> None:
        """Log the best values, once the study has the results that are being sent.

        They go into this worker's run. They go into the runs of the other workers, too, those that have ended
        included, if a trial has improved one of them, or this worker ends.

        Args:
            number: of the trial that has ended; None: the worker ends.
        """
        found: list[BestSoFar | None] = []  # read once: a run that takes the place of a deleted one gets the same

        def read() -> BestSoFar | None:
            if not found:
                found.append(best_so_far(self._study.get_trials(deepcopy=False), self._objectives, self._directions))
            return found[0]

        def to_own(client: MlflowClient, run: Run) -> None:
            if best := read():
                client.log_batch(run.info.run_id, metrics=_metrics(best))

        def to_others(client: MlflowClient) -> None:
            best = read()
            if best and (number is None or number in best.trials):
                self._log_to_others(client, best)

        self._tracker.study.send(to_own)
        self._tracker.send(to_others)

    def _log_to_others(self, client: MlflowClient, best: BestSoFar) -> None:
        """Log to the runs of all workers that are registered, where these show anything else."""
        own = self._tracker.run
        known = {worker.description["run_id"] for worker in self._workers.all() if "run_id" in worker.description}
        if not known - {own.info.run_id}:
            return
        shown = {run.info.run_id: run for run in search(client, "tags.kind = 'study'", [own.info.experiment_id])}
        for run_id in sorted(known - {own.info.run_id}):
            run = shown.get(run_id) or active_run(client, run_id)  # of `mlflow run`, in any experiment
            if run and any(run.data.metrics.get(name) != value for name, value in best.values.items()):
                with if_it_may_be("the best errors in the run of another worker"):
                    client.log_batch(run_id, metrics=_metrics(best))


def _metrics(best: BestSoFar) -> list[Metric]:
    # Step and time are those of the last trial that counts, so that what two workers log is one value.
    moment = round(1000 * best.time.timestamp())
    return [Metric(name, value, moment, best.n_ended) for name, value in best.values.items()]
