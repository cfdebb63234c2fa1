"""What our MLflow server answers beyond MLflow's own: histories of a metric of many runs of an experiment at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bdqm_tune.services.histories import MOST_RUNS, PATH, metric_histories
from bdqm_tune.services.mlflow_private import server_store

if TYPE_CHECKING:
    from flask import Flask, Response


def add_histories(app: "Flask") -> None:
    """Answer POST requests for histories, of those who may read the experiment."""
    from mlflow.server import auth

    app.add_url_rule(PATH, view_func=answer_histories, methods=["POST"])
    # Where MLflow's check of every request finds the rights that it needs.
    validators: dict[Any, Callable[..., Any]] = auth.BEFORE_REQUEST_VALIDATORS
    validators[PATH, "POST"] = auth.validate_can_read_experiment


def answer_histories() -> "Response":
    """Run ids, steps and values, a list each, of {"experiment_id": …, "metric_key": …, "run_ids": [at most 1000]}."""
    from flask import jsonify, make_response, request

    body: Any = request.get_json(silent=True)
    try:
        experiment_id, key, run_ids = str(int(body["experiment_id"])), body["metric_key"], body["run_ids"]
        if not isinstance(key, str) or not isinstance(run_ids, list) or not len(run_ids) <= MOST_RUNS:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        message = f"must have experiment_id, metric_key and run_ids, of which at most {MOST_RUNS}"
        return make_response(jsonify(error_code="INVALID_PARAMETER_VALUE", message=message), 400)
    store: Any = server_store()
    with store.engine.connect() as connection:
        rows = metric_histories(connection, key, [str(run_id) for run_id in run_ids], experiment_id)
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return jsonify(dict(zip(("run_ids", "steps", "values"), map(list, columns), strict=True)))
