"""A study's model in MLflow's registry: loaded and served by MLflow, and by the package."""

import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from ase import Atoms
from mlflow.exceptions import MlflowException

from bdqm_tune.admin.artifact_gc import remove_artifacts
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import assemble
from bdqm_tune.models.registry import register
from bdqm_tune.models.serving import ServedModel, read_records, record_of, signature
from bdqm_tune.models.store import load_folder, load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from tests.forked import Forked

Tuned = Callable[..., str]


@pytest.fixture
def tuned(configure: Callable[..., Config]) -> Tuned:
    """`tuned(stores, name)`: a study of two complete trials; gives the run of the best."""

    def go(stores: Stores, name: str = "small", n_trials: int = 2) -> str:
        config = configure(study={"name": name, "n_trials": n_trials, "pruner": "none"}, training={"epochs": 2})
        return str(tune(prepare(config, stores.home), config, stores).best_trial.user_attrs["mlflow_run_id"])

    return go


def test_a_registered_model_is_what_was_trained(
    both: Stores, tuned: Tuned, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"registry-{both.connection_file is None}"
    best = tuned(both, name)
    test = ase.io.read(files["test"], ":")
    expected = load_potential(best, both).predict(test)
    made = register(both, name)
    assert (made.name, made.version, made.run_id, made.known) == (name, "1", best, False)
    assert register(both, name).known
    client = tracking_client(both)
    (version,) = client.search_model_versions(f"name = '{name}'")
    run = client.get_run(best)
    for tag in ("train_digest", "validation_digest"):
        assert version.tags[tag] == run.data.tags[tag]
    assert (version.tags["study"], version.tags["seed"], version.run_id) == (name, "0", best)
    assert len(version.tags["test_digest"]) == 64

    address = f"models:/{name}@champion"
    assert load_potential(address, both).predict(test).energies.tolist() == expected.energies.tolist()
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", client.tracking_uri)
    served = mlflow.pyfunc.load_model(address)
    assert served.metadata.signature.inputs.input_names() == [
        "extxyz",
        "symbols",
        "numbers",
        "positions",
        "cell",
        "pbc",
    ]
    assert served.predict(served.input_example)[0].keys() == {"energy", "forces"}
    for form in (record_of, Atoms.todict):
        found = served.predict([form(atoms) for atoms in test])
        assert [one["energy"] for one in found] == expected.energies.tolist()
        for one, forces in zip(found, expected.forces or [], strict=True):
            np.testing.assert_array_equal(one["forces"], forces)
    assert served.predict([record_of(test[0])], params={"forces": False}) == [{"energy": expected.energies[0]}]
    folder = Path(mlflow.artifacts.download_artifacts(address))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".py", ".pickle")]

    # The champion is the next version, and what gc removes is not what was registered.
    champion = confirm(both, name, Options(best=1, seeds=2)).champion
    second = register(both, name, alias="champion")
    assert (second.version, second.run_id) == ("2", champion.run_id)
    version = client.get_model_version_by_alias(name, "champion")
    assert version.tags["confirm_run_ids"] == ", ".join(champion.run_ids)
    assert version.tags["confirmation_run_id"] == champion.confirmation_run_id
    client.set_tag(best, "artifacts", "removed")
    assert load_potential(f"models:/{name}/1", both).predict(test).energies.tolist() == expected.energies.tolist()


def test_a_model_of_an_earlier_version_is_served_too(
    stores: Stores, tuned: Tuned, files: dict[str, str], tmp_path: Path
) -> None:
    """It names what reads it by the module's name of then."""
    best, test = tuned(stores), ase.io.read(files["test"], ":2")
    made = register(stores, "small")
    uri = tracking_client(stores).tracking_uri
    folder = mlflow.artifacts.download_artifacts(f"models:/{made.name}/{made.version}", None, None, str(tmp_path), uri)
    description = Path(folder) / "MLmodel"
    text = description.read_text(encoding="utf-8")
    assert "loader_module: bdqm_tune.models.serving" in text
    description.write_text(text.replace("bdqm_tune.models.serving", "bdqm_tune.experiment.serving"))
    served = mlflow.pyfunc.load_model(folder).predict([record_of(atoms) for atoms in test], params={"forces": False})
    expected = load_potential(best, stores).predict(test, forces=False).energies
    assert [row["energy"] for row in served] == expected.tolist()


