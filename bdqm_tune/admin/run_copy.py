"""MLflow runs copied to another tracking store; a copy that was cut off is resumed."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import DatasetInput, InputTag, Param, Run, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from bdqm_tune.progress import track
from bdqm_tune.tracking.experiments import experiment_of
from bdqm_tune.tracking.search import search

COPIED_FROM, UNFINISHED = "copied_from_run_id", "copy_unfinished"  # tags of a copy
OWN = {COPIED_FROM, UNFINISHED}  # which what is copied may have as well, being a copy
TEXTS = (".json", ".csv", ".yaml", ".md", ".html", ".txt")  # files that may name runs


def copy_runs(source: MlflowClient, target: MlflowClient, runs: Sequence[Run]) -> dict[str, str]:
    """Copy runs with all that they contain, into experiments of the same names.

    What names one of the runs names its copy there. Copies that are there from an earlier call get what they lack.

    Returns:
        Ids of runs and experiments of the target by those of the source.

    Raises:
        MlflowException, OSError: a store failed.
        BadInput: an experiment of that name is deleted in the target.
    """
    experiments = {
        experiment_id: experiment_of(target, source.get_experiment(experiment_id).name, restore=False)
        for experiment_id in dict.fromkeys(run.info.experiment_id for run in runs)
    }
    existing = search(target, f"tags.{COPIED_FROM} LIKE '%'", list(experiments.values()))
    made = {run.data.tags[COPIED_FROM]: run for run in existing}
    unfinished = [run for run in runs if not _is_whole(run, made.get(run.info.run_id))]
    for run in unfinished:  # all ids first, as runs name each other
        info = run.info
        if info.run_id in made:
            target.set_tag(made[info.run_id].info.run_id, UNFINISHED, "true")
        else:
            tags = {COPIED_FROM: info.run_id, UNFINISHED: "true"}
            made[info.run_id] = target.create_run(experiments[info.experiment_id], info.start_time, tags, info.run_name)
    copies = {run.info.run_id: made[run.info.run_id].info.run_id for run in runs}
    for run in track(unfinished, "Runs", len(unfinished)):
        _fill(source, target, run, copies)
    return copies | experiments


def renamed(text: str, copies: Mapping[str, str]) -> str:
    """A text in which runs have the ids of their copies."""
    for old, new in copies.items():
        if is_run_id(old):
            text = text.replace(old, new)
    return text


def is_run_id(text: str) -> bool:
    """Whether an id is a run's; an experiment's is a number."""
    return len(text) == 32


def _is_whole(run: Run, copy: Run | None) -> bool:
    """Whether a run was copied, and nothing has come to it since."""
    if copy is None or UNFINISHED in copy.data.tags:
        return False
    then, now = copy.info, run.info
    times = (then.status, then.start_time, then.end_time) == (now.status, now.start_time, now.end_time)
    tags = copy.data.tags.keys() - {COPIED_FROM} == run.data.tags.keys() - OWN
    return times and tags and copy.data.params == run.data.params and copy.data.metrics == run.data.metrics


def _fill(source: MlflowClient, target: MlflowClient, run: Run, copies: Mapping[str, str]) -> None:
    run_id, new_id = run.info.run_id, copies[run.info.run_id]
    metrics = [metric for name in run.data.metrics for metric in source.get_metric_history(run_id, name)]
    params = [Param(key, value) for key, value in run.data.params.items()]
    tags = [RunTag(key, renamed(value, copies)) for key, value in run.data.tags.items() if key not in OWN]
    target.log_batch(new_id, metrics, params, tags)  # more than one request takes is divided by the client
    if run.inputs is not None and run.inputs.dataset_inputs:
        inputs = [
            DatasetInput(given.dataset, [InputTag(tag.key, tag.value) for tag in given.tags])
            for given in run.inputs.dataset_inputs
        ]
        target.log_inputs(new_id, datasets=inputs)
    _copy_artifacts(source, target, run, target.get_run(new_id), copies)
    if run.info.end_time is None:
        target.update_run(new_id, run.info.status)
    else:
        target.set_terminated(new_id, run.info.status, run.info.end_time)
    target.delete_tag(new_id, UNFINISHED)


def _copy_artifacts(source: MlflowClient, target: MlflowClient, run: Run, copy: Run, copies: Mapping[str, str]) -> None:
    repository = get_artifact_repository(run.info.artifact_uri, source.tracking_uri)
    if not repository.list_artifacts():
        return
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        repository.download_artifacts("", folder)
        for file in Path(folder).rglob("*"):
            if file.suffix in TEXTS and file.is_file():
                content = file.read_bytes()
                text = content.decode("utf-8", "surrogateescape")
                if (changed := renamed(text, copies)) != text:
                    file.write_bytes(changed.encode("utf-8", "surrogateescape"))
        get_artifact_repository(copy.info.artifact_uri, target.tracking_uri).log_artifacts(folder)
