"""Options of a backend, the same for all trials of a study: trials with others could not be compared."""

from pathlib import Path

import ase.io

from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.study.run_contents import parameters, tried_by
from bdqm_tune.study.study import signature
from tests.small_study import rattled


def test_they_are_in_the_signature_and_in_the_parameters_of_runs(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "train.traj", rattled(8, 0))
    found = []
    for options in ({}, {"foundation_model": "a.model"}, {"foundation_model": "b.model"}):
        given = {"": {"backend": "mace", "backend_options": options}, "data": {"train": str(tmp_path / "train.traj")}}
        config = load_config(None, given)
        found.append((signature(config, prepare(config, tmp_path)), parameters(config, tried_by(config), "cpu")))
    assert "backend options" not in found[0][0]  # as in studies that are older than the options
    assert [made.get("backend options") for made, _ in found[1:]] == [
        {"foundation_model": "a.model"},
        {"foundation_model": "b.model"},
    ]
    assert [logged.get("backend_foundation_model") for _, logged in found] == [None, "a.model", "b.model"]