def test_three_that_register_a_model_at_once_make_one_version(stores: Stores, tuned: Tuned) -> None:
    tuned(stores)
    command = ["-m", "bdqm_tune", "register", "--study", "small", "--json"]
    processes = [Forked(command) for _ in range(3)]
    outputs = [process.communicate(180) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    versions = tracking_client(stores).search_model_versions("name = 'small'")
    assert [version.version for version in versions] == [1]


def test_an_older_best_model_stays_registered(stores: Stores, tuned: Tuned) -> None:
    tuned(stores, n_trials=3)
    register(stores, "small")
    remove_artifacts(stores, "small", 1, dry_run=False)
    assert register(stores, "small", name="other").name == "other"


def test_what_mlflow_does_not_take_is_named(stores: Stores, tuned: Tuned) -> None:
    with pytest.raises(BadInput, match="no study 'small'"):
        register(stores, "small")
    tuned(stores, n_trials=1)
    with pytest.raises(BadInput, match="'a/b' cannot be registered: .*--name and --alias give others"):
        register(stores, "small", name="a/b")
    with pytest.raises(BadInput, match=r"gone\.traj: no such file .*--train FILE"):
        register(stores, "small", train="gone.traj")


def test_who_may_not_write_is_told(served: Stores, tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own rights count: a version of another's model needs them."""
    tuned(served, "rights", 1)
    register(served, "rights")
    client = tracking_client(served)
    auth = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
    user = {"username": "student", "password": "a long password"}
    requests.post(f"{client.tracking_uri}/api/2.0/mlflow/users/create", json=user, auth=auth).raise_for_status()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", user["password"])
    other = Stores(served.home, served.storage, client.tracking_uri)
    assert load_potential("models:/rights@champion", other)
    with pytest.raises(BdqmError, match="cannot register 'rights' in MLflow: .*403.*another account's"):
        register(other, "rights")


def test_mlflows_other_models_are_not_loaded(workdir: Path) -> None:
    (workdir / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}\n")
    with pytest.raises(BadInput, match="a model of MLflow's own kind, not one that `bdqm-tune register` made"):
        load_folder(workdir)


PLACE = {"positions": [[0, 0, 0]]}
BAD_RECORDS: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "no structures; the input is a list"),
    "an unknown form": ([{"energy": 1.0}], "record 0: has energy; a structure is "),
    "no positions": ([{"numbers": [29]}], "record 0: has numbers; a structure is "),
    "two ways to say elements": (
        [{"numbers": [29], "symbols": "Cu", "positions": [[0, 0, 0]]}],
        "record 0: has numbers, positions, symbols",
    ),
    "pbc without a cell": ([{"numbers": [29], "positions": [[0, 0, 0]], "pbc": True}], "record 0: has pbc alone"),
    "other numbers of atoms": ([{"symbols": "Cu2", "positions": [[0, 0, 0]]}], "record 0: is not a structure"),
    "an unknown element": ([{"symbols": "Qq", "positions": [[0, 0, 0]]}], "record 0: is not a structure"),
    "no text": ([{"extxyz": 3}], "record 0: extxyz must be a text, got int"),
    "not extxyz": ([{"symbols": "Cu", "positions": [[0, 0, 0]]}, {"extxyz": "no"}], "record 1: extxyz: ASE cannot"),
}


@pytest.mark.parametrize(("records", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_structure_is_named(records: list[Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_records(records)


def test_every_form_is_the_same_structure(files: dict[str, str]) -> None:
    atoms = ase.io.read(files["test"], 0)
    text = io.StringIO()
    ase.io.write(text, [atoms, atoms], format="extxyz")
    record = record_of(atoms)
    symbols = {**record, "symbols": atoms.get_chemical_symbols()}
    del symbols["numbers"]
    found = read_records([record, symbols, {"extxyz": text.getvalue(), "cell": float("nan")}])
    assert len(found) == 4
    for one in found:
        assert one.numbers.tolist() == atoms.numbers.tolist()
        np.testing.assert_allclose(one.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(one.cell, atoms.cell)
        assert one.pbc.all()
    molecule = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
    assert record_of(molecule).keys() == {"numbers", "positions"}


def test_an_ensemble_says_how_sure_it_is(stores: Stores, tuned: Tuned, files: dict[str, str]) -> None:
    tuned(stores)
    ensemble = assemble(stores, "small", best=2, coverage=0.5).ensemble
    atoms = ase.io.read(files["test"], 0)
    (found,) = ServedModel(ensemble).predict(pd.DataFrame([record_of(atoms)]))
    assert found["energy_interval"][0] < found["energy"] < found["energy_interval"][1]
    assert found.keys() == set(signature(ensemble).outputs.input_names())
    with pytest.raises(MlflowException, match="structure 0: positions and cell must be finite") as raised:
        ServedModel(ensemble).predict(pd.DataFrame([{"symbols": "Cu", "positions": [[0, 0, None]]}]))
    assert raised.value.get_http_status_code() == 400


@pytest.fixture
def serve(workdir: Path) -> Iterator[Callable[[str], str]]:
    """`serve(address)`: `mlflow models serve` on a port of its own; gives the address for requests."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(model: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # uvicorn is started by its name
        with (workdir / "serve.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [*command, "--port", str(port)],
                    env=os.environ | {"PATH": path},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/ping", timeout=1).raise_for_status()
                return f"http://127.0.0.1:{port}/invocations"
            except requests.RequestException:
                assert processes[-1].poll() is None, (workdir / "serve.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.3)

    yield start
    for process in processes:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.mark.endurance
def test_mlflow_serves_it(stores: Stores, tuned: Tuned, files: dict[str, str], serve: Callable[[str], str]) -> None:
    best = tuned(stores, n_trials=1)
    register(stores, "small")
    url = serve("models:/small@champion")
    test = ase.io.read(files["test"], ":")
    expected = load_potential(best, stores).predict(test)
    records = [record_of(atoms) for atoms in test]
    for key in ("inputs", "dataframe_records"):
        answer = requests.post(url, json={key: records})
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        assert [one["energy"] for one in found] == expected.energies.tolist()
        assert found[3]["forces"] == (expected.forces or [])[3].tolist()
    text = Path(files["train"]).parent / "test.xyz"
    ase.io.write(text, test, format="extxyz")
    found = requests.post(url, json={"inputs": [{"extxyz": text.read_text()}], "params": {"forces": False}}).json()
    assert [one["energy"] for one in found["predictions"]] == pytest.approx(expected.energies.tolist(), abs=1e-4)
    for records in [*(bad for bad, _ in BAD_RECORDS.values()), ["text"], [{"pbs": 1}], [{"symbols": "U", **PLACE}]]:
        answer = requests.post(url, json={"inputs": records})
        assert answer.status_code == 400, (records, answer.text)
        # MLflow leaves out what it does not know, so that nothing may be left.
        assert re.search("record [01]: |structure 0: element U|no structures; the input", answer.json()["message"])
