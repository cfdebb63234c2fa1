"""Reference energies that are given, or those of isolated atoms: what is subtracted, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare

Alloys = Callable[..., list[Atoms]]
ConfigFor = Callable[..., Config]
ENERGIES = {"Cu": -3.7, "Au": -2.5}


def isolated(symbols: str, energy: float, mark: str = "IsolatedAtom") -> Atoms:
    atoms = Atoms(symbols, [[0.0, 0.0, 3.0 * i] for i in range(len(Atoms(symbols)))], info={"config_type": mark})
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
    return atoms


def prepared(
    images: list[Atoms], config_for: ConfigFor, folder: Path, name: str = "train.extxyz", **groups: dict[str, object]
) -> Dataset:
    ase.io.write(folder / name, images)
    return prepare(config_for(folder / name, **groups), folder / "home")


def plus_constants(images: list[Atoms], constants: dict[str, float]) -> list[Atoms]:
    shifted = []
    for atoms in images:
        copy, results = atoms.copy(), atoms.calc.results
        more = sum(constants[symbol] for symbol in atoms.symbols)
        copy.calc = SinglePointCalculator(copy, energy=results["energy"] + more, forces=results["forces"])
        shifted.append(copy)
    return shifted


def test_given_energies_are_subtracted(tmp_path: Path, alloys: Alloys, config_for: ConfigFor) -> None:
    data = prepared(alloys(), config_for, tmp_path, target={"reference_energies": ENERGIES})
    for split in (data.train, data.validation):
        expected = [
            energy - sum(ENERGIES[symbol] for symbol in atoms.symbols)
            for atoms, energy in zip(split.structures.atoms, split.structures.energies, strict=True)
        ]
        np.testing.assert_allclose(data.scaled_targets(split) * data.scale, expected, atol=1e-9)
    assert data.warnings == []


@pytest.mark.parametrize("name", ["train.extxyz", "train.traj"])
def test_isolated_atoms_are_references_and_not_trained_on(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor, name: str
) -> None:
    atoms = [isolated("Cu", -3.7), isolated("Au", -2.5, "isolated_atom"), isolated("Pt", -6.1)]
    test = tmp_path / f"test_{name}"
    ase.io.write(test, [*alloys(n=3, seed=7), isolated("Cu", -3.7)])
    groups: dict[str, dict[str, object]] = {
        "target": {"reference_energies": "isolated_atoms"},
        "data": {"test": str(test)},
        "training": {"forces": True},
    }
    data = prepared([atoms[0], *alloys(), *atoms[1:]], config_for, tmp_path, name, **groups)
    given = prepared(alloys(), config_for, tmp_path, f"plain_{name}", target={"reference_energies": ENERGIES})
    assert data.references.per_element == {29: -3.7, 78: -6.1, 79: -2.5}
    assert data.train.digest == given.train.digest
    assert data.validation.digest == given.validation.digest
    np.testing.assert_array_equal(data.scaled_targets(data.train), given.scaled_targets(given.train))
    assert data.test is not None
    assert len(data.test) == 3
    assert data.warnings == []


def test_isolated_atoms_that_are_trained_on_are_spoken_of(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = [*alloys(), *(isolated("Cu", -3.7 - i) for i in range(6))]
    for i, atoms in enumerate(images[-6:]):
        atoms.positions += i
    (warning,) = (w for w in prepared(images, config_for, tmp_path).warnings if "config_type=IsolatedAtom" in w)
    assert "isolated_atoms" in warning


def test_what_is_missing_or_contradicts_itself_is_refused(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    frames = alloys()
    for more, option, named in (
        ([], {"Cu": -3.7}, ["train.extxyz", "no energy of Au", "{Au: fit}"]),
        ([], "isolated_atoms", ["train.extxyz", "there is none"]),
        ([isolated("Cu", -3.7)], "isolated_atoms", ["no frame of Au", "{Au: -3.7}"]),
        ([isolated("Cu", -3.7), isolated("Cu", -3.6)], "isolated_atoms", ["Cu in images 24 and 25", "-3.6"]),
        ([isolated("CuAu", -3.7)], "isolated_atoms", ["image 24", "2 atoms"]),
    ):
        with pytest.raises(BadInput) as error:
            prepared([*frames, *more], config_for, tmp_path, target={"reference_energies": option})
        assert [text for text in named if text not in str(error.value)] == [], error.value


def test_an_element_is_fitted_where_that_is_asked_for(tmp_path: Path, alloys: Alloys, config_for: ConfigFor) -> None:
    data = prepared(alloys(), config_for, tmp_path, target={"reference_energies": {"Cu": -3.7, "Au": "fit"}})
    train = data.train.structures
    rest = [
        (energy + 3.7 * np.sum(atoms.symbols == "Cu")) / len(atoms)
        for atoms, energy in zip(train.atoms, train.energies, strict=True)
    ]
    share = np.array([np.mean(atoms.symbols == "Au") for atoms in train.atoms])
    assert data.references.per_element[29] == -3.7
    assert data.references.per_element[79] == pytest.approx(share @ rest / (share @ share))


def test_targets_do_not_depend_on_what_energies_are_counted_from(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    plain = prepared(alloys(), config_for, tmp_path, "a.traj")
    shifted = prepared(plus_constants(alloys(), {"Cu": -45129.1, "Au": -535650.9}), config_for, tmp_path, "b.traj")
    assert shifted.scale == pytest.approx(plain.scale, rel=1e-6)
    for split, same in ((plain.train, shifted.train), (plain.validation, shifted.validation)):
        np.testing.assert_allclose(shifted.scaled_targets(same), plain.scaled_targets(split), atol=1e-6)


def test_single_precision_is_not_given_energies_that_it_rounds(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    large = plus_constants(alloys(), {"Cu": -45129.1, "Au": -535650.9})
    with pytest.raises(BadInput, match="single precision") as error:
        prepared(large, config_for, tmp_path, target={"reference_energies": "none"})
    assert "float64" in str(error.value)
    both = {"target": {"reference_energies": "none"}, "training": {"precision": "float64"}}
    assert prepared(large, config_for, tmp_path, **both).references.per_element == {}


def test_proportions_that_the_training_split_does_not_have_are_spoken_of(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys()
    for atoms in images:
        results = atoms.calc.results
        atoms.symbols = ["Cu", "Au"] * (len(atoms) // 2)
        atoms.calc = SinglePointCalculator(atoms, energy=results["energy"])
    test = alloys(n=2, seed=9)
    ase.io.write(tmp_path / "test.traj", test)
    data = prepared(images, config_for, tmp_path, data={"test": str(tmp_path / "test.traj")})
    (warning,) = data.warnings
    assert "Cu, Au are known in sums only" in warning
    assert "structures of the test split" in warning
