"""How long features and their derivatives take, against amptorch and against what this machine could do at most.

python -m benchmarks.features [FILE] [--repeat 3] [--densities ../shared/data/GMP/valence_gaussians]

Without a file: the 300 structures of OC20 in the folder beside this repository, or else the built-in ones. Where
amptorch is installed, its descriptors alternate with ours, on every fifth structure, with one thread, in double
precision as ours; else there is no ratio. The least of the repetitions counts. Set OMP_NUM_THREADS to use fewer cores
than all. Times of one thread are of the CPU, for other work on a machine disturbs those of a clock.
`benchmarks.symmetry_functions` compares these functions with dscribe's.

The bound is the time in which this machine, with one thread, does the exponentials, multiplications and additions of
our formulas at the rates of loops that do nothing else, or writes the result, whichever is longer.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from ase import Atoms
from ase.build import molecule

from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.multipoles import Multipoles, probe_widths
from bdqm_tune.descriptors.neighbours import find_neighbours
from bdqm_tune.descriptors.simd import WIDTH, exp, load, store
from bdqm_tune.descriptors.store import in_pieces
from bdqm_tune.structures import builtin_structures
from bdqm_tune.structures.read import read_images
from bdqm_tune.threads import in_threads, usable_cores
from benchmarks.settings import GMP_GROUPS, SYMMETRY

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EVERY = 5  # amptorch runs on every so many structures
DEFAULT = {"orders": [0, 1, 2, 3], "sigmas": probe_widths(8), "cutoff": 6.0}
SURFACE = DEFAULT | {"solid": False}
OC20 = DATA / "oc20_300_train.traj"
TARGET = {("gmp_ampopt", False): 0.03}  # ms/atom on these: what we want to need at most


@dataclass(frozen=True)
class Row:
    """One line of the table, ms/atom."""

    setting: str
    derivatives: bool
    one_thread: float
    all_cores: float
    amptorch: float | None  # None: it does not run here
    bound: float | None

    def __str__(self) -> str:
        what = f"{self.setting}, {'derivatives' if self.derivatives else 'features'}"
        target = TARGET.get((self.setting, self.derivatives))
        cells = [
            f"{self.one_thread:.4f}",
            f"{self.all_cores:.4f}",
            f"{target:.3f}" if target else "",
            f"{self.amptorch:.3f}" if self.amptorch else "",
            f"{self.amptorch / self.one_thread:.0f} ×" if self.amptorch else "",
            f"{self.bound:.4f}" if self.bound else "",
            f"{self.bound / self.one_thread:.0%}" if self.bound else "",
        ]
        return "| " + " | ".join([what, *cells]) + " |"


HEAD = """| ms/atom | one thread | {cores} threads | target | amptorch | ratio | bound | share of it |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Peak:
    """What one thread reaches, in a second."""

    exponentials: float
    operations: float  # multiplications and additions
    bytes: float  # written to memory


@numba.njit(nogil=True)
def _exponentials(x: Any, found: Any) -> None:
    for place in range(0, len(x), WIDTH):
        store(found, place, exp(load(x, place)))


@numba.njit(nogil=True)
def _multiply_add(x: Any, found: Any, times: int) -> None:
    for place in range(0, len(x), 8 * WIDTH):
        # Eight at once, for each has to wait for its predecessor.
        a, b, c, d = load(x, place), load(x, place + 8), load(x, place + 16), load(x, place + 24)
        e, f, g, h = load(x, place + 32), load(x, place + 40), load(x, place + 48), load(x, place + 56)
        for _ in range(times):
            a, b, c, d = a * a + a, b * b + b, c * c + c, d * d + d
            e, f, g, h = e * e + e, f * f + f, g * g + g, h * h + h
        store(found, place, a + b + c + d + e + f + g + h)


