"""Files that would run something if anything unpickled them: wherever a file is read, nothing is."""

import ast
import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io.formats import ioformats

from bdqm_tune.amptorch_import import load_amptorch_checkpoint, read_config
from bdqm_tune.config.config import load_config
from bdqm_tune.descriptors.pseudodensity import read_folder
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.checkpoint import read_checkpoint
from bdqm_tune.models.store import load_folder
from bdqm_tune.services.connection import read_connection
from bdqm_tune.services.site import load_site
from bdqm_tune.services.submissions import read_records
from bdqm_tune.structures import read_structures

PROJECT = Path(__file__).parents[1]
ESCAPED = "escaped"  # the file that a payload makes


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"import pathlib; pathlib.Path({str(Path(ESCAPED).absolute())!r}).touch()",))


def old_trajectory() -> bytes:
    """As ASE wrote trajectories before 2014: a magic word, and pickles."""
    return b"PickleTrajectory" + pickle.dumps(
        {"positions": Payload(), "constraints_string": pickle.dumps(Payload())}, 2
    )


def object_array(compressed: bool) -> bytes:
    """numpy's files with an array of objects, which are pickled."""
    file, array = io.BytesIO(), np.array([Payload()], dtype=object)
    np.savez(file, energies=array, forces=array) if compressed else np.save(file, array)
    return file.getvalue()


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save({"weights": Payload()}, file)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Payload()))
    return file.getvalue()


CONTENTS: dict[str, Callable[[], bytes]] = {
    "pickle": lambda: pickle.dumps(Payload()),
    "old pickle": lambda: pickle.dumps(Payload(), 0),
    "trajectory": old_trajectory,
    "array": lambda: object_array(False),
    "arrays": lambda: object_array(True),
    "torch": torch_file,
    "zip": zipped,
    "yaml": lambda: f'!!python/object/apply:pathlib.Path.touch ["{Path(ESCAPED).absolute()}"]'.encode(),
    "python": lambda: f'open("{Path(ESCAPED).absolute()}", "w")'.encode(),
}


def _folder(name: str) -> Callable[[Path], Any]:
    """A reader of a folder in which the file has this name."""

    def read(file: Path) -> Any:
        folder = file.with_name("folder")
        folder.mkdir(exist_ok=True)
        for each in (
            "potential.json",
            "potential.safetensors",
            "ensemble.json",
            "params.pt",
            "config.pt",
            "normalizers.pt",
        ):
            shutil.copy(file, folder / each)
        shutil.copy(file, folder / name)
        if name != "ensemble.json":
            (folder / "ensemble.json").unlink()
        return load_amptorch_checkpoint(folder) if name == "params.pt" else load_folder(folder)

    return read


def _only(folder: str, name: str, file: Path) -> Path:
    """A folder with the file under this name alone."""
    made = file.with_name(folder)
    made.mkdir(exist_ok=True)
    shutil.copy(file, made / name)
    return made


READERS: dict[str, Callable[[Path], Any]] = {
    "a potential": _folder("potential.json"),
    "an ensemble": _folder("ensemble.json"),
    "a checkpoint of amptorch": _folder("params.pt"),
    "a checkpoint": lambda file: read_checkpoint(file, {}),
    "a configuration": load_config,
    "a configuration of amptorch": read_config,
    "a site": load_site,
    "the connection": read_connection,
    "records of jobs": lambda file: read_records(_only("records", "a.json", file)),
    "pseudo-densities": lambda file: read_folder(_only("densities", "Cu_x.g", file)),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_the_payload_is_one(workdir: Path, content: str) -> None:
    """So that the other tests could fail: what reads these files without care makes the file."""
    (workdir / "payload").write_bytes(CONTENTS[content]())
    careless: dict[str, Callable[[bytes], Any]] = {
        "pickle": pickle.loads,
        "old pickle": pickle.loads,
        "trajectory": lambda data: pickle.loads(data[len(b"PickleTrajectory") :]),
        "array": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
        "arrays": lambda data: np.load(io.BytesIO(data), allow_pickle=True)["energies"],
        "torch": lambda data: torch.load(io.BytesIO(data), weights_only=False),
        "zip": lambda data: pickle.loads(zipfile.ZipFile(io.BytesIO(data)).read("data.pkl")),
        "python": exec,
    }
    if content not in careless:
        pytest.skip("only a loader of YAML that PyYAML calls unsafe runs it")
    careless[content]((workdir / "payload").read_bytes())
    assert (workdir / ESCAPED).exists()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_run_and_the_file_is_refused(workdir: Path, reader: str, content: str) -> None:
    file = workdir / "given"
    file.write_bytes(CONTENTS[content]())
    with pytest.raises(BdqmError):
        READERS[reader](file)
    assert not (workdir / ESCAPED).exists()


@pytest.mark.filterwarnings("ignore")  # of ASE's readers, which are given what is not for them
@pytest.mark.parametrize("content", CONTENTS)
def test_no_format_of_structures_runs_it(workdir: Path, content: str) -> None:
    """Under every ending that ASE knows, and without one."""
    data = CONTENTS[content]()
    endings = {ending for known in ioformats.values() for ending in (*known.extensions, known.name)}
    assert {"traj", "json", "db", "extxyz"} <= endings
    for ending in ["", *sorted(endings)]:
        file = workdir / f"given.{ending}"
        file.write_bytes(data)
        with pytest.raises(BdqmError):
            read_structures(file)
        assert not (workdir / ESCAPED).exists(), ending


UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("package", ["bdqm_tune", "mlflow_server", "analysis", "scripts"])
def test_nothing_in_the_code_could(package: str) -> None:
    """No import of what unpickles, and no load that may, but for two that are known."""
    found = []
    for path in (PROJECT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            elif isinstance(node, ast.Call):
                called, options = ast.unparse(node.func), {option.arg for option in node.keywords}
                if called in (
                    "torch.load",
                    "yaml.load",
                    "pd.read_pickle",
                    "eval",
                    "yaml.unsafe_load",
                    "yaml.full_load",
                ):
                    found.append(f"{path}: {called}")
                if "allow_pickle" in options or any(option.arg == "shell" for option in node.keywords):
                    found.append(f"{path}: {ast.unparse(node)}")
            found += [f"{path}: import {name}" for name in names if name in UNSAFE]
    # A reader that refuses what is no number, a file of mace that the configuration names as trusted, and the checks
    # for authors of plugins, which unpickle what they have just pickled.
    known = {
        "bdqm_tune/testing/descriptors.py: import pickle",
        "bdqm_tune/testing/potentials.py: import pickle",
        "bdqm_tune/amptorch_import/unpickler.py: import pickle",
        "bdqm_tune/backends/mace_model.py: torch.load",
    }
    assert set(found) == {f"{PROJECT / each}" for each in known if each.startswith(f"{package}/")}
