"""Feature scalers: what the network is given in the place of the features as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Scaling = Literal["standardise", "normalise", "log"]


class Scaler(Protocol):
    """Features as they are → features for a network, atom by atom and column by column."""

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scaled features (n_atoms, n_features), without unit, of atoms with these atomic numbers (n_atoms,)."""
        ...

    def slope(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Derivative (n_atoms, n_features) of each scaled feature by the feature."""
        ...


@dataclass(frozen=True)
class FeatureScaler:
    """(x - offset) / divisor; with `floor`, the logarithm of x above its floor stands in the place of x."""

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

    def _of(self, z: int) -> FeatureScaler:
        return self.per_element.get(int(z), self.others)


def fit_feature_scaler(
    features: NDArray[np.float64], scaling: Scaling, limits: tuple[float, float] = (0.0, 1.0)
) -> FeatureScaler:
    """Scaler fitted to the columns of `features` (n_atoms, n_features).

    Args:
        scaling: `standardise` brings each column to mean 0 and standard deviation 1; `log` does so with log(x + floor),
            the floor being a thousandth of the column's mean; `normalise` brings it to `limits`.
        limits: lowest and highest value of a normalised column.
    """
    floor = None
    if scaling == "log":
        average = features.mean(axis=0)
        floor = np.where(average > 0, 1e-3 * average, 1.0)
        features = np.log(np.maximum(features, 0) + floor)
    lowest, highest = features.min(axis=0), features.max(axis=0)
    spread = highest - lowest if scaling == "normalise" else features.std(axis=0)
    # A column that does not vary carries nothing; rounding alone must not blow it up.
    constant = spread <= 1e-9 * np.maximum(np.abs(lowest), np.abs(highest))
    if scaling == "normalise":
        divisor = np.where(constant, 1.0, spread / (limits[1] - limits[0]))
        return FeatureScaler(lowest - limits[0] * divisor, divisor)
    return FeatureScaler(features.mean(axis=0), np.where(constant, 1.0, spread), floor)


def fit_element_scaler(
    features: NDArray[np.float64],
    numbers: NDArray[np.int64],
    scaling: Scaling,
    limits: tuple[float, float] = (0.0, 1.0),
) -> ElementScaler:
    """A scaler fitted to the atoms of each element; `numbers` (n_atoms,) are atomic numbers."""
    return ElementScaler(
        {int(z): fit_feature_scaler(features[numbers == z], scaling, limits) for z in np.unique(numbers)},
        fit_feature_scaler(features, scaling, limits),
    )
