"""Runs, experiments and registered models of an MLflow store, whatever their number."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import sqlite_file

PAGE = 1000
STATUS_RUNNING = "attributes.status = 'RUNNING'"  # a filter of MLflow's

Item = TypeVar("Item")


def tracking_not_made_yet(stores: Stores) -> bool:
    """Whether MLflow's store is a SQLite file that does not exist yet: opening it would make it."""
    try:
        file = sqlite_file(make_url(stores.tracking_uri or mlflow.get_tracking_uri()))
    except ArgumentError:  # a server, or a folder
        return False
    return file is not None and not file.exists()


def search(
    client: MlflowClient, filter_string: str, experiments: Sequence[str] | None = None, deleted: bool = False
) -> Iterator[Run]:
    """All runs that match a filter of MLflow's, in some experiments or in all.

    Args:
        deleted: only deleted runs; else only active ones.
    """
    if experiments is None:
        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        experiments = [experiment.experiment_id for experiment in _experiments(client, view)]
    view, chosen = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY, list(experiments)
    if chosen:
        yield from _all(
            lambda token: client.search_runs(chosen, filter_string, view, max_results=PAGE, page_token=token)
        )


def runs_named(
    client: MlflowClient, study: str, experiments: Sequence[str] | None = None, deleted: bool = False
) -> Iterator[Run]:
    """The runs with the tag of a study of that name; the other arguments are those of `search`."""
    # Within quotes MLflow's filters know no others of that kind.
    filter_string = f"tags.study = '{study}'" if "'" not in study else "tags.study LIKE '%'"
    return (run for run in search(client, filter_string, experiments, deleted) if run.data.tags.get("study") == study)


def versions_of(client: MlflowClient, runs: Collection[str]) -> list[str]:
    """The versions of registered models that lie in these runs, as `oc20 version 3`."""
    versions = _all(lambda token: client.search_model_versions(max_results=PAGE, page_token=token))
    return [f"{version.name} version {version.version}" for version in versions if version.run_id in runs]


def _experiments(client: MlflowClient, view: int) -> Iterator[mlflow.entities.Experiment]:
    return _all(lambda token: client.search_experiments(view, max_results=PAGE, page_token=token))


def _all(page_from: Callable[[str | None], PagedList[Item]]) -> Iterator[Item]:
    """The items of all pages."""
    page = page_from(None)
    yield from page
    while page.token:
        page = page_from(page.token)
        yield from page
