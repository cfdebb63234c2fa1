"""Feature scalers: from features to dimensionless inputs of a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Scaling = Literal["standardise", "normalise", "log"]
# Gives features (n_atoms, n_features) and atomic numbers (n_atoms,) piece by piece; each call starts from the first.
Pieces = Callable[[], Iterable[tuple[NDArray[np.float64], NDArray[np.int64]]]]
ALL = 0  # in the place of an atomic number: all elements


class Scaler(Protocol):
    """Unscaled → scaled features, atom by atom and column by column."""

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scaled features (n_atoms, n_features), dimensionless, of atoms with these atomic numbers (n_atoms,)."""
        ...

    def slope(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Derivative (n_atoms, n_features) of each scaled feature by the feature."""
        ...

    @property
    def key(self) -> bytes:
        """Identifies the scaler among those for as many features."""
        ...


@dataclass(frozen=True)
class FeatureScaler:
    """(x - offset) / divisor; with `floor`, log(max(x, 0) + floor) in the place of x."""

    offset: NDArray[np.float64]  # (n_features,)
    divisor: NDArray[np.float64]  # (n_features,), positive
    floor: NDArray[np.float64] | None = None  # (n_features,), positive; None: no logarithm

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        values = features if self.floor is None else np.log(np.maximum(features, 0) + self.floor)
        return (values - self.offset) / self.divisor

    def slope(self, features: NDArray[np.float64], numbers: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        if self.floor is None:
            return np.tile(1 / self.divisor, (len(features), 1))
        return np.where(features > 0, 1 / (np.maximum(features, 0) + self.floor), 0.0) / self.divisor

    @property
    def key(self) -> bytes:
        return self.offset.tobytes() + self.divisor.tobytes() + (b"" if self.floor is None else self.floor.tobytes())


@dataclass(frozen=True)
class ElementScaler:
    """A `FeatureScaler` for each element."""

    per_element: Mapping[int, FeatureScaler]  # by atomic number
    others: FeatureScaler  # for elements that the training split does not have

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        scaled = np.empty(features.shape)
        for z in np.unique(numbers):
            scaled[numbers == z] = self._of(z)(features[numbers == z])
        return scaled

    def slope(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        slope = np.empty(features.shape)
        for z in np.unique(numbers):
            slope[numbers == z] = self._of(z).slope(features[numbers == z])
        return slope

    @property
    def key(self) -> bytes:
        own = [str(z).encode() + b":" + scaler.key for z, scaler in sorted(self.per_element.items())]
        return b"".join([self.others.key, *own])

    def _of(self, z: int) -> FeatureScaler:
        return self.per_element.get(int(z), self.others)


class Columns:
    """Mean, standard deviation and range of columns, from rows in pieces.

    Means and squared deviations of pieces are combined by the formulas of Chan, Golub and LeVeque (The American
    Statistician 37, 242 (1983)), which avoid the cancellation of a sum of squares.
    """

    def __init__(self, floor: NDArray[np.float64] | None = None) -> None:
        """
        Args:
            floor: as that of a `FeatureScaler`.
        """
        self.floor, self._n = floor, 0

    def add(self, features: NDArray[np.float64]) -> None:
        """Add rows (n, n_features), at least one."""
        values = features if self.floor is None else np.log(np.maximum(features, 0) + self.floor)
        n, mean = len(values), values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        lowest, highest = values.min(axis=0), values.max(axis=0)
        if not self._n:
            self.mean, self._squares, self.lowest, self.highest = mean, squares, lowest, highest
        else:
            apart, share = mean - self.mean, n / (self._n + n)
            self.mean = self.mean + apart * share
            self._squares = self._squares + squares + apart**2 * self._n * share
            self.lowest, self.highest = np.minimum(self.lowest, lowest), np.maximum(self.highest, highest)
        self._n += n

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation (n_features,)."""
        return np.sqrt(self._squares / self._n)


def fit_scaler(
    pieces: Pieces, scaling: Scaling, limits: tuple[float, float] = (0.0, 1.0), per_element: bool = False
) -> Scaler:
    """Fit a scaler to the columns of features.

    Args:
        pieces: gives all features in pieces; called once, with `log` twice.
        scaling: `standardise` brings each column to mean 0 and standard deviation 1; `log` does so with log(x + floor),
            the floor being a thousandth of the column's mean; `normalise` brings it to `limits`.
        limits: lowest and highest value of a normalised column.
        per_element: a scaler for the atoms of each element.
    """
    by_element = _columns(pieces, per_element, {})
    if scaling == "log":
        floors = {z: np.where(columns.mean > 0, 1e-3 * columns.mean, 1.0) for z, columns in by_element.items()}
        by_element = _columns(pieces, per_element, floors)
    scalers = {z: _scaler(columns, scaling, limits) for z, columns in by_element.items()}
    others = scalers.pop(ALL)
    return ElementScaler(scalers, others) if per_element else others


def _columns(pieces: Pieces, per_element: bool, floors: Mapping[int, NDArray[np.float64]]) -> dict[int, Columns]:
    """The columns of all atoms, under `ALL`, and of those of each element."""
    by_element = {ALL: Columns(floors.get(ALL))}
    for features, numbers in pieces():
        by_element[ALL].add(features)
        for z in np.unique(numbers).tolist() if per_element else ():
            by_element.setdefault(z, Columns(floors.get(z))).add(features[numbers == z])
    return by_element


def _scaler(columns: Columns, scaling: Scaling, limits: tuple[float, float]) -> FeatureScaler:
    lowest, highest = columns.lowest, columns.highest
    spread = highest - lowest if scaling == "normalise" else columns.deviation
    # A column that does not vary carries nothing; rounding alone must not blow it up.
    constant = spread <= 1e-9 * np.maximum(np.abs(lowest), np.abs(highest))
    if scaling == "normalise":
        divisor = np.where(constant, 1.0, spread / (limits[1] - limits[0]))
        return FeatureScaler(lowest - limits[0] * divisor, divisor)
    return FeatureScaler(columns.mean, np.where(constant, 1.0, spread), columns.floor)
