"""One training as an archive for a paper's supplement: all that is needed to use it, check it and repeat it."""

import gzip
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.files import write_whole
from bdqm_tune.models.reproduction import trained_run
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.study import run_contents as training_record
from bdqm_tune.study.best_so_far import ERRORS
from bdqm_tune.study.data import StudyData, study_data, trial_config
from bdqm_tune.tracking.client import reason
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.units import error_text

SUFFIX = ".tar.gz"
OWN = (training_record.HISTORY, training_record.MODEL, training_record.OUT_OF_FOLD)  # of the run's artifacts
ENVIRONMENT = ("version.", "git_", "device", "cpu", "cores", "host")  # beginnings of tags

README = """# {name} of the study {study}

A potential that predicts energies (eV) and forces (eV/Å) of atomistic structures, and how it was trained.

| file | holds |
|---|---|
| `model/` | the potential: weights (safetensors) and all else that prediction needs (JSON) |
| `config.yaml` | the configuration with which it was trained, nothing left open |
| `history.csv` | errors and learning rate of every epoch |
| `out_of_fold.csv` | with folds: energies of each structure by the network that was trained without its fold |
| `result.json` | parameters and metrics of the training |
| `data.json` | digests of the training and the validation split, and the images in each, or in each fold |
| `environment.json` | versions, source commit, processor and device |
| `evaluation-…/` | errors on test structures and figures, for each evaluation there was |

With bdqm-tune {version}, from Python

    import bdqm_tune
    atoms.calc = bdqm_tune.load_calculator("model")
    atoms.get_potential_energy()

or for a file that ASE reads

    bdqm-tune predict model FILE

To train it again, with the training file ({source}, {structures} images) at TRAIN:

    bdqm-tune tune --config config.yaml --train TRAIN --study again --pruner none

`bdqm-tune prepare --config config.yaml --train TRAIN` prints the digests, which must be those of `data.json`. The best
epoch's validation error ({objective}) was {error}.
"""


def export(stores: Stores, run_id: str, file: Path, train: str | None = None) -> list[str]:
    """Write the archive of a training, with the same bytes every time, and give the names of the files in it.

    Args:
        run_id: of a trial, or of a training of `confirm`.
        file: ends with .tar.gz.
        train: the training file, where it is no longer where it was.

    Raises:
        BadInput: no such run; the training file is not there or has changed; or the archive cannot be written there.
        BdqmError: the tracking store cannot be read.
    """
    quiet_libraries()
    if not file.name.endswith(SUFFIX):
        raise BadInput(f"--export {file}: must end with {SUFFIX}")
    if not file.parent.is_dir():
        raise BadInput(f"--export {file}: there is no folder {file.parent}")
    client, run = trained_run(run_id, stores)
    try:
        config = trial_config(client, run)
        data = study_data(config, run, train)
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            contents = dict(_artifacts(client, run, Path(folder)))
            for number, evaluation in enumerate(_evaluations(client, run), start=1):
                place = Path(folder) / str(number)
                contents |= dict(_all(client, evaluation, place, f"evaluation-{number}"))
    except (MlflowException, OSError) as error:
        raise BdqmError(f"{run_id}: cannot be read from the MLflow tracking store: {reason(error)}") from None
    # Where the files lay says nothing to others; the test split takes no part in the training.
    names = {
        name: [_file_names(file) for file in files] if isinstance(files, list) else _file_names(files)
        for name in ("train", "validation_file")
        if (files := getattr(config.data, name)) is not None
    }
    contents |= {
        training_record.CONFIG: training_record.as_yaml(config.updated({"data": {**names, "test": None}})).encode(),
        "result.json": _json({"run_id": run_id, "parameters": run.data.params, "metrics": run.data.metrics}),
        "data.json": _json(_data(data)),
        "environment.json": _json({k: v for k, v in run.data.tags.items() if k.startswith(ENVIRONMENT)}),
        "README.md": _readme(run, data).encode(),
    }
    write_whole(file, archive(contents, file.name.removesuffix(SUFFIX)))
    return sorted(contents)


def archive(contents: Mapping[str, bytes], top: str) -> bytes:
    """A .tar.gz of these files in the folder `top`; sorted, without times and owners, it is always the same."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(contents):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode = len(contents[name]), 0o644
            tar.addfile(entry, io.BytesIO(contents[name]))
    return packed.getvalue()


def _artifacts(client: MlflowClient, run: Run, folder: Path) -> Iterator[tuple[str, bytes]]:
    for name, content in _all(client, run, folder, ""):
        if name.partition("/")[0] in OWN:
            yield name, content


def _all(client: MlflowClient, run: Run, folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The artifacts of a run, below a folder of the archive."""
    folder.mkdir(exist_ok=True)
    top = Path(
        mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, dst_path=str(folder), tracking_uri=client.tracking_uri
        )
    )
    for path in top.rglob("*"):
        if path.is_file():
            name = path.relative_to(top).as_posix()
            yield f"{prefix}/{name}" if prefix else name, path.read_bytes()


def _evaluations(client: MlflowClient, run: Run) -> list[Run]:
    """The evaluations of a run's model that have files, the first to come first."""
    query = f"tags.model_run_id = '{run.info.run_id}' and tags.kind = 'evaluation'"
    found = client.search_runs([run.info.experiment_id], query, order_by=["attributes.start_time ASC"])
    return [one for one in found if client.list_artifacts(one.info.run_id)]


def _data(data: StudyData) -> dict[str, Any]:
    source = data.structures
    digests = dict(zip(("training", "validation"), data.indices.digests(source), strict=True))
    splits = {"training": data.train, "validation": data.validation}
    folds = [source.images[held_out].tolist() for held_out in data.indices.folds]
    return {
        "source": _file_names(source.source),
        "structures": len(source),
        "elements": source.elements,
        "forces": source.forces is not None,
        **{
            name: {"digest": digests[name], "structures": len(part), "images": source.images[part].tolist()}
            for name, part in splits.items()
        },
        **({"folds": folds} if folds else {}),
    }


def _file_names(source: str) -> str:
    """The names of one or several files, with commas or a plus between them, without their folders."""
    return " + ".join(re.sub(r"[^,]*/", "", part) for part in source.split(" + "))


def _readme(run: Run, data: StudyData) -> str:
    objective = run.data.params["objective"]
    errors = {name: run.data.metrics.get(f"best_{name}") for name in ERRORS}
    return README.format(
        name=run.info.run_name,
        study=run.data.tags["study"],
        version=run.data.tags.get("version.bdqm-tune", "as in environment.json"),
        source=_file_names(data.structures.source),
        structures=len(data.structures),
        error=error_text(errors, objective, ".6g"),
        objective=objective,
    )


def _json(content: Any) -> bytes:
    return (without_secrets(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)) + "\n").encode()
