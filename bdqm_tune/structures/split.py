"""Training and validation split of one file."""

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
