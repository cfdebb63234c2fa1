"""Finalists, registry and repetition through the servers, with both stores in MariaDB."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import mlflow
import pytest

from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.registry import register
from bdqm_tune.models.reproduction import EQUAL, reproduce
from bdqm_tune.models.serving import record_of
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.selection import champion_of
from bdqm_tune.study.study import load_study
from bdqm_tune.tuning.tune import tune
from tests.servers import Servers


@pytest.mark.endurance  # test_confirm.py of confirmation/ and cli/test_results.py come as far, each in half the time
def test_from_a_study_to_a_registered_champion(
    servers: Servers,
    workdir: Path,
    configure: Callable[..., Any],
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = Stores(workdir / ".bdqm", connection_file=servers.places.connection)
    config = configure(study={"name": "confirmed", "n_trials": 3, "pruner": "none"}, training={"epochs": 3})
    tune(prepare(config, stores.home), config, stores)
    made = confirm(stores, "confirmed", Options(best=2, seeds=2))
    assert champion_of(load_study(stores, "confirmed")) == made.champion
    lines: list[str] = []
    confirm(stores, "confirmed", Options(best=2, seeds=2), lambda line, done, n: lines.append(line))
    assert all(line.endswith("trained before") for line in lines)

    found = reproduce(stores, made.champion.run_id)
    assert (found.verdict, found.same_weights) == (EQUAL, True)

    assert register(stores, "confirmed").run_id == made.champion.run_id
    test = ase.io.read(files["test"], ":")
    expected = load_potential(made.champion.run_id, stores).predict(test, False).energies.tolist()
    address = "models:/confirmed@champion"
    assert load_potential(address, stores).predict(test, False).energies.tolist() == expected
    for name, value in stores.tracking_environment.items():
        monkeypatch.setenv(name, value)
    served = mlflow.pyfunc.load_model(address).predict([record_of(atoms) for atoms in test], params={"forces": False})
    assert [one["energy"] for one in served] == expected
