"""Whether the frames of a file follow each other as in a trajectory, each nearly the same as the one before."""

from collections import defaultdict

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.structures.read import Geometries

NEARLY = 0.1  # Å, root mean square displacement of an atom
SHARE = 0.5  # of the displacement between frames at random, below which consecutive ones count as nearly the same
ENOUGH = 0.25  # of the consecutive frames
PAIRS = 2000  # of frames, at most, that are compared


def trajectory_note(structures: Geometries) -> str:
    """A warning where many consecutive frames are nearly the same, for a split at random; empty where not.

    Two frames are nearly the same if their atoms are displaced by less than `NEARLY`, and by less than `SHARE` of the
    median displacement between frames of the same atoms, drawn at random.
    """
    random = np.random.default_rng(0)
    starts = random.permutation(len(structures) - 1)[:PAIRS]
    pairs = [(int(i), int(i) + 1) for i in np.sort(starts) if _comparable(structures.atoms[i], structures.atoms[i + 1])]
    groups = defaultdict[bytes, list[int]](list)
    for i, atoms in enumerate(structures.atoms):
        groups[atoms.numbers.tobytes() + atoms.pbc.tobytes()].append(i)
    usual: dict[bytes, float] = {}
    near = []
    for i, j in pairs:
        atoms = structures.atoms[i]
        key = atoms.numbers.tobytes() + atoms.pbc.tobytes()
        if key not in usual:
            drawn = random.choice(groups[key], size=(100, 2))
            far = [displacement(structures.atoms[a], structures.atoms[b]) for a, b in drawn if a != b]
            usual[key] = float(np.median(far)) if far else 0.0
        moved = displacement(atoms, structures.atoms[j])
        if moved < min(NEARLY, SHARE * usual[key]):
            near.append(moved)
    if len(structures) < 3 or len(near) < ENOUGH * max(1, len(starts)):
        return ""
    return (
        f"{structures.source}: of {len(starts)} pairs of consecutive frames {len(near)} are nearly the same "
        f"(displaced by {np.median(near):.2g} Å): a split at random puts neighbours on both sides, and the validation "
        "error comes out too small; data.validation.split: blocks keeps them together"
    )


def displacement(one: Atoms, other: Atoms) -> float:
    """Root mean square displacement of the atoms, Å, by the nearest images and without a common shift.

    Where the cells differ, positions are compared in units of the cell.
    """
    moved: NDArray[np.float64] = other.positions - one.positions
    if one.pbc.any() and one.cell.rank == 3:
        fractions = other.cell.scaled_positions(other.positions) - one.cell.scaled_positions(one.positions)
        fractions[:, one.pbc] -= np.round(fractions[:, one.pbc])
        fractions -= fractions.mean(axis=0)
        moved = fractions @ np.asarray(one.cell)
    moved = moved - moved.mean(axis=0)
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def _comparable(one: Atoms, other: Atoms) -> bool:
    return np.array_equal(one.numbers, other.numbers) and np.array_equal(one.pbc, other.pbc)
