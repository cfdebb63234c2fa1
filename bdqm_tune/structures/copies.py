"""Copies among structures: of the same geometry, to 0.001 Å, and of the same energy."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.structures.digest import geometry_key
from bdqm_tune.structures.equivalence import APART, Crystal, same_geometry
from bdqm_tune.structures.fingerprint import Fingerprint, Fingerprints, candidates
from bdqm_tune.structures.read import Geometries, Structures

SAME_ENERGY = 0.01  # eV, of the smaller structure: below it two energies count as the same calculation
AT_ONCE = 500  # structures whose candidates are held at once
IN_MEMORY = 1000  # structures with their periodic images
LISTED = 10  # of copies in a message, at most
KEEP_APART = (
    "a potential cannot tell them apart: keep spin states, charges or settings in files and studies of their own"
)


def geometry_groups(structures: Sequence[Atoms]) -> NDArray[np.int64]:
    """For each structure (n_structures,), the index of the first one of the same geometry, which may be itself.

    What counts as the same is that of `equivalence.same_geometry`; where a is the same as b and b as c, all three are.
    """
    groups = _Groups(len(structures))
    first: dict[bytes, int] = {}
    for i, atoms in enumerate(structures):
        groups.join(first.setdefault(geometry_key(atoms), i), i)
    prints, buckets = Fingerprints(), defaultdict[tuple[object, ...], dict[int, list[int]]](lambda: defaultdict(list))
    found: dict[int, Fingerprint] = {}
    for i in first.values():
        found[i] = prints.of(structures[i])
        buckets[found[i].key][len(structures[i])].append(i)
    for by_size in buckets.values():
        _join_bucket(structures, groups, found, by_size)
    return groups.labels()


@dataclass(frozen=True)
class Copies:
    """Which of some structures are the same."""

    geometry: NDArray[np.int64]  # (n_structures,) index of the first of the same geometry
    copy: NDArray[np.int64]  # (n_structures,) index of the first of the same geometry and energy

    @property
    def count(self) -> int:
        """Structures that are copies of an earlier one."""
        return int((self.copy != np.arange(len(self.copy))).sum())

    def notes(self, structures: Geometries) -> list[str]:
        """What to know about the structures of a file: copies, and the same geometry with other energies."""
        notes, images = [], structures.images
        own = np.arange(len(self.copy))
        if copies := [f"image {images[i]} = image {images[self.copy[i]]}" for i in np.flatnonzero(self.copy != own)]:
            notes.append(
                f"{structures.source}: {_listed(copies)}: copies, which stay on one side of the split; they count "
                f"{'twice' if len(copies) == 1 else 'more than once'} there"
            )
        # Of each geometry that has several energies, those other than the first.
        others = np.flatnonzero((self.copy == own) & (self.geometry != own))
        if pairs := [f"image {images[i]} and image {images[self.geometry[i]]}" for i in others]:
            notes.append(
                f"{structures.source}: {_listed(pairs)} have the same geometry and other energies; {KEEP_APART}"
            )
        return notes


def find_copies(structures: Structures) -> Copies:
    """Copies among structures: of the same geometry, and energies that differ by less than `SAME_ENERGY`.

    The energy counts for as many atoms as the smaller structure has, as a repeated cell has a multiple of it.
    """
    geometry = geometry_groups(structures.atoms)
    return Copies(geometry, _by_energy(geometry, structures.energies, structures.n_atoms))


def _by_energy(
    geometry: NDArray[np.int64], energies: NDArray[np.float64], n_atoms: NDArray[np.int64]
) -> NDArray[np.int64]:
    labels = np.arange(len(geometry))
    for label in np.flatnonzero(np.bincount(geometry, minlength=len(geometry)) > 1):
        members = np.flatnonzero(geometry == label)
        scaled = energies[members] / n_atoms[members] * n_atoms[members].min()
        order = np.argsort(scaled, kind="stable")
        for cluster in np.split(order, np.flatnonzero(np.diff(scaled[order]) > SAME_ENERGY) + 1):
            labels[members[cluster]] = members[cluster].min()
    return labels


def refuse_shared(splits: Mapping[str, Geometries]) -> list[str]:
    """Check that no two of the named splits share a structure; where the energies of all are known, of one energy.

    Returns:
        What to know: the same geometry with other energies in two splits.

    Raises:
        BadInput: there are copies; the message has their indices.
    """
    groups = _Shared(splits)
    if shared := groups.copies():
        raise BadInput(_refusal(shared))
    return groups.notes()


def turned_copies(trained: Mapping[str, Structures], test: Structures) -> tuple[NDArray[np.int64], list[str]]:
    """The structures (n,) of some splits that a rotation or a reflection makes a test structure, and what to know.

    Calculations of strained cells along several axes have such structures in good faith: published splits do. Without
    them in the training, the test says what it should. A copy that is not turned comes of a mistake with the files.

    Args:
        trained: to train and to validate on, by name; they are counted through.

    Raises:
        BadInput: there are copies that are not turned; the message has their indices.
    """
    groups, refused, turned = _Shared({**trained, "test": test}), [], dict[int, int]()
    n_trained = sum(map(len, trained.values()))
    crystal = cache(lambda i: Crystal(groups.atoms[i]))
    for label in np.unique(groups.copy[n_trained:]).tolist():
        members = np.flatnonzero(groups.copy == label).tolist()
        for one in (i for i in members if i < n_trained):
            for other in (i for i in members if i >= n_trained):
                if same_geometry(crystal(one), crystal(other), turned=False):
                    refused.append(groups.pair(one, other))
                else:
                    turned.setdefault(one, other)
    if refused:
        raise BadInput(_refusal(refused))
    notes = groups.notes()
    if turned:
        pairs = _listed([groups.pair(*pair) for pair in turned.items()])
        notes.append(
            f"the same structure, turned or mirrored, in two splits: {pairs}; left out of the training, or the test "
            "errors would look better than they are"
        )
    return np.array(sorted(turned), dtype=np.int64), notes


class _Shared:
    """Which structures of several splits are the same."""

    def __init__(self, splits: Mapping[str, Geometries]) -> None:
        self.atoms = [a for split in splits.values() for a in split.atoms]
        self._places = [(name, image) for name, split in splits.items() for image in split.images.tolist()]
        self._geometry = geometry_groups(self.atoms)
        self.copy = self._geometry  # (n_structures,) index of the first of the same geometry and, if known, energy
        labelled = [split for split in splits.values() if isinstance(split, Structures)]
        if len(labelled) == len(splits):
            energies = np.concatenate([split.energies for split in labelled])
            self.copy = _by_energy(self._geometry, energies, np.array([len(a) for a in self.atoms]))

    def copies(self) -> list[str]:
        """Structures that are copies of the first one of their group, which is in another split."""
        return [self.pair(first, i) for i, first in enumerate(self.copy.tolist()) if self._apart(first, i)]

    def _apart(self, one: int, other: int) -> bool:
        return self._places[one][0] != self._places[other][0]

    def pair(self, one: int, other: int) -> str:
        """Two structures, for a message."""
        (name, image), (other_name, other_image) = self._places[one], self._places[other]
        return f"{name} image {image} = {other_name} image {other_image}"

    def notes(self) -> list[str]:
        """What to know besides copies: the same geometry with other energies in two splits."""
        pairs = ((first, i) for i, first in enumerate(self._geometry.tolist()) if self.copy[first] != self.copy[i])
        others = [self.pair(first, i) for first, i in pairs if self._apart(first, i)]
        what = f"the same geometry with other energies in two splits: {_listed(others)}; {KEEP_APART}"
        return [what] if others else []


def _refusal(shared: Sequence[str]) -> str:
    return (
        f"the same structure in two splits: {_listed(shared)}; "
        "remove the copies, the errors would look better than they are"
    )


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return f"{', '.join(items[:LISTED])}{more}"


def _join_bucket(
    structures: Sequence[Atoms], groups: "_Groups", found: dict[int, Fingerprint], by_size: dict[int, list[int]]
) -> None:
    """Join structures of the same geometry among some of one composition, given by their numbers of atoms."""
    crystal = lru_cache(IN_MEMORY)(lambda i: Crystal(structures[i]))
    profile = cache(lambda i: crystal(i).profile)

    def alike(one: int, other: int) -> bool:
        near = np.abs(profile(one) - profile(other)).max() <= 2 * APART
        return bool(near) and same_geometry(crystal(one), crystal(other))

    sizes = sorted(by_size)
    for place, small in enumerate(sizes):
        points = np.array([found[i].scaled(small) for i in by_size[small]])
        for large in sizes[place:]:
            others = by_size[large]
            targets = points if large == small else np.array([found[i].scaled(small) for i in others])
            for start in range(0, len(points), AT_ONCE):
                for i, near in enumerate(candidates(points[start : start + AT_ONCE], targets), start):
                    one = by_size[small][i]
                    for other in sorted(others[k] for k in near if large != small or k > i):
                        if groups.of(one) != groups.of(other) and alike(one, other):
                            groups.join(one, other)


class _Groups:
    """Disjoint sets of indices, each with its least index as its label."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def of(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.of(i), self.of(j)))
        self._parent[high] = low

    def labels(self) -> NDArray[np.int64]:
        return np.array([self.of(i) for i in range(len(self._parent))], dtype=np.int64)
