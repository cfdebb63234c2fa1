"""Tables of pseudo-densities: amptorch's folders, and the package's own for H to Rn."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols

from bdqm_tune.descriptors import GMP
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, package_table, read_folder
from bdqm_tune.errors import BadInput


def test_a_folder_gives_one_entry_an_element(tmp_path: Path) -> None:
    (tmp_path / "H_pseudodensity_2.g").write_text("0.25 1.5\n-1e-1\t3.0\n")
    (tmp_path / "Cu_anything.g").write_text("2 4\n")
    (tmp_path / "README.txt").write_text("not a table")
    table = read_folder(tmp_path)
    assert sorted(table) == [1, 29]
    assert table[1].amplitude.tolist() == [0.25, -0.1]
    assert table[1].exponent.tolist() == [1.5, 3.0]
    assert (table[29].amplitude.tolist(), table[29].exponent.tolist()) == ([2.0], [4.0])


@pytest.mark.parametrize("name", ["Qq_pseudodensity_2.g", "copper.g", "_.g"])
def test_a_file_not_named_for_an_element_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("1 2\n")
    with pytest.raises(BadInput, match=f"{name}: the name must begin with a chemical symbol"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", ["1 two\n", "1 2 3\n4 5 6\n", "1\n2\n", "1 2\n3\n"])
def test_a_file_that_does_not_hold_pairs_of_numbers_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "O_x.g").write_text(content)
    with pytest.raises(BadInput, match=r"O_x\.g: each line must hold two numbers"):
        read_folder(tmp_path)


@pytest.mark.filterwarnings("ignore:loadtxt")
@pytest.mark.parametrize("content", ["", "\n\n", "# nothing yet\n"])
def test_a_file_without_gaussians_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "O_x.g").write_text(content)
    with pytest.raises(BadInput, match=r"O_x\.g"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", ["nan 1\n", "1 nan\n", "inf 1\n", "1 0\n", "1 -2\n", "1 inf\n"])
def test_gaussians_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "O_x.g").write_text(content)
    with pytest.raises(BadInput, match=r"O_x\.g: B must be finite and beta positive"):
        read_folder(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "O_x.g").write_bytes(bytes(range(128, 256)))
    with pytest.raises(BadInput, match=r"O_x\.g"):
        read_folder(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput, match=rf"{folder.name}: no pseudo-density files \(\*\.g\) there"):
            GMP([0], [1.0], 4.0, pseudodensities=folder)


def test_electrons_are_the_integral_over_all_space() -> None:
    density = PseudoDensity(np.array([2.0, -0.5]), np.array([1.3, 0.7]))
    r = np.linspace(0, 12, 4001)
    profile = sum(B * np.exp(-beta * r**2) for B, beta in zip(density.amplitude, density.exponent, strict=True))
    assert density.electrons == pytest.approx(np.trapezoid(4 * np.pi * r**2 * profile, r), rel=1e-6)


def test_the_package_has_hydrogen_to_radon() -> None:
    table = package_table()
    assert [chemical_symbols[z] for z in sorted(table)] == chemical_symbols[1:87]
    for entry in table.values():
        assert len(entry.amplitude) == len(entry.exponent) > 0
        assert np.isfinite(entry.amplitude).all()
        assert (entry.exponent > 0).all()


def test_published_tables_are_read(shared: Path) -> None:
    folder = shared / "data" / "GMP" / "valence_gaussians"
    table = read_folder(folder)
    assert len(table) == 63
    first = (folder / "Cu_pseudodensity_4.g").read_text().split()
    assert (table[29].amplitude[0], table[29].exponent[0]) == (float(first[0]), float(first[1]))


def test_a_table_is_read_from_wherever_it_lies(shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared / "data" / "GMP" / "valence_gaussians", tmp_path / "copy")
    copied, original = (
        GMP([0], [1.0], 4.0, pseudodensities=str(folder)).settings
        for folder in (tmp_path / "copy", shared / "data" / "GMP" / "valence_gaussians")
    )
    assert copied == original
