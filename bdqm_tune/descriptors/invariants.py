"""Features from multipole moments: sums of the squares of some combinations of them, or the roots of these sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.moments import Channels

# Numba compiles one of these; the types are those that the others have.
# mypy: disable-error-code="no-untyped-def"

VANISHING = 1e-8  # a root below it gets the derivative 0; amptorch's value


@dataclass(frozen=True)
class Kind:
    """One feature a sigma: the sum of the squares of some combinations of the moments of one order."""

    order: int  # index of the order in `Channels.orders`
    rows: NDArray[np.float64]  # (n_combinations, n_moments of the order)


class Invariants(NamedTuple):
    """The kinds of features, one after the other, and what becomes of their sums of squares."""

    rows: NDArray[np.float64]  # (n_combinations, moments of an order at most), filled up with zeros
    start: NDArray[np.int64]  # (n_kinds + 1,) of each kind's combinations
    moment: NDArray[np.int64]  # (n_kinds,) the first of its order's moments
    first: NDArray[np.int64]  # (n_kinds,) the channels first[f]:last[f] are those of its moments
    last: NDArray[np.int64]  # (n_kinds,)
    place: NDArray[np.int64]  # (n_kinds + 1,) of its derivatives by its order's moments
    square: bool  # the sum of squares itself; else its root
    signed: bool  # in the place of the root of a single square, what was squared
    floor: float  # roots below it become 0


def arranged(kinds: Sequence[Kind], channels: Channels, square: bool, signed: bool, floor: float) -> Invariants:
    """The kinds of features as the loops take them."""
    widest = max(kind.rows.shape[1] for kind in kinds)
    return Invariants(
        np.concatenate([np.pad(kind.rows, [(0, 0), (0, widest - kind.rows.shape[1])]) for kind in kinds]),
        np.cumsum([0, *(len(kind.rows) for kind in kinds)]),
        np.array([channels.moments(kind.order).start for kind in kinds]),
        channels.of_order[[kind.order for kind in kinds]],
        channels.of_order[[kind.order + 1 for kind in kinds]],
        np.cumsum([0, *(kind.rows.shape[1] for kind in kinds)]),
        square,
        signed,
        floor,
    )


def evaluate(invariants: Invariants, moments: NDArray[np.float64], n_sigmas: int) -> NDArray[np.float64]:
    """Features (n_atoms, n_kinds·n_sigmas), kind by kind, of moments (n_moments, n_atoms, n_sigmas or more)."""
    features = np.empty((moments.shape[1], len(invariants.moment) * n_sigmas))
    _fill(invariants, moments, features, np.empty((0, 0, 0)))
    return features


def evaluate_with_gradient(
    invariants: Invariants, moments: NDArray[np.float64], n_sigmas: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same, and their derivatives (n_values, n_atoms, …) by the moments, of kind f at `place[f]:place[f + 1]`.

    At 0 a root has no derivative, and where it vanishes by symmetry up to rounding, the direction of the derivative
    would be arbitrary: below `VANISHING`, as below the floor, it is 0.
    """
    features = np.empty((moments.shape[1], len(invariants.moment) * n_sigmas))
    gradient = np.zeros((invariants.place[-1], *moments.shape[1:]))
    _fill(invariants, moments, features, gradient)
    return features, gradient


@compiled
def _fill(invariants, moments, features, gradient):
    """Write the features and, unless it is empty, add their derivatives to `gradient`.

    Not by BLAS, whose rounding may depend on how many columns there are and on the number of threads.
    """
    n_kinds, n_atoms = len(invariants.moment), moments.shape[1]
    n_sigmas = features.shape[1] // n_kinds
    most = np.max(invariants.start[1:] - invariants.start[:-1])
    combined, total, scale = np.empty((most, n_sigmas)), np.empty(n_sigmas), np.empty(n_sigmas)
    for f in range(n_kinds):
        start, moment, place = invariants.start[f], invariants.moment[f], invariants.place[f]
        n_combinations, n_moments = invariants.start[f + 1] - start, invariants.place[f + 1] - place
        signed = invariants.signed and n_combinations == 1
        for i in range(n_atoms):
            total[:] = 0.0
            for c in range(n_combinations):
                combined[c] = 0.0
                for m in range(n_moments):
                    factor = invariants.rows[start + c, m]
                    if factor != 0:
                        for s in range(n_sigmas):
                            combined[c, s] += factor * moments[moment + m, i, s]
                for s in range(n_sigmas):
                    total[s] += combined[c, s] * combined[c, s]
            for s in range(n_sigmas):
                value, scale[s] = total[s], 2.0  # derivatives are `scale` times what was squared
                if not invariants.square:
                    value = np.sqrt(value)
                    scale[s] = 1 / value if value >= max(invariants.floor, VANISHING) else 0.0
                    value = value if value >= invariants.floor else 0.0
                features[i, f * n_sigmas + s] = value
                if signed and not invariants.square:
                    features[i, f * n_sigmas + s] = combined[0, s]
                    combined[0, s], scale[s] = 1.0, 1.0
            if len(gradient) > 0:
                for c in range(n_combinations):
                    for m in range(n_moments):
                        factor = invariants.rows[start + c, m]
                        if factor != 0:
                            for s in range(n_sigmas):
                                gradient[place + m, i, s] += factor * (scale[s] * combined[c, s])
