"""The digest changes with what a model learns from and with nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.structures import Structures, digest, read_structures
from bdqm_tune.structures.read import from_atoms


def images(n: int = 4, start: float = 1.5) -> list[Atoms]:
    made = []
    for i in range(n):
        atoms = Atoms("CuO", positions=[[0, 0, 0], [0, 0, start + 0.1 * i]], cell=[5, 6, 7], pbc=[True, True, False])
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - i, forces=np.full((2, 3), 0.1 * i))
        made.append(atoms)
    return made


def structures(n: int = 4, start: float = 1.5) -> Structures:
    return from_atoms(images(n, start), "given.traj")


def numbers(s: Structures) -> Structures:
    s.atoms[2].numbers[0] = 28
    return s


def positions(s: Structures) -> Structures:
    s.atoms[2].positions[1, 2] = np.nextafter(s.atoms[2].positions[1, 2], 9.0)
    return s


def cell(s: Structures) -> Structures:
    s.atoms[2].cell[1, 1] = np.nextafter(6.0, 9.0)
    return s


def pbc(s: Structures) -> Structures:
    s.atoms[2].pbc = [True, True, True]
    return s


def energy(s: Structures) -> Structures:
    s.energies[2] = np.nextafter(s.energies[2], 9.0)
    return s


def forces(s: Structures) -> Structures:
    assert s.forces is not None
    s.forces[2][1, 1] = np.nextafter(s.forces[2][1, 1], 9.0)
    return s


def no_forces(s: Structures) -> Structures:
    return replace(s, forces=None)


def fewer(s: Structures) -> Structures:
    return s.select([0, 1, 2])


def other_order(s: Structures) -> Structures:
    return s.select([1, 0, 2, 3])


@pytest.mark.parametrize("change", [numbers, positions, cell, pbc, energy, forces, no_forces, fewer, other_order])
def test_the_digest_changes_with_the_data(change: Callable[[Structures], Structures]) -> None:
    assert digest(change(structures())) != digest(structures())


def test_the_digest_changes_with_the_stress_where_that_is_a_label() -> None:
    plain = structures()
    other = replace(plain, stress=[np.ones(6), *[None] * 3])
    assert digest(other) == digest(plain)
    assert digest(other.with_stress()) != digest(plain.with_stress()) != digest(plain)
    assert digest(other.with_stress().select([1, 2])) == digest(plain.with_stress().select([1, 2]))


def test_the_digest_is_a_sha256_and_the_same_for_the_same_data() -> None:
    assert digest(structures()) == digest(structures())
    assert len(digest(structures())) == 64
    assert int(digest(structures()), 16) > 0


def test_the_name_and_the_format_of_the_file_do_not_count(tmp_path: Path) -> None:
    for name in ("one.traj", "two.traj", "three.db"):
        ase.io.write(tmp_path / name, images())
    assert len({digest(read_structures(tmp_path / name)) for name in ("one.traj", "two.traj", "three.db")}) == 1


@pytest.mark.parametrize("where", ["positions", "cell", "energies", "forces"])
def test_a_negative_zero_is_a_zero(where: str) -> None:
    def with_zero(zero: float) -> Structures:
        made = structures()
        assert made.forces is not None
        array = {
            "positions": made.atoms[0].positions,
            "cell": made.atoms[0].cell.array,
            "energies": made.energies[:, None],
            "forces": made.forces[0],
        }[where]
        array[0, -1] = zero
        return made

    assert digest(with_zero(-0.0)) == digest(with_zero(0.0))
    assert digest(with_zero(-0.0)) != digest(with_zero(1e-300))
