"""How long symmetry functions and their derivatives take, against those of dscribe: the same functions, one thread.

python -m benchmarks.symmetry_functions [--repeat 3]

On water without a cell, slabs of OC20 and silicon, of the folder beside this repository. Ours and dscribe's take turns,
in double precision; the least of the repetitions counts, in time of the CPU, for other work on a machine disturbs that
of a clock. dscribe's derivatives are differences of features, whose time rises with the square of the number of atoms
and more: both are computed of five structures of at most 40 atoms. It needs dscribe (`pip install dscribe`), in an
environment of its own; benchmarks/run_dscribe.py says what its conventions are.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ase import Atoms
from threadpoolctl import threadpool_limits

from bdqm_tune.descriptors import SymmetryFunctions
from bdqm_tune.structures.read import read_images
from benchmarks.features import DATA, EVERY, OC20, least
from benchmarks.settings import SYMMETRY
from benchmarks.training import processor

SETTING = SYMMETRY["sf_cosine"]
LARGEST, FEW = 40, 5  # atoms and number of structures whose derivatives are computed


@dataclass(frozen=True)
class Row:
    """One line of the table, µs/atom."""

    what: str
    structures: int
    atoms: int
    ours: float
    theirs: float

    def __str__(self) -> str:
        cells = [self.what, str(self.structures), str(self.atoms), f"{self.ours:.3g}", f"{self.theirs:.3g}"]
        return "| " + " | ".join([*cells, f"{self.theirs / self.ours:.2g}"]) + " |"


HEAD = """| µs/atom | structures | atoms | here | dscribe | ratio |
|---|---|---|---|---|---|"""
Work = Callable[[], object]


def compare(what: str, structures: Sequence[Atoms], ours: Work, theirs: Work, repeat: int) -> Row:
    """One line: both in turns, after a time that does not count."""
    n_atoms = sum(map(len, structures))
    times: dict[Work, list[float]] = {ours: [], theirs: []}
    for work in times:
        work()
    for _ in range(repeat):
        for work, seconds in times.items():
            seconds.append(least(work, 1, time.thread_time))
    return Row(what, len(structures), n_atoms, *(min(seconds) / n_atoms * 1e6 for seconds in times.values()))


def one_by_one(work: Callable[[Atoms], object], structures: Sequence[Atoms]) -> Work:
    """What does it for each structure, and leaves the results."""

    def go() -> None:
        for atoms in structures:
            work(atoms)

    return go


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    try:
        from benchmarks import run_dscribe
    except ImportError as error:
        print(f"dscribe does not run here ({error})", file=sys.stderr)
        return 1
    water = read_images(DATA / "water_2d.traj")
    for atoms in water:
        atoms.pbc = False
    sets = {
        "water": water,
        "slabs": read_images(OC20)[::EVERY],
        "silicon": read_images(DATA / "mlearn" / "Si_test.xyz"),
    }

    @cache
    def both(elements: tuple[str, ...], periodic: bool) -> tuple[SymmetryFunctions, Any]:
        own = SymmetryFunctions(elements, **SETTING)
        return own, run_dscribe.descriptor(own.elements, SETTING, periodic)

    def ours(atoms: Atoms) -> SymmetryFunctions:
        return both(elements_of(atoms), bool(atoms.pbc.any()))[0]

    def theirs(atoms: Atoms) -> Any:
        return both(elements_of(atoms), bool(atoms.pbc.any()))[1]

    rows = []
    with threadpool_limits(1):
        for name, structures in sets.items():
            largest = max(run_dscribe.difference(ours(atoms), theirs(atoms), atoms) for atoms in structures)
            print(f"{name}: features differ by {largest:.1e} of the largest at most", flush=True)
            few = [atoms for atoms in structures if len(atoms) <= LARGEST][:FEW]
            for what, some, derivatives in (("features", structures, False), ("features and derivatives", few, True)):
                compute = "sparse_derivatives" if derivatives else "compute"
                mine = one_by_one(lambda atoms, c=compute: getattr(ours(atoms), c)(atoms), some)
                other = one_by_one(run_dscribe.worker(theirs, derivatives), some)
                rows.append(compare(f"{name}, {what}", some, mine, other, options.repeat))
            if len(set(map(elements_of, structures))) == 1:
                mine = partial(ours(structures[0]).compute_all, structures, [""] * len(structures))
                other = partial(theirs(structures[0]).create, structures)
                rows.append(compare(f"{name}, features, all in one call", structures, mine, other, options.repeat))
    print(f"\n{processor()}, one thread\n\n{HEAD}")
    print("\n".join(map(str, rows)))
    return 0


def elements_of(atoms: Atoms) -> tuple[str, ...]:
    """The elements of a structure, ascending by name."""
    return tuple(sorted(set(atoms.get_chemical_symbols())))


if __name__ == "__main__":
    sys.exit(main())
