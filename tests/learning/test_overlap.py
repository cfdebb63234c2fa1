"""What test and training structures share: found among many, whatever the order of atoms, and fast."""

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from bdqm_tune.descriptors import stored_features
from bdqm_tune.learning import overlap
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.overlap import NEAR, Overlap, find_overlap, fingerprints, median_distance, nearest_of
from bdqm_tune.structures import Geometries, Unlabelled


def prints(given: Geometries, dataset: Dataset, folder: Path) -> NDArray[np.float64]:
    numbers = np.concatenate([atoms.numbers for atoms in given.atoms])
    return fingerprints(stored_features(given, dataset.descriptor, folder), numbers, dataset.scaler)


def compared(images: list[Atoms], dataset: Dataset, folder: Path) -> Overlap:
    test = Unlabelled("test", images, 100 + np.arange(len(images)), "0")
    train = dataset.train.described.structures
    return find_overlap(test, prints(test, dataset, folder), train, prints(train, dataset, folder))


def test_copies_are_found_with_their_indices(dataset: Dataset, tmp_path: Path) -> None:
    train = dataset.train.described.structures.atoms
    copy, rounded, moved, turned, twice, other = (train[i].copy() for i in (3, 5, 7, 9, 11, 13))
    rounded.positions = np.round(rounded.positions, 4)
    moved = moved[np.random.default_rng(0).permutation(len(moved))]
    moved.positions += 0.7
    turned.rotate(40, "x", rotate_cell=True)
    twice = twice.repeat((2, 1, 1))
    other.positions += np.random.default_rng(1).normal(scale=0.3, size=other.positions.shape)
    found = compared([copy, rounded, moved, turned, twice, other], dataset, tmp_path)
    assert found.table["image"].tolist() == [100, 101, 102, 103, 104, 105]
    assert found.table["nearest"].tolist()[:5] == [3, 5, 7, 9, 11]
    assert found.table["overlap"].tolist() == ["same", "same", "same", "same", "same", "no"]
    assert found.table["distance"].to_numpy()[:5] == pytest.approx(np.zeros(5), abs=1e-2)
    assert found.table["distance"][5] > found.threshold
    counts = found.metrics()
    assert (counts["overlap_same"], counts["overlap_near"]) == (5, 0)


def test_the_threshold_is_a_share_of_distances_in_the_training_file(dataset: Dataset, tmp_path: Path) -> None:
    train = dataset.train.described.structures
    found = compared([train.atoms[0]], dataset, tmp_path)
    columns = prints(train, dataset, tmp_path)
    columns = columns / columns.std(axis=0) / np.sqrt(columns.shape[1])
    pairs = cdist(columns, columns)[np.triu_indices(len(columns), 1)]
    assert found.threshold == pytest.approx(NEAR * np.median(pairs))


def test_the_nearest_is_that_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    queries, points = random.normal(size=(70, 9)), random.normal(size=(130, 9))
    monkeypatch.setattr(overlap, "AT_ONCE", 1000)  # seven queries at a time
    nearest, distance = nearest_of(queries, points)
    distances = cdist(queries, points)
    assert nearest.tolist() == distances.argmin(axis=1).tolist()
    assert distance == pytest.approx(distances.min(axis=1))
    assert median_distance(points) == pytest.approx(np.median(cdist(points, points)[np.triu_indices(130, 1)]))


def test_columns_that_are_all_alike_do_not_count() -> None:
    train = Unlabelled("train", [Atoms("Cu")] * 3, np.arange(3), "0")
    found = find_overlap(train, np.array([[1.0, 5.0]] * 3), train, np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]))
    assert np.isfinite(found.table["distance"]).all()


@pytest.mark.endurance
def test_ten_thousand_among_fifty_thousand_are_compared_in_a_minute() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(50_000, 64))
    start = time.perf_counter()
    nearest, distance = nearest_of(points[::5] + 1e-3, points)
    assert time.perf_counter() - start < 60
    assert (nearest == np.arange(0, 50_000, 5)).all()
    assert distance == pytest.approx(np.full(10_000, 8e-3), rel=1e-6)
