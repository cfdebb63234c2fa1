"""Histories of one metric of many runs at once, from MLflow's tables: MLflow's API reads one run a request."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

PATH = "/api/2.0/bdqm/metric-histories"  # where our MLflow server answers with them
MOST_RUNS = 1000  # of one request, and of one query


def metric_histories(
    connection: "sa.Connection", key: str, run_ids: Sequence[str], experiment_id: str | None = None
) -> list[tuple[str, int, float]]:
    """Run id, step and value of a metric, sorted; of several values at one step the latest.

    Args:
        connection: to MLflow's database.
        key: the metric's name.
        run_ids: at most `MOST_RUNS`.
        experiment_id: only those runs that lie in this experiment; None: wherever they lie.
    """
    import sqlalchemy as sa
    from mlflow.store.tracking.dbmodels.models import SqlMetric, SqlRun

    metric = SqlMetric
    query: Any = sa.select(metric.run_uuid, metric.step, metric.value, metric.is_nan)
    query = query.where(metric.key == key, metric.run_uuid.in_(run_ids))
    if experiment_id is not None:
        query = query.join(SqlRun, SqlRun.run_uuid == metric.run_uuid).where(SqlRun.experiment_id == int(experiment_id))
    rows = connection.execute(query.order_by(metric.run_uuid, metric.step, metric.timestamp))
    latest = {(run_id, step): float("nan") if is_nan else value for run_id, step, value, is_nan in rows}
    return [(run_id, step, value) for (run_id, step), value in latest.items()]
