"""Trajectory files that are cut off, changed or made to harm: one line that names the file, or sound ones."""

import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st

from bdqm_tune.errors import BadInput
from bdqm_tune.structures import read_structures
from bdqm_tune.structures.read import read_images
from tests.fuzzing import bounded, damaged, is_one_line, refused

EXAMPLES = {"traj": 120, "extxyz": 100, "xyz": 60, "json": 60, "db": 25, "cif": 30, "vasp": 30}


def images(n: int = 2) -> list[Atoms]:
    made = []
    for i in range(n):
        atoms = Atoms("CuO", positions=[[0.1, 0.2, 0.3], [0.1, 0.2, 2.1 + 0.1 * i]], cell=[5, 6, 7], pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.25 - i, forces=np.full((2, 3), 0.1))
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of a file of each format."""
    folder, contents = tmp_path_factory.mktemp("whole"), {}
    for suffix in EXAMPLES:
        path = folder / f"whole.{suffix}"
        ase.io.write(path, images()[0] if suffix == "vasp" else images())
        contents[suffix] = path.read_bytes()
    return contents


@pytest.mark.parametrize("suffix", EXAMPLES)
def test_a_damaged_file_is_named_or_sound(tmp_path: Path, written: dict[str, bytes], suffix: str) -> None:
    path = tmp_path / f"damaged.{suffix}"

    @given(content=damaged(written[suffix]))
    @bounded(EXAMPLES[suffix])
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_structures(path)
        except BadInput as error:
            message = str(error)
        else:
            message = f"{path}: sound"
            assert len(found) >= 1
            assert np.isfinite(found.energies).all()
            for atoms in found.atoms:
                assert len(atoms)
                assert np.isfinite(atoms.positions).all()
                assert np.isfinite(atoms.cell.array).all()
                assert ((atoms.numbers > 0) & (atoms.numbers <= 86)).all()
        assert message.startswith(str(path))
        assert is_one_line(message)

    check()


@given(cut=st.integers(1, 400))
@bounded(60)
def test_a_text_that_is_cut_off_within_an_image_is_refused(tmp_path: Path, cut: int) -> None:
    """But for the last digits of the last number: that a number was longer, nobody can tell."""
    path = tmp_path / "cut.xyz"
    ase.io.write(path, images(3), format="extxyz")
    content = path.read_bytes()
    one = len(content) // 3
    left = content[: len(content) - 40 - cut % (one - 60)]
    path.write_bytes(left)
    assert "cut.xyz" in refused(lambda: read_structures(path))


@pytest.mark.parametrize("number", ["999999999999", "9" * 30, "3"])
@pytest.mark.parametrize("name", ["many.xyz", "many.extxyz"])
def test_a_number_of_atoms_that_are_not_there_is_told_at_once(tmp_path: Path, name: str, number: str) -> None:
    text = f"{number}\nProperties=species:S:1:pos:R:3 energy=-1\nCu 0 0 0\nO 0 0 1\n"
    (tmp_path / name).write_text(text)
    began = time.process_time()
    message = refused(lambda: read_structures(tmp_path / name))
    assert f"image 0: has {number} atoms by line 1, and 2 lines for them" in message
    assert time.process_time() - began < 2


def test_images_after_a_blank_line_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "blank.xyz"
    ase.io.write(path, images(2), format="extxyz")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], "", *lines[4:], ""]))
    assert "line 5 is blank" in refused(lambda: read_structures(path))
    path.write_text("\n".join([*lines, "", "", ""]))
    assert len(read_structures(path)) == 2


def test_a_property_of_columns_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.xyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3:more:R:99999999 energy=-1\nCu 0 0 0\n")
    assert "more than 1000 columns" in refused(lambda: read_structures(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": [1e308] * 3}, "positions and cell must be within"),
        ({"positions": [[0, 0, 0], [0, 0, -1e300]]}, "positions and cell must be within"),
        ({"cell": [1e-9] * 3}, "its periodic images are 1e-09 Å apart"),
        ({"cell": [[5, 0, 0], [0, 5, 0], [5, 5, 0.01]]}, "its periodic images are 0.01 Å apart"),
        ({"numbers": [29, -200]}, "element -200"),
        ({"numbers": [29, 0]}, "element X"),
    ],
)
def test_what_a_search_for_neighbours_would_not_end_with_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    (atoms,) = images(1)
    path = tmp_path / "strange.traj"
    calculator = atoms.calc
    for name, value in changes.items():
        setattr(atoms, name, value)
    calculator.atoms = atoms.copy()
    atoms.calc = calculator
    ase.io.write(path, atoms)
    assert f"strange.traj, image 0: {message}" in refused(lambda: read_structures(path))


@pytest.mark.parametrize(
    "name",
    [
        "with blanks é 漢.traj",
        "a@b.traj",
        "a@:2.traj",
        "a@1",
        "mysql-train.traj",
        "postgres.traj",
        "mariadb.xyz",
        "-rf.traj",
        "%s{}.traj",
        "a'b\"c.traj",
        "$(touch escaped).traj",
        "[ab]*?.traj",
        "~.traj",
        "x" * 240 + ".traj",
        "line\nbreak.traj",
    ],
)
def test_a_file_may_have_any_name(workdir: Path, name: str) -> None:
    ase.io.write(workdir / "plain.traj", images())
    if name.endswith("xyz"):
        ase.io.write(workdir / "plain.traj", images(), format="extxyz")
    (workdir / "plain.traj").rename(name)
    (workdir / "a").write_text("not what was asked for")
    before = set(workdir.iterdir())
    assert len(read_images(name)) == 2
    assert set(workdir.iterdir()) == before


def test_a_file_that_ase_would_read_for_ever_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "water-1.restart"
    file.write_text("&FORCE_EVAL\n")
    assert "cp2k-restart has no energies and is not read" in refused(lambda: read_structures(file))
