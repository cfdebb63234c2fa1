"""Training and validation split of one file, or its folds."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.structures.read import Structures

Method = Literal["random", "composition", "blocks"]


def split_indices(
    structures: Structures,
    fraction: float,
    method: Method,
    seed: int,
    copies: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and of the validation structures, each in ascending order.

    Args:
        fraction: share of the validation split, in (0, 1); it gets at least one structure.
        method: `random`; `composition`: whole chemical formulas go to validation, in random order, until it has its
            share; or `blocks`: structures that follow each other in the file, from a random place on.
        seed: of the order, or the place.
        copies: (n_structures,) equal for structures that must be on one side; None: all may be split. Without such
            structures the split is the same as with None.

    Raises:
        BadInput: fewer than two structures that differ, or than two formulas.
    """
    n = len(structures)
    if n < 2:
        raise BadInput(
            f"{structures.source}: needs at least 2 structures, one to train on and one to validate; got {n}"
        )
    labels = np.arange(n) if copies is None else copies
    if len(np.unique(labels)) < 2:
        raise BadInput(f"{structures.source}: all {n} structures are copies of one; at least 2 must differ")
    wanted = min(max(1, round(fraction * n)), n - 1)
    random = np.random.default_rng(seed)
    if method == "composition":
        validation = _by_composition(structures, wanted, labels, random)
    else:
        order = random.permutation(n) if method == "random" else np.roll(np.arange(n), -random.integers(n - wanted + 1))
        validation = _first(order, wanted, labels)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def fold_indices(
    structures: Structures,
    n_folds: int,
    method: Method,
    seed: int,
    copies: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """The folds of a cross-validation: indices of the structures of each, ascending; each structure is in one fold.

    Folds are as equal in size as what stays together lets them be.

    Args:
        n_folds: at least 2.
        method: `random`; `composition`: structures of one chemical formula are in one fold; or `blocks`: structures
            that follow each other in the file, from its beginning on.
        seed: of the order in which they are dealt; `blocks` does without.
        copies: (n_structures,) equal for structures that must be in one fold; None: any may be apart.

    Raises:
        BadInput: fewer structures that differ, or formulas, than folds.
    """
    n = len(structures)
    labels = np.arange(n) if copies is None else copies
    if method == "composition":
        formulas = np.array([atoms.get_chemical_formula() for atoms in structures.atoms])
        together = _with_repeated_cells(formulas, labels)
        _, units = np.unique([together[formula] for formula in formulas], return_inverse=True)
        what = "formulas that are no repeated cells of one another"
    else:
        _, units = np.unique(labels, return_inverse=True)
        what = "structures that differ"
    sizes = np.bincount(units)
    if len(sizes) < n_folds:
        needed = f"{n_folds} folds need at least as many {what}; got {len(sizes)}"
        raise BadInput(f"{structures.source}: data.validation.folds: {needed}")
    if method == "blocks":
        order = list(dict.fromkeys(units.tolist()))
        fold_of = _consecutive(sizes[order], n_folds)
    else:
        order = sorted(np.random.default_rng(seed).permutation(len(sizes)).tolist(), key=lambda unit: -sizes[unit])
        fold_of = _dealt(sizes[order], n_folds)
    of_unit = np.empty(len(sizes), dtype=np.int64)
    of_unit[order] = fold_of
    return [np.flatnonzero(of_unit[units] == fold) for fold in range(n_folds)]


def _dealt(sizes: NDArray[np.int64], n_folds: int) -> list[int]:
    """The fold of each unit (n_units,) of these sizes: the one that is smallest so far."""
    totals, found = [0] * n_folds, []
    for size in sizes.tolist():
        found.append(totals.index(min(totals)))
        totals[found[-1]] += size
    return found


def _consecutive(sizes: NDArray[np.int64], n_folds: int) -> list[int]:
    """The fold of each unit (n_units,) of these sizes, in order; a fold ends where its share of the structures does."""
    middle = np.cumsum(sizes) - sizes / 2
    found = np.minimum(middle * n_folds // sizes.sum(), n_folds - 1).astype(np.int64)
    # A unit that is larger than a share may leave folds without any: each takes the next unit, or leaves one for later.
    n = len(sizes)
    for i in range(n):
        found[i] = min(max(found[i], n_folds - (n - i)), found[i - 1] + 1 if i else 0)
    return found.tolist()


def _first(order: NDArray[np.int64], wanted: int, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The first of an order, with all their copies; a group of copies that is too large for the rest is left out."""
    chosen = np.zeros(len(order), dtype=bool)
    sizes = np.bincount(labels, minlength=len(order))
    count = 0
    for i in order:
        size = sizes[labels[i]]
        if not chosen[i] and count + size <= wanted:
            chosen[i if size == 1 else labels == labels[i]] = True
            count += size
        if count == wanted:
            break
    if not count:
        smallest = order[sizes[labels[order]].argmin()]
        chosen = labels == labels[smallest]
    return chosen


def _by_composition(
    structures: Structures, wanted: int, labels: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.bool_]:
    formulas = np.array([atoms.get_chemical_formula() for atoms in structures.atoms])
    groups = np.unique(formulas)
    if len(groups) < 2:
        raise BadInput(
            f"{structures.source}: all structures have the formula {groups[0]}; use the validation split 'random'"
        )
    together = _with_repeated_cells(formulas, labels)
    order = list(dict.fromkeys(together[formula] for formula in random.permutation(groups)))
    if len(order) < 2:
        raise BadInput(
            f"{structures.source}: all formulas have repeated cells of one another; use the validation split 'random'"
        )
    kinds = np.array([together[formula] for formula in formulas])
    validation = np.zeros(len(formulas), dtype=bool)
    for kind in order[:-1]:
        if validation.sum() >= wanted:
            break
        validation |= kinds == kind
    return validation


def _with_repeated_cells(formulas: NDArray[np.str_], labels: NDArray[np.int64]) -> dict[str, str]:
    """For each formula one for all that share copies with it, as a repeated cell has another formula."""
    together = {str(formula): str(formula) for formula in formulas}
    for label, formula in zip(labels.tolist(), formulas, strict=True):
        mine, first = together[formula], together[formulas[label]]
        if mine != first:
            together = {key: first if value == mine else value for key, value in together.items()}
    return together
