"""How long features take, and what the libraries under them do, against alternatives in the same run.

python benchmarks/features.py [FILE] [--repeat 3]

Without a file: the built-in training structures. One thread: set OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from scipy.special import sph_harm_y
from sphericart import SolidHarmonics

from bdqm_tune.descriptors import GMP, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.neighbours import find_neighbours
from bdqm_tune.structures import builtin_structures
from bdqm_tune.structures.read import read_images

CUTOFF, ORDERS, SIGMAS = 6.0, [0, 1, 2, 3], [0.1, 0.15, 0.24, 0.36, 0.55, 0.85, 1.3, 2.0]
G2, G4 = {"etas": [0.05, 0.25, 1.0, 5.0], "rs": [0.0]}, {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [-1.0, 1.0]}


def best_time(work: Callable[[Atoms], object], structures: list[Atoms], repeat: int) -> float:
    """Least time (s) of `repeat` passes over the structures, after one structure to warm up."""
    work(structures[0])
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        for atoms in structures:
            work(atoms)
        times.append(time.perf_counter() - start)
    return min(times)


def ase_neighbours(atoms: Atoms) -> object:
    return primitive_neighbor_list("ijD", atoms.pbc, np.asarray(atoms.cell), atoms.positions, CUTOFF)


def scipy_harmonics(vectors: np.ndarray) -> None:
    radius = np.linalg.norm(vectors, axis=1)
    polar, azimuth = np.arccos(vectors[:, 2] / radius), np.arctan2(vectors[:, 1], vectors[:, 0])
    for n in ORDERS:
        for m in range(n + 1):
            sph_harm_y(n, m, polar, azimuth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    structures = read_images(options.file) if options.file else builtin_structures("train").atoms
    n_atoms = sum(map(len, structures))
    gmp = GMP(orders=ORDERS, sigmas=SIGMAS, cutoff=CUTOFF)
    surface = GMP(orders=ORDERS, sigmas=SIGMAS, cutoff=CUTOFF, solid=False)
    groups = GMPGroups({n: range(1, max(n, 1) + 1) for n in ORDERS}, SIGMAS, CUTOFF)
    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    symmetry = SymmetryFunctions(elements, CUTOFF, g2=G2, g4=G4)
    harmonics = SolidHarmonics(max(ORDERS))
    vectors = {id(atoms): find_neighbours(atoms, CUTOFF).vector for atoms in structures}
    rows = [
        ("GMP features, orders 0-3, 8 widths, 6 Å", gmp.compute),
        ("… with surface harmonics", surface.compute),
        ("… with their derivatives", gmp.sparse_derivatives),
        ("GMP, single groups of harmonics", groups.compute),
        ("symmetry functions, G2 and G4", symmetry.compute),
        ("neighbours: vesin (used)", lambda atoms: find_neighbours(atoms, CUTOFF)),
        ("neighbours: ase", ase_neighbours),
        ("harmonics: sphericart (used)", lambda atoms: harmonics.compute(vectors[id(atoms)])),
        ("harmonics: scipy, complex, m ≥ 0", lambda atoms: scipy_harmonics(vectors[id(atoms)])),
    ]
    print(f"{len(structures)} structures, {n_atoms} atoms, {sum(map(len, vectors.values())) / n_atoms:.0f} neighbours")
    base = None
    for name, work in rows:
        microseconds = best_time(work, structures, options.repeat) / n_atoms * 1e6
        base = base or microseconds
        print(f"{name:<42} {microseconds:9.2f} µs/atom {microseconds / base:7.2f} ×")


if __name__ == "__main__":
    main()