def least(work: Callable[[], object], repeat: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Least time of several by a clock, s."""
    times = []
    for _ in range(repeat):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def peak() -> Peak:
    x = -np.random.default_rng(0).uniform(0, 0.5, 2048)
    found, times = np.empty_like(x), 64
    large = np.empty(2**21)
    _exponentials(x, found)
    _multiply_add(x, found, times)
    return Peak(
        len(x) / least(lambda: _exponentials(x, found), 2000),
        2 * times * len(x) / least(lambda: _multiply_add(x, found, times), 500),
        2**24 / least(lambda: large.fill(1.0), 30),
    )


def bound(descriptor: Multipoles, structures: Sequence[Atoms], derivatives: bool, peak: Peak) -> float:
    """The least time that these features or derivatives could take, s."""
    pairs = find_neighbours(structures, descriptor.cutoff)
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    seen = np.concatenate([numbers, numbers[pairs.index]])
    n_sigmas, channels = len(descriptor.sigmas), descriptor.channels
    exponentials = sum(len(descriptor.table[int(z)].amplitude) for z in seen.tolist()) * n_sigmas
    n_moments = int(np.sum(2 * channels.l + 1))
    n_sources, n_terms = len(channels.sources), len(channels.term_factor)
    operations = exponentials * 2 * n_sources + len(seen) * n_sigmas * 2 * (n_terms + n_moments)
    seconds = exponentials / peak.exponentials + operations / peak.operations
    written = len(numbers) * descriptor.n_features * 8
    if derivatives:
        # The exponentials once more, and for each neighbour the gradient of every moment.
        again = exponentials * 5 * n_sources + len(pairs.index) * n_sigmas * (6 * n_terms + 9 * n_moments)
        seconds += exponentials / peak.exponentials + again / peak.operations
        written += len(pairs.index) * descriptor.n_features * 24
    return max(seconds, written / peak.bytes)


def molecules(n: int) -> list[Atoms]:
    """Molecules of water, each with its own distances."""
    made = [molecule("H2O") for _ in range(n)]
    for k, atoms in enumerate(made):
        atoms.positions += np.random.default_rng(k).normal(scale=0.05, size=(3, 3))
    return made


def measure(
    setting: str,
    descriptors: Sequence[Descriptor],
    structures: Sequence[Atoms],
    derivatives: bool,
    amptorch: Callable[[Atoms], object] | None,
    repeat: int,
    peak: Peak,
) -> Row:
    """One line; `descriptors` holds one for all structures, or one for each."""
    n_atoms = np.array([len(atoms) for atoms in structures])
    if len(descriptors) == 1 and not derivatives:
        items: list[Any] = in_pieces(n_atoms)

        def work(piece: Any) -> object:
            return descriptors[0].compute_all(structures[piece], [""] * len(structures[piece]))
    else:
        each = list(descriptors) * (len(structures) if len(descriptors) == 1 else 1)
        items = list(zip(each, structures, strict=True))

        def work(pair: Any) -> object:
            return pair[0].sparse_derivatives(pair[1]) if derivatives else pair[0].compute(pair[1])

    work(items[0])
    ours, threaded, theirs = [], [], []
    some = structures[::EVERY]
    if amptorch is not None:
        try:
            amptorch(some[0])
        except NotImplementedError:  # derivatives with solid harmonics, in some versions
            amptorch = None
    for _ in range(repeat):
        ours.append(least(lambda: _drain(map(work, items)), 1, time.thread_time))
        threaded.append(least(lambda: _drain(in_threads(work, items)), 1))
        if amptorch is not None:
            theirs.append(least(lambda: _drain(map(amptorch, some)), 1, time.thread_time))
    total, sample = int(n_atoms.sum()), sum(map(len, some))
    first = descriptors[0]
    return Row(
        setting,
        derivatives,
        min(ours) / total * 1e3,
        min(threaded) / total * 1e3,
        min(theirs) / sample * 1e3 if theirs else None,
        bound(first, structures, derivatives, peak) / total * 1e3 if isinstance(first, Multipoles) else None,
    )


def _drain(results: Any) -> None:
    for _ in results:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--densities", type=Path, default=DATA / "GMP" / "valence_gaussians")
    options = parser.parse_args()
    file = options.file or (OC20 if OC20.is_file() else None)
    if file != OC20:
        TARGET.clear()
    structures = read_images(file) if file else builtin_structures("train").atoms
    densities = options.densities if options.densities.is_dir() else None
    try:
        from benchmarks import run_amptorch
    except ImportError as error:
        run_amptorch = None  # type: ignore[assignment]
        print(f"amptorch does not run here ({error})")
    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    peaks = peak()
    search = lambda: [find_neighbours([atoms], 5.0) for atoms in structures]  # noqa: E731
    neighbours = least(search, options.repeat, time.thread_time)
    n_atoms = sum(map(len, structures))
    print(f"{len(structures)} structures, {n_atoms} atoms, {usable_cores()} cores")
    print(f"one thread, a second: {peaks.exponentials / 1e9:.2f}e9 exponentials,", end=" ")
    print(f"{peaks.operations / 1e9:.0f}e9 operations, {peaks.bytes / 1e9:.1f} GB written")
    print(f"of all times to 5 Å, the search for neighbours: {neighbours / n_atoms * 1e3:.4f} ms/atom\n")
    print(HEAD.format(cores=usable_cores()))
    settings: list[tuple[str, type[Multipoles], dict[str, Any]]] = [
        ("gmp_ampopt", GMPGroups, GMP_GROUPS["gmp_ampopt"]),
        ("gmp (default)", GMP, DEFAULT),
        ("gmp, surface", GMP, SURFACE),
    ]
    for name, kind, given in settings:
        ours = kind(**given, pseudodensities=densities)
        for derivatives in (False, True):
            theirs = None
            if run_amptorch and densities:
                theirs = run_amptorch.worker(run_amptorch.descriptor(kind, given, elements, densities), derivatives)
            print(measure(name, [ours], structures, derivatives, theirs, options.repeat, peaks), flush=True)
    # With the elements of each structure: those of all would make thousands of columns.
    few = structures[::EVERY]
    symmetry = [SymmetryFunctions(sorted(set(a.get_chemical_symbols())), **SYMMETRY["sf_cosine"]) for a in few]
    for derivatives in (False, True):
        print(measure("symmetry functions", symmetry, few, derivatives, None, options.repeat, peaks), flush=True)
    waters, own = molecules(1000), SymmetryFunctions(["H", "O"], **SYMMETRY["sf_cosine"])
    for name, descriptors in (("together", [own]), ("one by one", [own] * len(waters))):
        name = f"symmetry functions, {len(waters)} molecules of water, {name}"
        print(measure(name, descriptors, waters, False, None, options.repeat, peaks), flush=True)


if __name__ == "__main__":
    main()
