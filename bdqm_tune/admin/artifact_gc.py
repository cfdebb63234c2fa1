"""Garbage collection of MLflow's artifacts: those of all but the best trials of a study."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import optuna
from mlflow.entities import FileInfo, Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import not_made_yet, opened
from bdqm_tune.study.objectives import best_first, pareto_front
from bdqm_tune.study.study import RUN_ID, no_such_study
from bdqm_tune.tracking.client import ARTIFACTS, reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.recoverable_run import active_run


@dataclass(frozen=True)
class Freed:
    """The artifacts that were removed of one study."""

    study: str
    kept: tuple[int, ...]  # the trials that keep their artifacts, the best first
    runs: int  # whose artifacts were removed
    files: int
    bytes: int


def remove_artifacts(stores: Stores, study: str | None, keep_best: int, dry_run: bool) -> list[Freed]:
    """Remove the artifacts of trials that have ended, except the best of each study; parameters and curves stay.

    The run is tagged, so that nobody searches for removed artifacts. It may be repeated, and while workers run.

    Args:
        study: one study; None: all.
        keep_best: complete trials of each study, by their error, that keep theirs; at least 1. Of several objectives,
            those on the Pareto front keep theirs as well.
        dry_run: only say what would be removed.

    Raises:
        BadInput: there is no such study.
        BdqmError: a store failed; what was removed before stays removed.
    """
    quiet_libraries()
    if keep_best < 1:
        raise BadInput(f"--keep-best must be at least 1, got {keep_best}: `evaluate` needs the best model")
    trials = _trials(stores, study)
    client = tracking_client(stores)
    try:
        return [_of_study(client, name, of_study, keep_best, dry_run) for name, of_study in trials.items()]
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot remove artifacts from the MLflow tracking store: {reason(error)}") from None


def _trials(stores: Stores, study: str | None) -> dict[str, list[FrozenTrial]]:
    """All trials of one study, or of every study."""
    if not_made_yet(stores):
        if study is not None:
            raise no_such_study(stores, study, [])
        return {}
    with opened(stores) as storage:
        names = sorted(optuna.get_all_study_names(storage))
        if study is not None and study not in names:
            raise no_such_study(stores, study, names)
        wanted = names if study is None else [study]
        return {name: storage.get_all_trials(storage.get_study_id_from_name(name)) for name in wanted}


def kept_and_removed(trials: Sequence[FrozenTrial], keep_best: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The trials that keep their artifacts, the best first, and those that lose them; others have not ended."""
    complete = best_first(trials)
    front = pareto_front(complete) if complete and len(complete[0].values) > 1 else []
    numbers = {trial.number for trial in (*complete[:keep_best], *front)}
    kept = [trial for trial in complete if trial.number in numbers]
    removed = [trial for trial in trials if trial.state.is_finished() and trial.number not in numbers]
    return kept, [trial for trial in removed if RUN_ID in trial.user_attrs]


def _of_study(client: MlflowClient, study: str, trials: Sequence[FrozenTrial], keep_best: int, dry_run: bool) -> Freed:
    kept, removed = kept_and_removed(trials, keep_best)
    runs, files, size = 0, 0, 0
    for trial in track(removed, f"Artifacts of {study}", len(removed)):
        run = active_run(client, trial.user_attrs[RUN_ID])
        if run is None or ARTIFACTS in run.data.tags:
            continue
        removed_files = list(_remove(client, run, dry_run))
        runs, files = runs + 1, files + len(removed_files)
        size += sum(file.file_size or 0 for file in removed_files)
    return Freed(study, tuple(trial.number for trial in kept), runs, files, size)


def _remove(client: MlflowClient, run: Run, dry_run: bool) -> Iterator[FileInfo]:
    """Remove the artifacts, then tag the run: if this is cut off, the next call removes the rest."""
    repository = get_artifact_repository(run.info.artifact_uri, client.tracking_uri)
    for top in repository.list_artifacts():
        yield from _files(repository, top)
        if not dry_run:
            repository.delete_artifacts(top.path)
    if not dry_run:
        client.set_tag(run.info.run_id, ARTIFACTS, f"removed by bdqm-tune gc, {date.today().isoformat()}")


def _files(repository: ArtifactRepository, entry: FileInfo) -> Iterator[FileInfo]:
    if not entry.is_dir:
        yield entry
        return
    for inner in repository.list_artifacts(entry.path):
        yield from _files(repository, inner)
