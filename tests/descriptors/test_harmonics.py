"""Solid harmonics against those of sphericart."""

import numpy as np
import pytest
from sphericart import SolidHarmonics

from bdqm_tune.descriptors.harmonics import solid_harmonics


@pytest.mark.parametrize("l_max", [0, 1, 2, 3, 9])
def test_they_are_those_of_sphericart(l_max: int) -> None:
    vectors = np.random.default_rng(l_max).normal(scale=2, size=(50, 3))
    vectors[:4] = [[0, 0, 1], [0, 0, -2], [1.5, 0, 0], [0, -1, 0]]
    harmonics, slopes = solid_harmonics(vectors, l_max, with_slopes=True)
    expected, expected_slopes = SolidHarmonics(l_max).compute_with_gradients(vectors)
    scale = np.linalg.norm(vectors, axis=1)[:, None] ** np.repeat(range(l_max + 1), 2 * np.arange(l_max + 1) + 1)
    assert (np.abs(harmonics - expected) <= 1e-13 * scale).all()
    assert (np.abs(slopes - expected_slopes) <= 1e-12 * scale[:, None]).all()


def test_without_slopes_they_are_the_same() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    harmonics, slopes = solid_harmonics(vectors, 4)
    assert np.array_equal(harmonics, solid_harmonics(vectors, 4, with_slopes=True)[0])
    assert slopes.shape == (20, 3, 0)


def test_no_vectors_have_none() -> None:
    harmonics, slopes = solid_harmonics(np.zeros((0, 3)), 3, with_slopes=True)
    assert harmonics.shape == (0, 16)
    assert slopes.shape == (0, 3, 16)


def test_opposite_vectors_cancel_exactly_in_odd_orders() -> None:
    vectors = np.random.default_rng(1).normal(size=(20, 3))
    total = solid_harmonics(vectors, 5)[0] + solid_harmonics(-vectors, 5)[0]
    for l in (1, 3, 5):
        assert (total[:, l * l : (l + 1) ** 2] == 0).all()
