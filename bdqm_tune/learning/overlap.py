"""Overlap of the test split with the training file: the same, nearly the same, or other structures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import Descriptor, StoredFeatures, descriptor_from_options, stored_features
from bdqm_tune.learning.scalers import Scaler, fit_scaler
from bdqm_tune.structures import Geometries
from bdqm_tune.structures.copies import geometry_groups

NEAR = 0.05  # of the median distance of two structures of the training file
SAMPLE = 1000  # structures of the training file for that median, at most
AT_ONCE = 2**24  # distances that are held at once
SAME, NEARLY, NO = "same", "near", "no"


@dataclass(frozen=True)
class Overlap:
    """Overlap of the test split with the training file."""

    table: pd.DataFrame  # one row a test structure: image, nearest, distance, overlap (no, near or same)
    threshold: float  # distances below it are near

    def metrics(self) -> dict[str, float]:
        """Numbers of structures that are the same or near, the threshold, and the least distance."""
        kinds = self.table["overlap"]
        counts = {f"overlap_{kind}": float((kinds == kind).sum()) for kind in (SAME, NEARLY)}
        return {**counts, "overlap_threshold": self.threshold, "overlap_least": float(self.table["distance"].min())}


def find_overlap(
    test: Geometries, test_prints: NDArray[np.float64], train: Geometries, train_prints: NDArray[np.float64]
) -> Overlap:
    """Compare test structures with those of the training file, its validation split included.

    A structure is the same as another if `structures.equivalence.same_geometry` says so, whatever its energy. The
    distance of two is the root mean square difference of their fingerprints, each column in units of its standard
    deviation over the training file. It is near below `NEAR` times the median distance of two structures there.

    Args:
        test_prints, train_prints: `fingerprints` of the structures, (n_structures, 2 · n_features).
    """
    deviation = train_prints.std(axis=0)
    varying = deviation > 1e-9 * np.abs(train_prints).max(axis=0)
    scale = 1 / (deviation[varying] * np.sqrt(max(1, varying.sum())))
    points, queries = train_prints[:, varying] * scale, test_prints[:, varying] * scale
    nearest, distance = nearest_of(queries, points)
    threshold = NEAR * median_distance(points)
    overlap = np.where(distance < threshold, NEARLY, NO)
    labels = geometry_groups([*train.atoms, *test.atoms])
    of_train, of_test = np.split(labels, [len(train.atoms)])
    for i in np.flatnonzero(of_test < len(train.atoms)):
        overlap[i] = SAME
        if of_train[nearest[i]] != of_test[i]:  # the nearest may be another of the same fingerprint
            nearest[i] = of_test[i]
            distance[i] = np.linalg.norm(queries[i] - points[nearest[i]])
    table = {"image": test.images, "nearest": train.images[nearest], "distance": distance, "overlap": overlap}
    return Overlap(pd.DataFrame(table), threshold)


def default_features(trained: Geometries, home: Path) -> tuple[Descriptor, Scaler]:
    """A descriptor and the scaler of its features, to compare structures where a model has none."""
    options = DescriptorOptions()
    descriptor = descriptor_from_options(options)
    features = stored_features(trained, descriptor, home / "features")
    numbers = np.concatenate([atoms.numbers for atoms in trained.atoms]).astype(np.int64)
    pieces = lambda: ((piece.features, numbers[piece.rows]) for piece in features.pieces())  # noqa: E731
    return descriptor, fit_scaler(pieces, options.scaling)


def fingerprints(features: StoredFeatures, numbers: NDArray[np.int64], scaler: Scaler) -> NDArray[np.float64]:
    """Mean and standard deviation over a structure's atoms of their scaled features, (n_structures, 2 · n_features).

    They depend neither on the order of the atoms nor on how often a cell is repeated.

    Args:
        numbers: atomic numbers (total atoms,).
    """
    rows = []
    for piece in features.pieces():
        scaled, count = scaler(piece.features, numbers[piece.rows]), features.count[piece.structures]
        first = np.cumsum(count) - count
        mean = np.add.reduceat(scaled, first) / count[:, None]
        centred = scaled - np.repeat(mean, count, axis=0)
        rows.append(np.hstack([mean, np.sqrt(np.add.reduceat(centred**2, first) / count[:, None])]))
    return np.concatenate(rows)


def nearest_of(
    queries: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index (n,) of the nearest of the points (m, d) to each of the queries (n, d), and its distance (n,).

    By products of matrices, some queries at a time: in so many dimensions, trees visit nearly every point too.
    """
    squares = np.einsum("ij,ij->i", points, points)
    nearest = np.empty(len(queries), dtype=np.int64)
    at_once = max(1, AT_ONCE // len(points))
    for first in range(0, len(queries), at_once):
        some = slice(first, first + at_once)
        nearest[some] = (squares - 2 * queries[some] @ points.T).argmin(axis=1)
    return nearest, np.linalg.norm(queries - points[nearest], axis=1)


def median_distance(points: NDArray[np.float64]) -> float:
    """Median distance of two of the points (m, d), of `SAMPLE` of them at most, drawn at random with a fixed seed."""
    some = points[np.random.default_rng(0).permutation(len(points))[:SAMPLE]]
    squares = np.einsum("ij,ij->i", some, some)
    pairs = np.triu_indices(len(some), 1)
    distances = np.maximum(squares[:, None] + squares - 2 * some @ some.T, 0)[pairs]
    return float(np.median(np.sqrt(distances)))
