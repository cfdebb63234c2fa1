"""From files to tensors: nothing of the validation and test splits reaches what is fitted."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare, summary
from bdqm_tune.learning.targets import NO_REFERENCES

Alloys = Callable[..., list[Atoms]]
ConfigFor = Callable[..., Config]


def relabelled(atoms: Atoms, by: float) -> Atoms:
    """A copy with another energy."""
    copy, results = atoms.copy(), atoms.calc.results
    copy.calc = SinglePointCalculator(copy, energy=results["energy"] + by, forces=results["forces"])
    return copy


def turned(image: Atoms, angle: float) -> Atoms:
    """A rotated copy with the same energy."""
    copy = image.copy()
    copy.rotate(angle, (1, 2, 3), rotate_cell=True)
    forces = np.zeros((len(copy), 3))
    copy.calc = SinglePointCalculator(copy, energy=image.calc.results["energy"], forces=forces)
    return copy


def prepared(images: list[Atoms], config_for: ConfigFor, folder: Path, **groups: dict[str, object]) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    ase.io.write(folder / "train.traj", images)
    return prepare(config_for(folder / "train.traj", **groups), folder / "home")


def assert_same_fits(left: Dataset, right: Dataset) -> None:
    assert left.references == right.references
    assert np.array_equal(left.scaler.offset, right.scaler.offset)
    assert np.array_equal(left.scaler.divisor, right.scaler.divisor)
    assert left.scale == right.scale


@pytest.mark.parametrize("scaling", ["standardise", "log"])
def test_what_is_fitted_does_not_see_the_validation_split(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor, scaling: str
) -> None:
    images = alloys()
    plain = prepared(images, config_for, tmp_path / "a", descriptor={"scaling": scaling})
    held_out = plain.validation.structures.images.tolist()
    for i in held_out:
        moved = relabelled(images[i], 1000.0)
        moved.positions *= 1.01
        moved.calc.atoms = moved.copy()
        images[i] = moved
    changed = prepared(images, config_for, tmp_path / "b", descriptor={"scaling": scaling})
    assert changed.validation.digest != plain.validation.digest
    assert changed.train.digest == plain.train.digest
    assert_same_fits(changed, plain)


def test_what_is_fitted_does_see_the_training_split(tmp_path: Path, alloys: Alloys, config_for: ConfigFor) -> None:
    images = alloys()
    plain = prepared(images, config_for, tmp_path / "a")
    i = int(plain.train.structures.images[0])
    images[i] = relabelled(images[i], 5.0)
    changed = prepared(images, config_for, tmp_path / "b")
    assert changed.references != plain.references
    assert changed.scale != plain.scale


def test_features_are_the_rows_of_each_splits_atoms(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation):
        expected = np.concatenate([dataset.descriptor.compute(atoms) for atoms in split.structures.atoms])
        assert np.array_equal(split.features, expected)
    assert (len(dataset.train.structures), len(dataset.validation.structures)) == (18, 6)


def test_scaled_training_features_have_mean_zero_and_deviation_one(dataset: Dataset) -> None:
    scaled = dataset.scaler(dataset.train.features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    # A principal axis of less than a thousandth of the mean variance stays below.
    assert (scaled.std(axis=0) <= 1 + 1e-9).all()
    assert (scaled.std(axis=0)[:5] >= 1 - 1e-9).all()
    assert np.abs(dataset.scaler(dataset.validation.features).mean(axis=0)).max() > 1e-6


def test_scaled_targets_are_what_the_references_leave_in_units_of_the_scale(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation):
        energies = dataset.scaled_targets(split) * dataset.scale + dataset.references.of(split.structures.atoms)
        np.testing.assert_allclose(energies, split.structures.energies, atol=1e-10)
    assert np.std(dataset.scaled_targets(dataset.train)) == pytest.approx(1.0)


def test_without_reference_energies_the_network_learns_the_total(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    data = prepared(alloys(), config_for, tmp_path, target={"reference_energies": "none"})
    assert data.references == NO_REFERENCES
    energies = data.train.structures.energies
    assert data.scale == pytest.approx(energies.std())
    np.testing.assert_allclose(data.scaled_targets(data.train), energies / energies.std())


def test_an_element_of_another_split_only_is_named_with_its_fallback(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    test = alloys(n=3, seed=5)
    test[1].symbols[0] = "Pt"
    for atoms in test:
        atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    ase.io.write(tmp_path / "test.traj", test)
    data = prepared(alloys(), config_for, tmp_path, data={"test": str(tmp_path / "test.traj")})
    (warning,) = data.warnings
    assert warning.startswith("Pt in the test split but not in the training split")
    assert f"{data.references.fallback:.3f} eV" in warning
    per_atom = data.train.structures.energies / data.train.structures.n_atoms
    assert data.references.fallback == pytest.approx(per_atom.mean())


def test_an_element_of_the_validation_split_only_is_named(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys()
    chosen = int(prepared(images, config_for, tmp_path / "a").validation.structures.images[0])
    results = images[chosen].calc.results
    images[chosen].symbols[0] = "Ag"
    images[chosen].calc = SinglePointCalculator(images[chosen], **results)
    data = prepared(images, config_for, tmp_path / "b")
    assert [w.split(" but")[0] for w in data.warnings] == ["Ag in the validation split"]
    assert np.isfinite(data.scaled_targets(data.validation)).all()


def test_nothing_is_said_where_all_elements_are_known(dataset: Dataset) -> None:
    assert dataset.warnings == []


def test_a_copy_in_the_test_split_is_refused_before_anything_is_computed(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys()
    copy = relabelled(images[4], 0.0)
    copy.positions = np.round(copy.positions[::-1] + 0.3, 4)
    copy.numbers = copy.numbers[::-1]
    copy.calc = SinglePointCalculator(copy, energy=images[4].calc.results["energy"])
    ase.io.write(tmp_path / "train.traj", images)
    ase.io.write(tmp_path / "test.extxyz", [*alloys(n=2, seed=9), copy])
    with pytest.raises(BadInput, match="training image 4 = test image 2"):
        prepare(config_for(tmp_path / "train.traj", data={"test": str(tmp_path / "test.extxyz")}), tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("with_file", [False, True])
def test_turned_copies_of_test_structures_are_in_neither_split(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor, with_file: bool
) -> None:
    images, test = alloys(), alloys(n=3, seed=9)
    for place, image in ((2, test[0]), (11, test[0]), (20, test[2])):
        images[place] = turned(image, 10.0 * (place + 1))
    ase.io.write(tmp_path / "test.traj", test)
    options: dict[str, object] = {"test": str(tmp_path / "test.traj")}
    if with_file:
        ase.io.write(tmp_path / "held.traj", images[18:])
        options["validation_file"] = str(tmp_path / "held.traj")
    data = prepared(images[:18] if with_file else images, config_for, tmp_path, data=options)
    kept = np.concatenate([data.train.indices, data.validation.indices])
    assert sorted(kept.tolist()) == [i for i in range(24) if i not in (2, 11, 20)]
    assert data.left_out.tolist() == [2, 11, 20]
    assert summary(data)["left_out"] == 3
    assert data.test is not None
    assert len(data.test) == 3
    assert any("left out of the training" in warning for warning in data.warnings)


def test_where_the_test_is_the_training_turned_nothing_is_left_to_train_on(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys(n=6)
    ase.io.write(tmp_path / "test.traj", [turned(image, 30.0) for image in images])
    with pytest.raises(BadInput, match="without the copies of test structures nothing is left"):
        prepared(images, config_for, tmp_path, data={"test": str(tmp_path / "test.traj")})


def test_copies_in_the_training_file_stay_on_one_side_and_are_reported_for_every_seed(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys()
    images = [*images[:10], images[9], *images[10:], images[3].repeat((2, 1, 1))]
    energy = 2 * images[3].calc.results["energy"]
    images[-1].calc = SinglePointCalculator(images[-1], energy=energy, forces=np.zeros((len(images[-1]), 3)))
    for seed in range(6):
        data = prepared(images, config_for, tmp_path, data={"validation": {"fraction": 0.25, "seed": seed}})
        assert summary(data)["copies"] == data.copies == 2
        (warning,) = data.warnings
        assert "image 10 = image 9, image 25 = image 3" in warning
        sides = [set(split.structures.images.tolist()) for split in (data.train, data.validation)]
        assert all(len({9, 10} & side) != 1 and len({3, 25} & side) != 1 for side in sides)


def test_the_same_geometry_with_another_energy_is_no_copy_but_said(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys()
    ase.io.write(tmp_path / "test.traj", [*alloys(n=2, seed=9), relabelled(images[4], 0.3)])
    data = prepared(
        [*images, relabelled(images[2], 0.5)], config_for, tmp_path, data={"test": str(tmp_path / "test.traj")}
    )
    assert data.copies == 0
    within, across = data.warnings
    assert "image 24 and image 2 have the same geometry and other energies" in within
    assert "training image 4 = test image 2" in across
    assert all("keep spin states, charges or settings in files and studies of their own" in w for w in data.warnings)


def test_an_unknown_element_is_refused_with_file_and_image(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    (tmp_path / "Cu_x.g").write_text("2 1.5\n")
    images = alloys()
    first = next(i for i, atoms in enumerate(images) if "Au" in atoms.get_chemical_symbols())
    with pytest.raises(
        BadInput, match=rf"train\.traj, image {first}: no pseudo-density for element Au; there are: Cu$"
    ):
        prepared(images, config_for, tmp_path, descriptor={"pseudodensities": str(tmp_path)})


def test_the_digest_is_that_of_training_and_validation_together(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor, dataset: Dataset
) -> None:
    same = prepared(alloys(), config_for, tmp_path / "a", descriptor={"orders": [0]})
    assert same.digest == dataset.digest
    other_split = prepared(alloys(), config_for, tmp_path / "b", data={"validation": {"fraction": 0.25, "seed": 13}})
    assert other_split.digest != dataset.digest
    swapped = dataclasses.replace(dataset, train=dataset.validation, validation=dataset.train)
    assert swapped.digest != dataset.digest


def test_a_second_preparation_reads_the_stored_features(tmp_path: Path, alloys: Alloys, config_for: ConfigFor) -> None:
    first = prepared(alloys(), config_for, tmp_path)
    (file,) = (tmp_path / "home" / "features").iterdir()
    written = file.stat().st_mtime_ns
    second = prepared(alloys(), config_for, tmp_path)
    assert file.stat().st_mtime_ns == written
    assert np.array_equal(first.train.features, second.train.features)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "builtin", "test": "other.traj"}, "the built-in training data has its own test split"),
        ({"train": "other.traj", "test": "builtin"}, "goes with the built-in training data only"),
    ],
)
def test_builtin_and_files_do_not_mix(
    tmp_path: Path, config_for: ConfigFor, given: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        prepare(config_for("builtin", data=given), tmp_path)


def test_the_summary_counts_what_is_there(dataset: Dataset) -> None:
    said = summary(dataset)
    assert said["training_structures"] == 18
    assert said["validation_structures"] == 6
    assert said["test_structures"] == 0
    assert said["training_atoms"] == int(dataset.train.structures.n_atoms.sum())
    assert said["elements"] == "Cu Au"
    assert said["features"] == 9
    assert said["forces"] is True
    train = dataset.train.structures
    residuals = train.energies - dataset.references.of(train.atoms)
    assert said["training_reference_energy_mae"] == pytest.approx(float(np.abs(residuals).mean()))
    assert dataset.train.describe() == {
        "source": train.source,
        "digest": dataset.train.digest,
        "structures": 18,
        "atoms": said["training_atoms"],
        "elements": ["Cu", "Au"],
        "forces": True,
    }


def test_a_validation_file_of_ones_own_is_the_whole_validation_split(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    train, held_out = alloys(n=6), alloys(n=4, seed=8)
    ase.io.write(tmp_path / "train.traj", train)
    ase.io.write(tmp_path / "mine.traj", held_out)
    mine = {"validation_file": f"{tmp_path / 'mine.traj'}@:3"}
    data = prepare(config_for(tmp_path / "train.traj", data=mine), tmp_path / "home")
    assert data.train.structures.energies.tolist() == [atoms.calc.results["energy"] for atoms in train]
    assert data.validation.structures.energies.tolist() == [atoms.calc.results["energy"] for atoms in held_out[:3]]
    assert data.validation.structures.images.tolist() == [0, 1, 2]
    sources = [split.describe()["source"] for split in (data.train, data.validation)]
    assert sources == [str(tmp_path / "train.traj"), mine["validation_file"]]
    for split in (data.train, data.validation):
        expected = np.concatenate([data.descriptor.compute(atoms) for atoms in split.structures.atoms])
        assert np.array_equal(split.features, expected)
    copied = {"validation_file": [str(tmp_path / "mine.traj"), f"{tmp_path / 'train.traj'}@5"]}
    with pytest.raises(BadInput, match=r"training image 5 = validation image 4"):
        prepare(config_for(tmp_path / "train.traj", data=copied), tmp_path / "home")


def test_images_of_several_files_are_the_same_data_as_in_one(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys(n=9)
    ase.io.write(tmp_path / "all.traj", images)
    for i in range(3):
        ase.io.write(tmp_path / f"{i}.traj", images[3 * i : 3 * i + 3])
    one = prepare(config_for(tmp_path / "all.traj"), tmp_path / "home")
    several = config_for(tmp_path / "all.traj").updated(
        {"data": {"train": [str(tmp_path / f"{i}.traj") for i in range(3)]}}
    )
    assert prepare(several, tmp_path / "home").digest == one.digest


def test_forces_under_another_name_and_another_energy_than_theirs_are_told(
    tmp_path: Path, alloys: Alloys, config_for: ConfigFor
) -> None:
    images = alloys(n=8)
    for atoms in images:
        forces = atoms.calc.results["forces"]
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.0 - 0.04, forces=forces)
    training = {"forces": True}
    data = prepared(images, config_for, tmp_path / "a", training=training)
    n_atoms = min(map(len, images))
    assert any(f"by up to {1000 * 0.04 / n_atoms:.1f} meV/atom" in warning for warning in data.warnings)
    for atoms in images:
        atoms.new_array("REF_forces", atoms.calc.results["forces"])
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    ase.io.write(tmp_path / "train.extxyz", images)
    with pytest.raises(BadInput, match="they have REF_forces: data.forces_key says which"):
        prepare(config_for(tmp_path / "train.extxyz", training=training), tmp_path / "home")
    keys = {"forces_key": "REF_forces"}
    read = prepare(config_for(tmp_path / "train.extxyz", training=training, data=keys), tmp_path / "home")
    assert read.train.structures.forces is not None


def without_forces(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, energy=atoms.calc.results["energy"])
    return copy


AUTO: dict[str, object] = {"forces": "auto"}


def test_forces_are_trained_where_every_structure_has_them(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path
) -> None:
    images = alloys()
    data = prepared(images, config_for, tmp_path / "all", training=AUTO)
    assert (data.given.training.forces, data.config.training.forces) == ("auto", True)
    assert data.config.objective == "val_energy_forces"
    assert data.train.derivatives is not None
    assert not any("forces" in warning for warning in data.warnings)
    asked = prepared(images, config_for, tmp_path / "asked", training={"forces": True})
    assert asked.digest == data.digest

    some = prepared([without_forces(images[0]), *images[1:]], config_for, tmp_path / "some", training=AUTO)
    assert some.config.training.forces is False
    assert some.config.objective == "val_energy_mae"
    (note,) = (warning for warning in some.warnings if "forces" in warning)
    assert note.endswith(
        "23 of 24 images have forces, which are not trained on; training.forces: partial trains on them"
    )
    none = prepared([without_forces(atoms) for atoms in images], config_for, tmp_path / "none", training=AUTO)
    assert none.config.training.forces is False
    assert not any("forces" in warning for warning in none.warnings)


def test_forces_whose_derivatives_do_not_fit_are_left_alone(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path
) -> None:
    images = alloys()
    stored = prepared(images, config_for, tmp_path / "all", training={"forces": True}).train.described.derivatives
    assert stored is not None
    taken = stored.values.shape[0] * stored.values.shape[1] * 3 * 4 / 2**30  # GiB, in single precision
    besides = 1.5  # GiB, for all else
    for memory, fits in ((besides + 1.1 * taken, True), (besides + 0.9 * taken, False)):
        data = prepared(images, config_for, tmp_path / str(fits), training=AUTO, **{"": {"memory": memory}})
        assert data.config.training.forces is fits
        assert any("do not fit into `memory:" in warning for warning in data.warnings) is not fits
    short = {"": {"memory": besides}, "target": {"objective": "val_forces_mae"}}
    assert prepared(images, config_for, tmp_path / "wanted", training=AUTO, **short).config.training.forces is True


def test_an_objective_of_forces_needs_them_in_every_structure(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path
) -> None:
    images = [without_forces(atoms) for atoms in alloys(6)]
    with pytest.raises(BadInput, match="needs forces .* no image has any"):
        prepared(images, config_for, tmp_path, training=AUTO, study={"objectives": ["val_energy_forces"]})


def test_amptorch_trains_energies_alone_unless_forces_are_wanted(config_for: ConfigFor, tmp_path: Path) -> None:
    amptorch = {"": {"backend": "amptorch"}}
    for given, trained in ((False, False), (True, True)):
        assert config_for(tmp_path / "x.traj", training={"forces": given}, **amptorch).training.forces is trained
    assert load_config(None, amptorch).training.forces is False
