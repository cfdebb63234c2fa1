"""The precision of a model's network can be asked for where a model is loaded to predict."""

from pathlib import Path

import ase.io
import mlflow
import pytest
import torch
from ase.build import bulk
from mlflow.exceptions import MlflowException

import bdqm_tune as bt
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.models.registry import LOADER
from bdqm_tune.models.serving import record_of, signature
from tests.commands import Call
from tests.learning.test_potential import random_potential


def test_a_model_predicts_in_the_precision_asked_for(workdir: Path, call: Call) -> None:
    """With the weights it has; in double precision those of a twin that always was."""
    single = random_potential(dtype=torch.float32)
    single.save(Path("single"))
    double = random_potential(dtype=torch.float64)
    double.network.load_state_dict({name: value.double() for name, value in single.network.state_dict().items()})
    double.save(Path("double"))
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    energies = {}
    for model in ("single", "double"):
        for precision in (None, "float32", "float64"):
            atoms.calc = bt.load_calculator(model, precision=precision)
            energies[model, precision] = atoms.get_potential_energy(), atoms.get_forces().tolist()
    assert energies["single", None] == energies["single", "float32"] == energies["double", "float32"]
    assert energies["double", None] == energies["double", "float64"] == energies["single", "float64"]
    assert energies["single", None] != energies["double", None]

    atoms.calc = None
    ase.io.write("cu.traj", atoms)
    for precision, model in (("float64", "single"), ("float32", "double")):
        assert call("predict", model, "cu.traj", "--out", "out.xyz", "--precision", precision)[0] == 0
        written = ase.io.read("out.xyz")
        assert written.get_potential_energy() == pytest.approx(energies[model, precision][0], abs=1e-8)
    assert abs(energies["single", None][0] - energies["single", "float64"][0]) > 1e-8


def test_a_served_model_predicts_in_the_precision_asked_for(workdir: Path) -> None:
    """By MLflow's own way, with the signature that `register` writes: a parameter that it lacks would be left out."""
    single = random_potential(dtype=torch.float32)
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    single.save(Path("model"))
    mlflow.pyfunc.save_model(
        "packed", loader_module=LOADER, data_path="model", signature=signature(single), pip_requirements=[]
    )
    served = mlflow.pyfunc.load_model("packed")
    energies = {}
    for precision in ("", "float32", "float64"):
        (found,) = served.predict([record_of(atoms)], params={"precision": precision})
        energies[precision] = found["energy"]
        atoms.calc = bt.load_calculator("model", precision=precision or None)
        assert found["energy"] == atoms.get_potential_energy()
        assert found["forces"] == atoms.get_forces().tolist()
    assert served.predict([record_of(atoms)])[0]["energy"] == energies[""] == energies["float32"] != energies["float64"]
    with pytest.raises(MlflowException, match="'half': must be float32 or float64") as raised:
        served.predict([record_of(atoms)], params={"precision": "half"})
    assert raised.value.get_http_status_code() == 400


def test_no_other_precision_is_taken(workdir: Path, call: Call) -> None:
    one = random_potential(dtype=torch.float32)
    one.save(Path("one"))
    Ensemble({"a": one, "b": one}).save(Path("both"))
    with pytest.raises(BadInput, match="'float16': must be float32 or float64"):
        bt.load_calculator("one", precision="float16")
    with pytest.raises(BadInput, match="an ensemble predicts in float64"):
        bt.load_calculator("both", precision="float32")
    assert bt.load_calculator("both", precision="float64")
    ase.io.write("cu.xyz", bulk("Cu"))
    code, _, err = call("predict", "one", "cu.xyz", "--precision", "half")
    assert (code, err.count("\n")) == (2, 1)
    assert not Path("predicted.xyz").exists()
