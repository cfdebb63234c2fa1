"""The test split, laid aside while a study is tuned, for the evaluation to come."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import optuna
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.experiment.study import TEST
from bdqm_tune.structures import Structures, digest, read_structures


def store_test_split(study: optuna.Study, structures: Structures, home: Path) -> None:
    """Keep the test structures with their labels in `home`, and their digest in the study."""
    identity = digest(structures)
    path = _path(home, identity)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        ase.io.write(partial, [_labelled(structures, i) for i in range(len(structures))], format="traj")
        partial.replace(path)
    if TEST not in study.user_attrs:
        study.set_user_attr(TEST, {"digest": identity, "source": structures.source})


def load_test_split(study: optuna.Study, home: Path) -> Structures:
    """The test structures of a study.

    Raises:
        BadInput: the study was made without a test split.
        BdqmError: its file is not in `home`, or has changed.
    """
    kept = study.user_attrs.get(TEST)
    if kept is None:
        raise BadInput(
            f"study {study.study_name!r} has no test split; run tune again under this name with the same options and "
            "--test FILE"
        )
    path = _path(home, kept["digest"])
    if not path.exists():
        raise BdqmError(f"the test split of {study.study_name!r} is not at {path}; set BDQM_HOME as it was for tune")
    structures = read_structures(path)
    if digest(structures) != kept["digest"]:
        raise BdqmError(
            f"{path} has changed since the study was made; its digest is not {kept['digest'][:12]} any more"
        )
    return replace(structures, source=f"{kept['source']} (test split)")


def remove_test_split(home: Path, identity: str) -> None:
    """Remove the test structures of this digest, which no study needs any more."""
    _path(home, identity).unlink(missing_ok=True)


def _path(home: Path, identity: str) -> Path:
    return home / "test" / f"{identity}.traj"


def _labelled(structures: Structures, i: int) -> Atoms:
    atoms = structures.atoms[i].copy()
    labels: dict[str, Any] = {"energy": float(structures.energies[i])}
    if structures.forces is not None:
        labels["forces"] = structures.forces[i]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms
