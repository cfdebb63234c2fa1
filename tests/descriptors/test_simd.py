"""Vectors in compiled functions: they do what the same operations of numpy do."""

import numba
import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.simd import WIDTH, add_to, exp, load, spread, store


@numba.njit
def _exp(x: NDArray[np.float64], found: NDArray[np.float64]) -> None:
    for place in range(0, len(x), WIDTH):
        store(found, place, exp(load(x, place)))


@numba.njit
def _arithmetic(a: NDArray[np.float64], b: NDArray[np.float64], number: float, found: NDArray[np.float64]) -> None:
    total = load(a, 1) * load(b, 0) - spread(number)
    total += load(b, 0)
    store(found, 1, total + load(a, 1))


@numba.njit
def _there_and_back(value: NDArray[np.float64], factor: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    add_to(sums, 0, load(value, 0) * load(factor, 0))
    add_to(sums, 0, load(value, 0) * (spread(0.0) - load(factor, 0)))


def test_exponentials_are_exact_to_rounding() -> None:
    x = -np.concatenate([np.linspace(0, 50, 4096), np.geomspace(1e-300, 708, 4096)])
    found = np.empty_like(x)
    _exp(x, found)
    np.testing.assert_allclose(found, np.exp(x), rtol=4.5e-16, atol=0)


def test_exponentials_at_the_ends_of_the_range() -> None:
    x = np.array([0.0, -0.0, -5e-324, -708.0, -709.0, -1e5, -1e300, -np.inf])
    found = np.empty_like(x)
    _exp(x, found)
    assert (found[:3] == 1).all()
    assert (found[3:] == found[3]).all()
    assert 0 < found[3] < 1e-307


def test_arithmetic_from_any_place_of_an_array() -> None:
    random = np.random.default_rng(0)
    a, b, found = random.normal(size=(3, WIDTH + 2))
    before = found.copy()
    _arithmetic(a, b, 0.5, found)
    inner = slice(1, WIDTH + 1)
    np.testing.assert_allclose(found[inner], a[inner] * b[:WIDTH] - 0.5 + b[:WIDTH] + a[inner], rtol=1e-13)
    assert found[0] == before[0]
    assert found[-1] == before[-1]


def test_what_is_equal_and_opposite_cancels_exactly() -> None:
    value, factor = np.random.default_rng(1).normal(size=(2, WIDTH))
    sums = np.zeros(WIDTH)
    _there_and_back(value, factor, sums)
    assert (sums == 0).all()


def test_without_a_place_for_the_cache_functions_are_compiled_all_the_same() -> None:
    # Numba finds no file for such a function.
    names: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x\n", names)
    assert compiled(names["double"])(3.0) == 6.0  # type: ignore[arg-type]
