"""Atoms on top of each other: whether two are closer than any calculation has them."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bdqm_tune.errors import BadInput


def check_contacts(atoms: Atoms, least: float) -> None:
    """Check that no two atoms, periodic images included, are closer than `least` times the sum of their covalent radii.

    The radii are ASE's, of Cordero et al., Dalton Trans. 2008, 2832: of a bond the ratio is near 1, of H2's 1.19.

    Args:
        least: without a unit, 0 or more; 0 does not check.

    Raises:
        BadInput: two are closer; the message names those with the least ratio.
    """
    if least <= 0:
        return
    radii = covalent_radii[atoms.numbers]
    first, second, distance = _pairs(atoms, 2 * least * float(radii.max()))
    ratio = distance / (radii[first] + radii[second])
    if not len(ratio) or ratio.min() >= least:
        return
    k = int(ratio.argmin())
    i, j = sorted((int(first[k]), int(second[k])))
    symbols = atoms.get_chemical_symbols()
    other = f"atom {j} ({symbols[j]})" if i != j else "its periodic image"
    raise BadInput(
        f"atom {i} ({symbols[i]}) and {other} are {distance[k]:.3g} Å apart, {ratio[k]:.2g} times the sum of their "
        f"covalent radii, where at least {least:g} is expected"
    )


def _pairs(atoms: Atoms, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Atoms that are within the cutoff of each other or of periodic images: first, second, distance (n_pairs,), Å.

    A pair may be there twice. Vesin's search takes longer, and ends the process where the atoms of a chain or a slab
    are 1 µm apart.
    """
    n = len(atoms)
    positions, index = atoms.positions, np.arange(n)
    if atoms.pbc.any():
        cell = atoms.cell.array if atoms.pbc.all() else atoms.cell.complete().array
        lengths = np.sqrt((cell**2).sum(axis=1))
        shortest = int(np.where(atoms.pbc, lengths, np.inf).argmin())
        if lengths[shortest] < cutoff:  # each atom to its own image, of which there may be very many
            return index, index, np.full(n, lengths[shortest])
        inverse = np.linalg.inv(cell)
        fractions = positions @ inverse
        fractions -= np.where(atoms.pbc, np.floor(fractions), 0)
        for axis, periodic in enumerate(atoms.pbc):
            if not periodic:
                continue
            reach = cutoff * float(np.sqrt((inverse[:, axis] ** 2).sum()))  # of the cutoff, in fractions of this axis
            along = fractions[:, axis]
            images, copies = [fractions], [index]
            for steps in range(1, int(np.ceil(reach)) + 1):
                for shift, near in ((steps, along <= 1 + reach - steps), (-steps, along >= steps - reach)):
                    if near.any():
                        moved = fractions[near]
                        moved[:, axis] += shift
                        images.append(moved)
                        copies.append(index[near])
            if len(images) > 1:
                fractions, index = np.concatenate(images), np.concatenate(copies)
        positions = fractions @ cell
    pairs = cKDTree(positions).query_pairs(cutoff, output_type="ndarray")
    pairs = pairs[pairs[:, 0] < n]  # not of two images
    if not len(pairs):
        return index[:0], index[:0], np.zeros(0)
    first, second = pairs.T
    return first, index[second], np.linalg.norm(positions[first] - positions[second], axis=1)
