"""Activations in vector instructions: those of torch, to the rounding of their precision."""

import numpy as np
import pytest
import torch
from numpy.typing import DTypeLike

from bdqm_tune.learning.compiled.activations import ACTIVATION_CODES, activate
from bdqm_tune.learning.networks import ACTIVATIONS

POINTS = np.concatenate([np.linspace(-12, 12, 5001), [1e-4, -1e-4, 90, -90, 1e4, -1e4]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_derivatives_are_those_of_torch(name: str, dtype: DTypeLike) -> None:
    x = torch.tensor(POINTS.astype(dtype), dtype=torch.float64, requires_grad=True)
    expected = ACTIVATIONS[name]()(x)
    (slope,) = torch.autograd.grad(expected.sum(), x, create_graph=True)
    curvature = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(x)
    found = [np.empty(len(POINTS), dtype) for _ in range(3)]
    activate(ACTIVATION_CODES[name], POINTS.astype(dtype), *found, True)
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    for own, of_torch in zip(found, (expected, slope, curvature), strict=True):
        np.testing.assert_allclose(own, of_torch.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(name: str, dtype: DTypeLike) -> None:
    value, slope, curvature = (np.empty(20, dtype) for _ in range(3))
    activate(ACTIVATION_CODES[name], np.full(20, np.nan, dtype), value, slope, curvature, True)
    assert np.isnan(value).all()
