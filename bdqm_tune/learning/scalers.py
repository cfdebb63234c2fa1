"""Feature scalers: from features to dimensionless inputs of a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Scaling = Literal["whiten", "standardise", "normalise", "log"]
# Gives features (n_atoms, n_features) and atomic numbers (n_atoms,) piece by piece; each call starts from the first.
Pieces = Callable[[], Iterable[tuple[NDArray[np.float64], NDArray[np.int64]]]]
ALL = 0  # in the place of an atomic number: all elements
# Spread of a feature below which it counts as constant. Symmetry functions of neighbours that are never there reach
# 1e-136; divided by that, a derivative is infinite in single precision, which ends at 1e-38.
NEGLIGIBLE = 1e-20
FLOORS = (1e-3, 0.1)  # of the variance along an axis, the mean being 1, with many atoms and with few
ROUNDING = 1e-12  # eigenvalue of a correlation matrix, the mean being 1, below which it is rounding


class Scaler(Protocol):
    """Features → inputs of a network, atom by atom."""

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Inputs (n_atoms, n_features), dimensionless, from features of that shape and atomic numbers (n_atoms,)."""
        ...

    def by_features(
        self, by_inputs: NDArray[np.float64], features: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Derivatives (n_atoms, n_features) of a quantity by the features, from those by the inputs."""
        ...

    def of_inputs(
        self, of_features: NDArray[np.float64], features: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Derivatives (n, k, n_features) of the inputs by any k numbers, from those of the features.

        Args:
            features: (n, n_features) of the atom whose derivatives they are, for each of them.
            numbers: (n,) its atomic number.
        """
        ...

    def outside(self, inputs: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """How far inputs (n_atoms, n_features) lie outside the range that they have in the training split, (n_atoms,).

        In widths of that range, along the axis where it is most; 0: within it. None: the range is not known.
        """
        ...

    @property
    def key(self) -> bytes:
        """Identifies the scaler among those for as many features."""
        ...


@dataclass(frozen=True)
class FeatureScaler:
    """(x - offset) / divisor; with `floor`, log(max(x, 0) + floor) in the place of x; then a product with `matrix`."""

    offset: NDArray[np.float64]  # (n_features,)
    divisor: NDArray[np.float64]  # (n_features,), positive
    floor: NDArray[np.float64] | None = None  # (n_features,), positive; None: no logarithm
    matrix: NDArray[np.float64] | None = None  # (n_features, n_features); None: no product
    # (2, n_features): least and greatest in the training split, of x or its logarithm, and of the product; or unknown
    range: NDArray[np.float64] | None = None
    axes: NDArray[np.float64] | None = None

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        values = features if self.floor is None else np.log(np.maximum(features, 0) + self.floor)
        scaled = (values - self.offset) / self.divisor
        return scaled if self.matrix is None else scaled @ self.matrix

    def by_features(
        self,
        by_inputs: NDArray[np.float64],
        features: NDArray[np.float64],
        numbers: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float64]:
        by_scaled = by_inputs if self.matrix is None else by_inputs @ self.matrix.T
        return by_scaled * self._slope(features)

    def of_inputs(
        self,
        of_features: NDArray[np.float64],
        features: NDArray[np.float64],
        numbers: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float64]:
        of_scaled = of_features * self._slope(features)[:, None, :]
        return of_scaled if self.matrix is None else of_scaled @ self.matrix

    def outside(
        self, inputs: NDArray[np.float64], numbers: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64] | None:
        if self._limits is None:
            return None
        lowest, highest, width = self._limits
        beyond = np.maximum(lowest - inputs, inputs - highest) / width
        return beyond.max(axis=1, initial=0.0)

    @cached_property
    def _limits(self) -> tuple[NDArray[np.float64], ...] | None:
        """Least and greatest of each input in the training split, and its width; None: not known."""
        limits = self.axes
        if self.matrix is None and self.range is not None:
            limits = (self.range - self.offset) / self.divisor
        if limits is None:
            return None
        width = limits[1] - limits[0]
        # A constant feature has no width; another value of it counts by its own size.
        return limits[0], limits[1], np.where(width > 0, width, 1.0)

    def _slope(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative (n_atoms, n_features) of each feature, before the product with the matrix, by itself."""
        if self.floor is None:
            return np.broadcast_to(1 / self.divisor, features.shape)
        return np.where(features > 0, 1 / (np.maximum(features, 0) + self.floor), 0.0) / self.divisor

    @property
    def key(self) -> bytes:
        parts = (self.offset, self.divisor, self.floor, self.matrix)
        return b"|".join(b"" if part is None else part.tobytes() for part in parts)


@dataclass(frozen=True)
class ElementScaler:
    """A `FeatureScaler` for each element."""

    per_element: Mapping[int, FeatureScaler]  # by atomic number
    others: FeatureScaler  # for elements that the training split does not have

    def __call__(self, features: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._joined(features.shape, numbers, lambda scaler, own: scaler(features[own]))

    def by_features(
        self, by_inputs: NDArray[np.float64], features: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return self._joined(
            features.shape, numbers, lambda scaler, own: scaler.by_features(by_inputs[own], features[own])
        )

    def of_inputs(
        self, of_features: NDArray[np.float64], features: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return self._joined(
            of_features.shape, numbers, lambda scaler, own: scaler.of_inputs(of_features[own], features[own])
        )

    def outside(self, inputs: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64] | None:
        result = np.zeros(len(inputs))
        for z in set(numbers.tolist()):
            own = numbers == z
            if (beyond := self.per_element.get(z, self.others).outside(inputs[own])) is None:
                return None
            result[own] = beyond
        return result

    @property
    def key(self) -> bytes:
        own = [str(z).encode() + b":" + scaler.key for z, scaler in sorted(self.per_element.items())]
        return b"".join([self.others.key, *own])

    def _joined(
        self,
        shape: tuple[int, ...],
        numbers: NDArray[np.int64],
        part: Callable[[FeatureScaler, NDArray[np.bool_]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """An array of this shape, whose rows of each element `part` gives from its scaler and which rows they are."""
        result = np.empty(shape)
        for z in set(numbers.tolist()):
            own = numbers == z
            result[own] = part(self.per_element.get(z, self.others), own)
        return result


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
    pieces: Pieces,
    scaling: Scaling,
    limits: tuple[float, float] = (0.0, 1.0),
    per_element: bool = False,
    axis_floor: float | Literal["auto"] = "auto",
    logarithm: bool = True,
) -> Scaler:
    """Fit a scaler to the columns of features.

    Args:
        pieces: gives all features in pieces; called once, with `log` twice, with `whiten` four times at most.
        scaling: `standardise` brings each column to mean 0 and standard deviation 1; `log` does so with log(x + floor),
            the floor being a thousandth of the column's mean; `normalise` brings it to `limits`; `whiten` standardises
            log(x + mean of the column), or x where a feature is negative, then turns to the principal axes and divides
            by the deviation along each (Lee et al., Comput. Phys. Commun. 242, 95 (2019)), see `_whitening`. This
            logarithm is nearly linear below the mean, and keeps the few atoms far above it near the others.
        limits: lowest and highest value of a normalised column.
        per_element: a scaler for the atoms of each element.
        axis_floor: of `whiten`, see `_whitening`; auto: the share of a covariance that so few atoms do not determine,
            by `_shrinkage`, within `FLOORS`.
        logarithm: of `whiten`: False keeps x where it is never negative, too.
    """
    by_element = _columns(pieces, per_element, {})
    if scaling == "log" or (scaling == "whiten" and logarithm and not any(map(_is_negative, by_element.values()))):
        share = 1e-3 if scaling == "log" else 1.0
        floors = {
            z: np.where(columns.mean > NEGLIGIBLE, share * columns.mean, 1.0) for z, columns in by_element.items()
        }
        by_element = _columns(pieces, per_element, floors)
    scalers = {z: _scaler(columns, scaling, limits) for z, columns in by_element.items()}
    if scaling == "whiten":
        varying = {z: ~_is_constant(columns, columns.deviation) for z, columns in by_element.items()}
        scalers = _whitened(pieces, scalers, varying, axis_floor)
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


def _is_negative(columns: Columns) -> bool:
    """Whether a feature is negative, by more than rounding."""
    return bool((columns.lowest < -1e-9 * np.maximum(columns.highest, 0)).any())


def _is_constant(columns: Columns, spread: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which columns do not vary: they carry nothing, and rounding alone must not blow them up."""
    return spread <= np.maximum(1e-9 * np.maximum(np.abs(columns.lowest), np.abs(columns.highest)), NEGLIGIBLE)


def _scaler(columns: Columns, scaling: Scaling, limits: tuple[float, float]) -> FeatureScaler:
    lowest, highest = columns.lowest, columns.highest
    spread = highest - lowest if scaling == "normalise" else columns.deviation
    constant, limits_of = _is_constant(columns, spread), np.stack([lowest, highest])
    if scaling == "normalise":
        divisor = np.where(constant, 1.0, spread / (limits[1] - limits[0]))
        return FeatureScaler(lowest - limits[0] * divisor, divisor, range=limits_of)
    return FeatureScaler(columns.mean, np.where(constant, 1.0, spread), columns.floor, range=limits_of)


def _whitened(
    pieces: Pieces,
    scalers: Mapping[int, FeatureScaler],
    varying: Mapping[int, NDArray[np.bool_]],
    axis_floor: float | Literal["auto"],
) -> dict[int, FeatureScaler]:
    """The same scalers, each followed by the whitening of what it gives."""
    products = {z: np.zeros((len(scaler.offset),) * 2) for z, scaler in scalers.items()}
    for features, numbers in pieces():
        for z, scaler in scalers.items():
            scaled = scaler(features if z == ALL else features[numbers == z])
            products[z] += scaled.T @ scaled
    whitened = {
        z: replace(scaler, matrix=_whitening(products[z], varying[z], axis_floor)) for z, scaler in scalers.items()
    }
    limits = {
        z: np.stack([np.full(len(s.offset), np.inf), np.full(len(s.offset), -np.inf)]) for z, s in scalers.items()
    }
    for features, numbers in pieces():
        for z, scaler in whitened.items():
            inputs = scaler(features if z == ALL else features[numbers == z])
            limits[z][0] = np.minimum(limits[z][0], inputs.min(axis=0, initial=np.inf))
            limits[z][1] = np.maximum(limits[z][1], inputs.max(axis=0, initial=-np.inf))
    return {z: replace(scaler, axes=limits[z]) for z, scaler in whitened.items()}


def _whitening(
    products: NDArray[np.float64], varying: NDArray[np.bool_], axis_floor: float | Literal["auto"]
) -> NDArray[np.float64]:
    """The matrix (n_features, n_features) that brings standardised features to uncorrelated ones of variance 1.

    Its columns are the eigenvectors of the correlation matrix over the roots of their eigenvalues λ (principal axes).
    Descriptors are almost linearly dependent: λ falls over fourteen orders of magnitude, and what an atom off the
    training split has along the small axes would be blown up. So λ counts as `axis_floor` times the mean λ, which is 1,
    at least. An axis of rounding alone is left out: its column is 0.

    Args:
        products: (n_features, n_features) sums of the products of standardised features.
        varying: (n_features,) which features vary; the others have no part in the inputs.
    """
    matrix = np.zeros(products.shape)
    if varying.any():
        n_atoms = np.diag(products)[varying].mean()  # the mean square of a standardised feature is 1
        correlations = products[np.ix_(varying, varying)] / n_atoms
        floor = axis_floor
        if axis_floor == "auto":
            floor = float(np.clip(_shrinkage(correlations, n_atoms), *FLOORS))
        eigenvalues, axes = np.linalg.eigh(correlations)
        # An eigenvector's sign is the library's; the same on all machines makes the same training.
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))])
        scaled = axes / np.sqrt(np.maximum(eigenvalues, floor)) * (eigenvalues > ROUNDING)
        matrix[np.ix_(varying, np.arange(len(axes)))] = scaled[:, ::-1]
    return matrix


def _shrinkage(correlations: NDArray[np.float64], n: float) -> float:
    """The share ρ by which a covariance of n samples is best mixed with its mean variance, from 0 to 1.

    Oracle approximating shrinkage (Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Process. 58, 5016 (2010), equation
    23, for many features, as scikit-learn has it): an eigenvalue λ becomes (1 - ρ)·λ + ρ·(mean λ), so that those below
    ρ are noise.
    """
    p = len(correlations)
    squares, square = float((correlations**2).sum()), float(np.trace(correlations)) ** 2
    spread = (n + 1) * (squares - square / p)
    return min(1.0, (squares + square) / spread) if spread > 0 else 1.0
