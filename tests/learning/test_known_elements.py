"""Elements that a model was not trained on: refused everywhere, or predicted with a warning where that is allowed."""

import dataclasses
import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from ase import Atoms
from ase.build import bulk

from bdqm_tune.cli.main import app
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation import evaluation
from bdqm_tune.evaluation.measurement import predict
from bdqm_tune.learning.calculator import make_calculator
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.known_elements import UnknownElement
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.potential import DESCRIPTION
from bdqm_tune.models.prediction import predict_file
from bdqm_tune.models.serving import ServedModel, record_of
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import read_structures

KINDS = ("single", "per_element", "ensemble")


def model_of(dataset: Dataset, kind: str) -> NetworkPotential | Ensemble:
    """An untrained model of copper and gold."""
    if kind == "ensemble":
        return Ensemble({name: model_of(dataset, "single") for name in "ab"})  # type: ignore[misc]
    options = Hyperparameters(hidden_layers=[4], network=kind, initialization="xavier")
    elements = [int(z) for z in np.unique(dataset.train.numbers)]
    return NetworkPotential.from_dataset(
        dataset, options, make_network(dataset.descriptor.n_features, options, elements)
    )


def palladium() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Pd"
    atoms.positions[0] += 0.1
    return atoms


@pytest.mark.parametrize("kind", KINDS)
def test_a_calculator_and_the_model_behind_it_refuse_or_warn(dataset: Dataset, kind: str) -> None:
    model = model_of(dataset, kind)
    assert model.known_elements == (29, 79)
    for atoms in (palladium(), bulk("Pd", cubic=True)):
        for asked in ("energy", "forces", "stress"):
            with pytest.raises(BadInput, match="not trained on Pd, but on Cu, Au"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                make_calculator(model).get_property(asked, atoms)
        allowed = make_calculator(model, allow_unknown_elements=True)
        with pytest.warns(UnknownElement, match="Pd"):
            found = [allowed.get_property(asked, atoms) for asked in ("energy", "forces", "stress")]
        assert all(np.isfinite(value).all() for value in found)
        assert found[1].shape == (4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownElement)
        assert np.isfinite(model.predict([bulk("Au"), bulk("Cu")], forces=False).energies).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_served_model_refuses_unless_a_parameter_allows_it(dataset: Dataset, kind: str) -> None:
    served, request = ServedModel(model_of(dataset, kind)), pd.DataFrame([record_of(palladium())])
    with pytest.raises(Exception, match="structure 0: the model was not trained on Pd, but on Cu, Au"):
        served.predict(request)
    with pytest.warns(UnknownElement):
        (found,) = served.predict(request, {"allow_unknown_elements": True})
    assert np.isfinite(found["energy"])


def test_predict_names_the_image_and_writes_nothing(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_of(dataset, "per_element").save(tmp_path / "model")  # type: ignore[call-arg]
    file, out = tmp_path / "pd.xyz", tmp_path / "out.xyz"
    bulk("Cu").write(file, format="extxyz")
    palladium().write(file, format="extxyz", append=True)
    stores = Stores(tmp_path)
    with pytest.raises(BadInput, match="image 1: the model was not trained on Pd, but on Cu, Au"):
        predict_file(str(tmp_path / "model"), str(file), out, stores)
    assert not out.exists()
    command = ["predict", str(tmp_path / "model"), str(file), "--out", str(out)]
    app([*command, "--allow-unknown-elements"], standalone_mode=False)
    said = [line for line in capsys.readouterr().err.splitlines() if "Pd" in line]
    assert len(said) == 1
    assert said[0].startswith("warning: the model was not trained on Pd")
    assert out.exists()


def test_labelled_structures_are_refused_before_anything_is_computed(dataset: Dataset, tmp_path: Path) -> None:
    atoms = palladium()
    atoms.info["energy"] = -1.0
    atoms.write(tmp_path / "pd.extxyz")
    labelled, model = read_structures(tmp_path / "pd.extxyz"), model_of(dataset, "single")
    with pytest.raises(BadInput, match=r"pd.extxyz, image 0: the model was not trained on Pd"):
        predict(model, labelled, tmp_path / "home")
    with pytest.warns(UnknownElement):
        assert np.isfinite(predict(model, labelled, tmp_path / "home", True).energies).all()


def test_models_of_earlier_versions_know_the_elements_of_their_references(dataset: Dataset, tmp_path: Path) -> None:
    model = model_of(dataset, "single")
    model.save(tmp_path)  # type: ignore[call-arg]
    assert NetworkPotential.load(tmp_path).known_elements == (29, 79)
    content = json.loads((tmp_path / DESCRIPTION).read_text())
    del content["trained_elements"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(content))
    assert NetworkPotential.load(tmp_path).known_elements == (29, 79)
    content["reference_energies"] = {}
    (tmp_path / DESCRIPTION).write_text(json.dumps(content))
    unknown = NetworkPotential.load(tmp_path)
    assert unknown.known_elements is None
    assert np.isfinite(unknown.predict([palladium()]).energies).all()


def test_an_ensemble_knows_what_all_its_members_know(dataset: Dataset) -> None:
    one = model_of(dataset, "single")
    assert isinstance(one, NetworkPotential)
    other = dataclasses.replace(one, known_elements=(29, 46))
    assert Ensemble({"a": one, "b": other}).known_elements == (29,)


def test_every_way_to_evaluate_may_allow_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line by an option or, as MLproject calls it, a value; and of an ensemble as of a trial."""
    asked: list[Any] = []

    def note(stores: Stores, name: str, choose: Any, reopen: str = "", train: str = "", allow: bool = False) -> None:
        asked.append(allow)
        raise BadInput("that is all")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "evaluate", note)
    entry = yaml.safe_load((Path(__file__).parents[2] / "MLproject").read_text())["entry_points"]["evaluate"]
    for model in ({}, {"ensemble": "latest"}):
        for value, allowed in {"": False, "false": False, "true": True}.items():
            given = dict.fromkeys(entry["parameters"], "") | {"study": "s", "allow_unknown_elements": value} | model
            command = entry["command"].replace("--out figures/", "")
            words = command.format(**{name: shlex.quote(text) for name, text in given.items()})
            with pytest.raises(BadInput, match="that is all"):
                app(shlex.split(words)[3:], standalone_mode=False)
            assert asked.pop() is allowed
        words = [word for name, value in model.items() for word in (f"--{name}", value)]
        with pytest.raises(BadInput, match="that is all"):
            app(["evaluate", "--allow-unknown-elements", *words], standalone_mode=False)
        assert asked.pop() is True
    with pytest.raises(BadInput, match="must be true or false, got 'yes'"):
        app(["evaluate", "--unknown-elements", "yes"], standalone_mode=False)
