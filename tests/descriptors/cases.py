"""One descriptor of every kind, and structures, for the tests that all descriptors pass."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table

# No lattice in the tests has a pair at exactly this distance: without a smooth cutoff, features jump there.
CUTOFF = 4.3
TABLE: Table = {
    1: PseudoDensity(np.array([0.8]), np.array([1.1])),
    6: PseudoDensity(np.array([2.0, -0.7]), np.array([1.3, 2.4])),
    8: PseudoDensity(np.array([3.1, 0.4, -0.2]), np.array([1.9, 0.9, 3.0])),
    29: PseudoDensity(np.array([5.0, -1.0]), np.array([2.2, 1.5])),
}


@dataclass
class Case:
    """What makes a descriptor that knows H, C, O and Cu and, as `Descriptor` demands, no other element."""

    make: type[Descriptor]
    arguments: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True  # continuous, with their derivatives, where a neighbour passes the cutoff
    turns: str = "all"  # the rotations and reflections that leave the features unchanged: all, axes or exchanges

    @property
    def descriptor(self) -> Descriptor:
        return self.make(**self.arguments)

    def turn(self, random: np.random.Generator) -> NDArray[np.float64]:
        """One of these, (3, 3)."""
        matrix = np.linalg.qr(random.normal(size=(3, 3)))[0] * random.choice([-1, 1])
        if self.turns == "all":
            return matrix
        exchange = np.eye(3)[random.permutation(3)]
        return exchange if self.turns == "exchanges" else exchange * random.choice([-1, 1], 3)


def gmp(smooth: bool = True, **arguments: Any) -> Case:
    given = {"orders": range(10), "sigmas": [0.4, 1.1], "cutoff": CUTOFF, "pseudodensities": TABLE}
    return Case(GMP, given | {"smooth_cutoff": smooth} | arguments, smooth)


def gmp_groups(turns: str, **arguments: Any) -> Case:
    # All groups there are.
    groups = {n: range(1, count + 1) for n, count in enumerate([1, 1, 2, 3, 4, 5, 7, 8, 10, 12])}
    given = {"groups": groups, "sigmas": [0.4, 1.1], "cutoff": CUTOFF, "pseudodensities": TABLE}
    return Case(GMPGroups, given | arguments, turns=turns)


def symmetry_functions(**arguments: Any) -> Case:
    given = {
        "elements": ["H", "C", "O", "Cu"],
        "cutoff": CUTOFF,
        "g2": {"etas": [0.05, 4.0], "rs": [0.0, 1.5]},
        "g4": {"etas": [0.01, 1.0], "zetas": [1.0, 2.5], "gammas": [-1.0, 1.0]},
        "g5": {"etas": [0.02], "zetas": [4.0], "gammas": [-1.0, 0.5]},
    }
    return Case(SymmetryFunctions, given | arguments)


CASES = {
    "gmp": gmp(),
    "gmp, root": gmp(square=False),
    "gmp, surface": gmp(solid=False),
    "gmp, abrupt": gmp(smooth=False, orders=range(4)),
    "gmp, surface, root": gmp(solid=False, square=False),
    # A square does not see the sign that a moment of one harmonic, as x·y·z, has without it.
    "gmp_groups": gmp_groups("exchanges", square=False),
    "gmp_groups, square": gmp_groups("axes", square=True),
    "symmetry_functions": symmetry_functions(),
    "symmetry_functions, polynomial": symmetry_functions(cutoff_function="polynomial", gamma=2.5),
    "symmetry_functions, by element": symmetry_functions(
        cutoff={"default": CUTOFF, "Cu": 3.1},
        g2={"H": {"etas": [1.0], "rs": [0.5]}, "default": {"etas": [0.3, 2.0], "rs": [0.0]}},
        g4={"Cu": {"etas": [0.1], "zetas": [1.0], "gammas": [1.0]}},
        g5={"O": {"etas": [0.1], "zetas": [1.5], "gammas": [-1.0]}},
    ),
}


def free(random: np.random.Generator, n: int = 6) -> Atoms:
    """A molecule of atoms thrown into a box, none closer than 0.7 Å to another."""
    places: list[NDArray[np.float64]] = []
    while len(places) < n:
        place = random.uniform(0, 4, 3)
        if all(np.linalg.norm(place - other) > 0.7 for other in places):
            places.append(place)
    return Atoms(random.choice(list(TABLE), n), positions=np.array(places))


def crystal(random: np.random.Generator, pbc: list[bool] | None = None) -> Atoms:
    """A few atoms in a skewed cell that is shorter than the cutoff in one direction."""
    atoms = free(random)
    atoms.cell = np.diag([5.0, 6.0, 3.5]) + random.uniform(-0.8, 0.8, (3, 3))
    atoms.pbc = [True, True, True] if pbc is None else pbc
    return atoms


def assert_same(left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """Equal to rounding, measured by each column's largest value."""
    assert left.shape == right.shape
    scale = np.maximum(np.abs(left).max(axis=0), np.abs(right).max(axis=0))
    assert scale.max() > 0
    assert (np.abs(left - right).max(axis=0) <= 1e-9 * scale + 1e-14).all()
