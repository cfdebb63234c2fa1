"""Training and validation split of one file."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.structures.read import Structures


def split_indices(
    structures: Structures, fraction: float, method: Literal["random", "composition"], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and of the validation structures, each in ascending order.

    Args:
        fraction: share of the validation split, in (0, 1); it gets at least one structure.
        method: `random`, or `composition`: whole chemical formulas go to validation, in random order,
            until it has its share.
        seed: of the order.

    Raises:
        BadInput: fewer than two structures, or than two formulas.
    """
    n = len(structures)
    if n < 2:
        raise BadInput(
            f"{structures.source}: needs at least 2 structures, one to train on and one to validate; got {n}"
        )
    wanted = min(max(1, round(fraction * n)), n - 1)
    random = np.random.default_rng(seed)
    if method == "random":
        order = random.permutation(n)
        return np.sort(order[wanted:]), np.sort(order[:wanted])
    formulas = np.array([atoms.get_chemical_formula() for atoms in structures.atoms])
    groups = np.unique(formulas)
    if len(groups) < 2:
        raise BadInput(
            f"{structures.source}: all structures have the formula {groups[0]}; use the validation split 'random'"
        )
    validation = np.zeros(n, dtype=bool)
    for formula in random.permutation(groups)[:-1]:
        if validation.sum() >= wanted:
            break
        validation |= formulas == formula
    return np.flatnonzero(~validation), np.flatnonzero(validation)
