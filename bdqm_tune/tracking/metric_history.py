"""Metric histories of many runs at once, from any kind of tracking store."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pandas as pd
import sqlalchemy as sa
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from mlflow.utils.rest_utils import http_request, verify_rest_response

from bdqm_tune.errors import BdqmError
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.histories import MOST_RUNS, PATH, metric_histories
from bdqm_tune.services.mlflow_private import host_credentials
from bdqm_tune.tracking.client import http_status, reason, tracking_client

Rows = list[tuple[str, int, float]]  # run id, step, value
BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"  # what MLflow's page requests, of
BULK_RUNS, BULK_VALUES = 100, 25_000  # at most so many runs, giving so many values


def read_curves(stores: Stores, experiment_id: str, run_ids: Sequence[str], key: str) -> pd.DataFrame:
    """A metric of many runs by step.

    A database is read itself; our own MLflow server answers for a thousand runs at once, another one for a hundred;
    a folder of files has a file for each run.

    Args:
        experiment_id: in which the runs lie.
        key: the metric's name.

    Returns:
        run_id, step, value: sorted by run and step, one row each.

    Raises:
        BdqmError: the tracking store cannot be read.
    """
    uri = stores.tracking_uri or mlflow.get_tracking_uri()
    rows: Rows = []
    try:
        read = _reader(tracking_client(stores), uri, experiment_id, key)
        starts = range(0, len(run_ids), MOST_RUNS)
        for start in track(starts, f"Curves of {MOST_RUNS} trials", len(starts)):
            rows += read(run_ids[start : start + MOST_RUNS])
    except (MlflowException, sa.exc.SQLAlchemyError, OSError) as error:
        raise BdqmError(f"cannot read the curves from MLflow: {reason(error)}") from None
    frame = pd.DataFrame(rows, columns=["run_id", "step", "value"])
    return frame.sort_values(["run_id", "step"], ignore_index=True)


def _reader(client: MlflowClient, uri: str, experiment_id: str, key: str) -> Callable[[Sequence[str]], Rows]:
    """How at most a thousand runs are read from this tracking store."""
    kind = urlsplit(uri).scheme
    if kind.partition("+")[0] in DATABASE_ENGINES:
        engine = sa.create_engine(uri, poolclass=sa.NullPool)
        return lambda run_ids: _from_database(engine, run_ids, key)
    if kind in ("http", "https"):
        return lambda run_ids: _from_server(client, experiment_id, run_ids, key)
    return lambda run_ids: _one_by_one(client, run_ids, key)


def _from_database(engine: sa.Engine, run_ids: Sequence[str], key: str) -> Rows:
    with engine.connect() as connection:
        return metric_histories(connection, key, run_ids)


def _from_server(client: MlflowClient, experiment_id: str, run_ids: Sequence[str], key: str) -> Rows:
    """By our own server's endpoint; from a server without it, by the one of MLflow's page."""
    body = {"experiment_id": experiment_id, "metric_key": key, "run_ids": list(run_ids)}
    try:
        answer = _answer(client, PATH, "POST", json=body)
        return list(zip(answer["run_ids"], answer["steps"], answer["values"], strict=True))
    except MlflowException as error:
        if http_status(error) not in (403, 404, 405):  # 403: MLflow's passwords let nobody but `admin` find out
            raise
    parts = [run_ids[start : start + BULK_RUNS] for start in range(0, len(run_ids), BULK_RUNS)]
    return [row for part in parts for row in _bulk(client, part, key)]


def _bulk(client: MlflowClient, run_ids: Sequence[str], key: str) -> Rows:
    params = [*(("run_id", run_id) for run_id in run_ids), ("metric_key", key)]
    metrics = _answer(client, BULK, "GET", params=params)["metrics"]
    if len(metrics) < BULK_VALUES:
        return _latest((m["timestamp"], m["run_id"], m["step"], m["value"]) for m in metrics)
    if len(run_ids) == 1:
        return _one_by_one(client, run_ids, key)
    half = len(run_ids) // 2
    return _bulk(client, run_ids[:half], key) + _bulk(client, run_ids[half:], key)


def _one_by_one(client: MlflowClient, run_ids: Sequence[str], key: str) -> Rows:
    histories = ((run_id, client.get_metric_history(run_id, key)) for run_id in run_ids)
    return _latest((m.timestamp, run_id, m.step, m.value) for run_id, history in histories for m in history)


def _latest(values: Iterable[tuple[int, str, int, float]]) -> Rows:
    """Of several values of a run at one step the latest; they come as time stamp, run id, step, value."""
    latest = {(run_id, step): value for _, run_id, step, value in sorted(values, key=lambda value: value[0])}
    return [(run_id, step, value) for (run_id, step), value in latest.items()]


def _answer(client: MlflowClient, path: str, method: str, **options: Any) -> Any:
    """The JSON of an endpoint that MLflow's client has no method for. Raises MlflowException."""
    response = http_request(host_credentials(client), path, method, raise_on_status=False, **options)
    return verify_rest_response(response, path).json()
