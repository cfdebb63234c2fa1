"""Prediction intervals of a stated coverage, calibrated on held-out structures (split conformal prediction)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput


@dataclass(frozen=True)
class Calibration:
    """Split conformal prediction with normalised scores.

    The score of a structure is |error| / max(spread, floor · n_atoms). Of n scores, that of rank
    ceil((n + 1) · coverage) is the quantile q; the interval prediction ± q · max(spread, floor · n_atoms) then holds
    the true energy of a new structure with at least that probability, if the calibration structures and the new one
    are exchangeable and none was trained on. Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018),
    section 5.2; Angelopoulos and Bates, arXiv:2107.07511, section 2.3.

    The spread of a total energy grows with the size of the structure by itself. The floor, without which members that
    agree by chance would claim to be certain, must therefore grow with it too.
    """

    scores: NDArray[np.float64]  # (n,), ascending, dimensionless
    floor: float  # eV an atom
    coverage: float  # stated, in (0, 1)

    def __post_init__(self) -> None:
        check_coverage(self.coverage)
        if not (np.isfinite(self.scores).all() and (np.diff(self.scores) >= 0).all()):
            raise BadInput("the scores of a calibration must be finite, in ascending order")
        if not (self.floor > 0 and math.isfinite(self.floor)):
            raise BadInput(f"the floor of the spread must be above 0 eV an atom, got {self.floor}")
        rank_of(len(self.scores), self.coverage)

    @classmethod
    def fit(
        cls,
        errors: NDArray[np.float64],
        spreads: NDArray[np.float64],
        n_atoms: NDArray[np.int64],
        floor: float,
        coverage: float,
    ) -> "Calibration":
        """Calibrate on held-out structures.

        Args:
            errors, spreads: (n_structures,), eV.
            n_atoms: (n_structures,).
            floor: least spread, eV an atom, positive.
            coverage: in (0, 1).

        Raises:
            BadInput: a value outside its range, or too few structures for the coverage.
        """
        return cls(np.sort(scores(errors, spreads, n_atoms, floor)), floor, coverage)

    def quantile(self, coverage: float | None = None) -> float:
        """The factor of the spreads for an interval of this coverage; None: of the stated one. Raises as `rank_of`."""
        rank = rank_of(len(self.scores), self.coverage if coverage is None else coverage)
        return float(self.scores[rank - 1])

    def half_widths(self, spreads: NDArray[np.float64], n_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Half-widths of the intervals (n_structures,), eV, at the stated coverage; spreads (n_structures,), eV."""
        return self.quantile() * np.maximum(spreads, self.floor * n_atoms)


def scores(
    errors: NDArray[np.float64], spreads: NDArray[np.float64], n_atoms: NDArray[np.int64], floor: float
) -> NDArray[np.float64]:
    """Errors (n_structures,) in units of the spread, or of its floor where that is larger."""
    return np.abs(errors) / np.maximum(spreads, floor * n_atoms)


def rank_of(n: int, coverage: float) -> int:
    """Rank of the quantile among n scores, ceil((n + 1) · coverage).

    Raises:
        BadInput: the rank exceeds n, so that more scores are needed; or the coverage is not in (0, 1).
    """
    check_coverage(coverage)
    rank = _ceil((n + 1) * coverage)
    if rank > n:
        smallest = _ceil(coverage / (1 - coverage))
        lower = f", or a coverage of at most {math.floor(1000 * n / (n + 1)) / 1000:g}" if n else ""
        raise BadInput(
            f"a coverage of {coverage:g} needs at least {smallest} structures to calibrate on, there are {n}: "
            f"it takes a larger validation split{lower}"
        )
    return rank


def check_coverage(coverage: float) -> None:
    """Raise BadInput unless it lies between 0 and 1."""
    if not 0 < coverage < 1:
        raise BadInput(f"coverage must be between 0 and 1, as 0.9; got {coverage:g}")


def _ceil(value: float) -> int:
    # 0.9 / (1 - 0.9) is 9.000000000000002
    return math.ceil(round(value, 9))
