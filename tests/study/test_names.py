"""Names of studies that are SQL, shell, paths or markup: they work, and are names and no more."""

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from typer.testing import CliRunner

from bdqm_tune.admin.deletion import belongings, delete_study
from bdqm_tune.admin.status import all_studies, study_status
from bdqm_tune.analysis.folders import output_folder
from bdqm_tune.cli.main import app
from bdqm_tune.config.config import Config, Study
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.models.registry import register
from bdqm_tune.models.store import load_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import opened
from bdqm_tune.study.checkpoints import checkpoint_folder
from bdqm_tune.study.results import load_results
from bdqm_tune.study.study import load_study, study_id_of
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.tracker import open_tracker
from tests.fuzzing import NAMES, is_one_line, refused
from tests.mariadb import MariaDb

HARMFUL = "../../$(touch escaped)/a'; DROP TABLE studies; -- \"\\ %s{} [red]$\\frac{<b>é🧪[/]"
QUICK = {"training": {"epochs": 1}, "search": {"num_layers": 1, "num_nodes": 4}}


def test_a_study_of_any_name_from_start_to_end(stores: Stores, run: Callable[..., Any], workdir: Path) -> None:
    name = HARMFUL
    before = {path.name for path in workdir.iterdir()}
    for each in (name, "plain"):
        run(study={"name": each, "n_trials": 2}, **QUICK)
    assert [study.study for study in all_studies(stores)] == sorted([name, "plain"])
    assert load_study(stores, name).study_name == name
    assert load_results(stores, name).name == name
    for arguments in (["status", "--", name], ["studies"], ["status", "--json", "--", name]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.exception
    drawn = CliRunner().invoke(app, ["compare", "--", name])
    assert drawn.exit_code == 0, drawn.exception
    (figures,) = (workdir / "figures").iterdir()
    assert {"trials.csv", "history.png"} <= {path.name for path in figures.iterdir()}
    assert CliRunner().invoke(app, ["compare", "--", name, "plain"]).exit_code == 0
    found = belongings(stores, name)
    assert len(found.runs) == 3
    delete_study(stores, found)
    assert [study.study for study in all_studies(stores)] == ["plain"]
    assert len(belongings(stores, "plain").runs) == 3
    made = {path.name for path in workdir.iterdir()} - before
    assert made <= {".bdqm", "mlflow.db", "mlruns", "figures"}
    assert not [path for path in workdir.rglob("*") if path.name == "escaped"]


def test_a_model_of_any_name_is_registered_or_the_name_is_told(stores: Stores, run: Callable[..., Any]) -> None:
    run(study={"n_trials": 1}, **QUICK)
    for name in ("a b é", "$(touch escaped)", "{}"):
        register(stores, "small", name=name)
        assert load_model(f"models:/{name}@champion", stores).trained_on_forces is False
    for name in ("a'b", 'a"b', "a'; DROP TABLE x", "a/b", "%s"):
        assert f"{name!r} cannot be registered" in refused(
            lambda name=name: register(stores, "small", name=name), BadInput
        )
        refused(lambda name=name: load_model(f"models:/{name}@champion", stores), BadInput)


@pytest.mark.parametrize("name", NAMES)
def test_folders_of_a_study_stay_where_they_belong(workdir: Path, name: str) -> None:
    attributes = {"identity": "0123456789ab"}
    for place, inside in (
        (checkpoint_folder(workdir / "home", name, attributes), workdir / "home" / "checkpoints"),
        (workdir / output_folder(name, "figures/"), workdir / "figures"),
    ):
        assert place.resolve().parent == inside
        assert len(place.name.encode()) < 250
        assert re.fullmatch(r"[\w.-]+", place.name)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\nb", "a\tb", "a\0b", "a\x1b[31m", "\ud800", "x" * 201, " "])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Study(name=name)


def test_two_studies_may_differ_in_case_only(mariadb: MariaDb, workdir: Path) -> None:
    names = ["OC20", "oc20", "Oc20", "é", "e", "É"]
    stores = _database(mariadb, workdir, "utf8mb4_bin")
    with opened(stores) as storage:
        for name in names:
            optuna.create_study(storage=storage, study_name=name)
        assert len({study_id_of(storage, name) for name in names}) == len(names)


def test_a_database_that_does_not_tell_names_apart_is_told(
    mariadb: MariaDb, workdir: Path, run: Callable[..., Any], configure: Callable[..., Config]
) -> None:
    """As a database that a user has: MariaDB's default takes `OC20` for `oc20`."""
    stores = _database(mariadb, workdir, "utf8mb4_general_ci")
    with opened(stores) as storage:
        optuna.create_study(storage=storage, study_name="OC20")
        message = refused(lambda: study_id_of(storage, "oc20"), BadInput)
        assert study_id_of(storage, "other") is None
    assert is_one_line(message)
    assert "takes 'OC20' for the same name" in message
    assert "'OC20' for the same name" in refused(lambda: belongings(stores, "oc20"), BadInput)
    assert "'OC20' for the same name" in refused(lambda: study_status(stores, "oc20"), BadInput)
    assert [study.study for study in all_studies(stores)] == ["OC20"]


def test_a_database_in_latin_1_is_told_with_the_command_that_makes_a_right_one(mariadb: MariaDb, workdir: Path) -> None:
    """Of both stores; letters that latin1 has are none of its problem."""
    command = "CREATE DATABASE name CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

    def stores_in(statement: str) -> Stores:
        schemas = [f"s{secrets.token_hex(4)}" for _ in range(2)]
        for schema in schemas:
            mariadb.execute(statement.replace("name", schema))
        return Stores(workdir / ".bdqm", *map(mariadb.url, schemas))

    stores, name = stores_in("CREATE DATABASE name CHARACTER SET latin1"), "Größe 水"
    with opened(stores) as storage:
        optuna.create_study(storage=storage, study_name="Größe")
        for call in (
            lambda: study_id_of(storage, name),
            lambda: optuna.create_study(storage=storage, study_name=name),
            lambda: open_tracker(stores, name, 100.0, {}),
        ):
            begin = time.monotonic()
            assert f"take a new database, made by `{command}`" in refused(call, BdqmError)
            assert time.monotonic() - begin < 50, "it was not waited for"
    stores = stores_in(command)
    with opened(stores) as storage:
        optuna.create_study(storage=storage, study_name=name)
        assert study_id_of(storage, name) is not None
    run = open_tracker(stores, name, 5.0, {}).run
    assert tracking_client(stores).get_experiment(run.info.experiment_id).name == name


def _database(mariadb: MariaDb, workdir: Path, collation: str) -> Stores:
    schema = f"s{secrets.token_hex(4)}"
    mariadb.execute(f"CREATE DATABASE {schema} CHARACTER SET utf8mb4 COLLATE {collation}")
    return Stores(workdir / ".bdqm", mariadb.url(schema))
