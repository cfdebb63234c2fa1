"""A study whose reference energies are those of isolated atoms: its signature, and its data read again."""

from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.study.data import study_data
from bdqm_tune.study.study import signature


def labelled(atoms: Atoms, energy: float) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def test_their_energies_are_in_the_signature_and_their_frames_in_no_split(tmp_path: Path) -> None:
    dimers = [labelled(Atoms("Cu2", [[0, 0, 0], [0, 0, z]]), -3.0 - z) for z in np.linspace(2, 3, 8)]
    found = []
    for energy in (-1.5, -1.6):
        file = tmp_path / f"train{energy}.traj"
        isolated = labelled(Atoms("Cu", info={"config_type": "IsolatedAtom"}), energy)
        ase.io.write(file, [*dimers[:4], isolated, *dimers[4:]])
        groups = {
            "data": {"train": str(file)},
            "target": {"reference_energies": "isolated_atoms"},
            "descriptor": {"orders": [0], "sigmas": [1.0], "cutoff": 4.0},
        }
        config = load_config(None, groups)
        dataset = prepare(config, tmp_path / "home")
        found.append(signature(config, dataset))
        digests = {"train_digest": dataset.train.digest, "validation_digest": dataset.validation.digest}
        again = study_data(config, SimpleNamespace(data=SimpleNamespace(tags=digests)))  # type: ignore[arg-type]
        assert [len(atoms) for atoms in again.structures.atoms] == [2] * 8
    assert [each["reference energies"] for each in found] == [{"Cu": -1.5}, {"Cu": -1.6}]
    assert found[0]["data"] == found[1]["data"]
