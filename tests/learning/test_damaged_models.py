"""Models, ensembles and checkpoints that are cut off or changed: they are refused by name, or are what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.checkpoint import NoCheckpoint, read_checkpoint
from bdqm_tune.learning.description import WEIGHTS
from bdqm_tune.learning.ensemble import ENSEMBLE, Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.potential import DESCRIPTION
from tests.fuzzing import bounded, damaged, is_one_line, refused
from tests.learning.test_potential import random_potential

WATER = molecule("H2O")


@pytest.mark.parametrize("name", [DESCRIPTION, WEIGHTS])
def test_a_damaged_potential_is_refused_or_predicts(tmp_path: Path, name: str) -> None:
    random_potential().save(tmp_path)
    content = (tmp_path / name).read_bytes()

    @given(changed=damaged(content))
    @bounded(80)
    def check(changed: bytes) -> None:
        (tmp_path / name).write_bytes(changed)
        try:
            potential = NetworkPotential.load(tmp_path)
        except BadInput as error:
            message = str(error)
        else:
            message = f"{tmp_path}: a potential"
            assert potential.predict([WATER], forces=False).energies.shape == (1,)
        assert message.startswith(str(tmp_path))
        assert is_one_line(message)

    check()


@pytest.mark.parametrize(
    "members",
    [
        ["../outside", "a"],
        ["/tmp/a", "b"],
        ["a/b", "c"],
        ["", "a"],
        ["a\n", "b"],
        ["a", 3],
        "ab",
        [["a"], "b"],
        ["a\0", "b"],
    ],
)
def test_an_ensemble_names_folders_beside_it_only(tmp_path: Path, members: object) -> None:
    for folder in (tmp_path / "outside", tmp_path / "ensemble" / "a", tmp_path / "ensemble" / "b"):
        random_potential().save(folder)
    file = tmp_path / "ensemble" / ENSEMBLE
    file.write_text(json.dumps({"format": 1, "members": members, "calibration": None}))
    assert "members" in refused(lambda: Ensemble.load(tmp_path / "ensemble"), BadInput)


@given(content=st.binary(max_size=200))
@bounded(40)
def test_what_is_no_checkpoint_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trial.checkpoint").write_bytes(content)
    assert "damaged" in refused(lambda: read_checkpoint(tmp_path / "trial.checkpoint", {}), NoCheckpoint)


@pytest.mark.parametrize("value", [1e400, "NaN", None, [], "x", -1.0, 0])
def test_a_scale_that_is_none_is_refused(tmp_path: Path, value: object) -> None:
    random_potential().save(tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text()) | {"scale": value}
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    assert "scale" in refused(lambda: NetworkPotential.load(tmp_path), BadInput)


def test_the_undamaged_potential_is_one(tmp_path: Path) -> None:
    random_potential().save(tmp_path)
    assert np.isfinite(NetworkPotential.load(tmp_path).predict([WATER]).energies).all()
