"""Labels under names that are not read: `prepare` and the errors name them, of the energy, forces and stress alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase import Atoms

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare
from tests.strained_alloys import strained_alloys

ConfigFor = Callable[..., Config]
HINTS = {
    "forces": "data.forces_key says which of them are the forces",
    "stress": "data.stress_key says which of them is the stress",
}


def prepared(images: list[Atoms], config_for: ConfigFor, folder: Path, **groups: Any) -> Dataset:
    folder.mkdir(exist_ok=True)
    ase.io.write(folder / "train.extxyz", images)
    groups["training"] = {"forces": "auto", **groups.get("training", {})}
    return prepare(config_for(folder / "train.extxyz", **groups), folder / "home")


def renamed(old: str, new: str, factor: float = 1.0, keep: bool = False) -> list[Atoms]:
    """Structures whose labels of one kind are called otherwise, as programs and readers leave them."""
    images = strained_alloys(8)
    for atoms in images:
        value = factor * atoms.calc.results[old]
        (atoms.arrays if old == "forces" else atoms.info)[new] = value
        if not keep:
            del atoms.calc.results[old]
    return images


def virials(**more: Any) -> list[Atoms]:
    images = strained_alloys(8)
    for atoms in images:
        atoms.info["virials"] = -atoms.get_volume() * atoms.get_stress(voigt=False)
        if not more.get("keep"):
            del atoms.calc.results["stress"]
    return images


@pytest.mark.parametrize(
    ("kind", "name", "images"),
    [
        ("forces", "REF_forces", renamed("forces", "REF_forces")),
        ("forces", "dft_gradient", renamed("forces", "dft_gradient", -1.0)),
        ("stress", "REF_stress", renamed("stress", "REF_stress")),
        ("stress", "virials", virials()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_label_is_hinted_at_by_the_names_it_may_have(
    config_for: ConfigFor, tmp_path: Path, kind: str, name: str, images: list[Atoms]
) -> None:
    data = prepared(images, config_for, tmp_path / "auto")
    assert getattr(data.config.training, kind) is False
    (note,) = data.warnings
    where = "images" if kind == "forces" else "images in a periodic cell"
    assert note.endswith(f"8 of 8 {where} have no {kind}; they have {name}: {HINTS[kind]}")
    with pytest.raises(BadInput, match=f"no image has (any|one in a periodic cell); they have {name}: {HINTS[kind]}"):
        prepared(images, config_for, tmp_path / "wanted", training={"forces": True, kind: True})
    assert prepared(images, config_for, tmp_path / "unwanted", training={"forces": False}).warnings == []
    if kind == "stress":
        assert prepared(images, config_for, tmp_path / "none", training={"stress": False}).warnings == []
    named = prepared(images, config_for, tmp_path / "named", data={f"{kind}_key": name})
    assert getattr(named.config.training, kind) is True
    assert named.warnings == []


def test_some_images_without_are_hinted_at_too(config_for: ConfigFor, tmp_path: Path) -> None:
    images = [*renamed("stress", "REF_stress")[:2], *strained_alloys(12, seed=3)]
    note, hint = prepared(images, config_for, tmp_path / "some").warnings
    assert note.endswith("12 of 14 images in a periodic cell have a stress, which is not trained on; training.stress: "
                         "partial trains on it")  # fmt: skip
    assert hint.endswith(f"2 of 14 images in a periodic cell have no stress; they have REF_stress: {HINTS['stress']}")


@pytest.mark.parametrize("kind", ["energy", "forces", "stress"])
def test_other_values_beside_those_read_are_hinted_at_until_one_is_named(
    config_for: ConfigFor, tmp_path: Path, kind: str
) -> None:
    """As of another method; the same values again are none."""
    name = f"REF_{kind}"
    images = renamed(kind, name, 1.1, keep=True)
    (note,) = prepared(images, config_for, tmp_path / "other").warnings
    assert note.endswith(
        f"{kind} is read under the name {kind}; images have other values as {name}: data.{kind}_key says which is meant"
    )
    for named in (kind, name):
        assert prepared(images, config_for, tmp_path / named, data={f"{kind}_key": named}).warnings == []
    assert prepared(renamed(kind, name, keep=True), config_for, tmp_path / "same").warnings == []


def test_the_virial_of_the_stress_is_no_other_value(config_for: ConfigFor, tmp_path: Path) -> None:
    assert prepared(virials(keep=True), config_for, tmp_path / "both").warnings == []


def test_images_of_a_test_file_are_hinted_at(config_for: ConfigFor, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "test.extxyz", renamed("forces", "REF_forces")[:4])
    images = strained_alloys(12, seed=3)
    warnings = prepared(images, config_for, tmp_path / "a", data={"test": str(tmp_path / "test.extxyz")}).warnings
    assert any(line.endswith(f"they have REF_forces: {HINTS['forces']}") for line in warnings)
