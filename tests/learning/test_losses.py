"""The loss of an error, and its derivative in the compiled epochs."""

import math

import numpy as np
import pytest
import torch

from bdqm_tune.config.config import Training
from bdqm_tune.learning.compiled.kernel import _loss
from bdqm_tune.learning.losses import make_loss, transition

SCALE = 2.5


def test_hubers_loss_is_squared_near_zero_and_absolute_beyond() -> None:
    training = Training(loss="huber", huber_delta=1.0)
    delta = transition(training, SCALE)
    assert delta == pytest.approx(0.4)  # 1 eV, of which a unit has 2.5
    for error, expected in ((0.0, 0.0), (0.2, 0.05), (0.4, 0.2), (-0.4, 0.2), (2.0, 1.8), (-2.0, 1.8)):
        assert _loss(error, delta)[0] == pytest.approx(expected)
    assert transition(Training(loss="mae"), SCALE) == 0
    assert transition(Training(loss="mse"), SCALE) == math.inf


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
def test_it_is_that_of_torch_and_the_derivative_that_of_the_loss(loss: str) -> None:
    training = Training(loss=loss, huber_delta=0.7)  # type: ignore[arg-type]
    ours, theirs = transition(training, SCALE), make_loss(training, SCALE)
    for error in np.linspace(-1.0, 1.0, 41) + 1e-3:
        value, slope = _loss(error, ours)
        given = torch.tensor(error, dtype=torch.float64, requires_grad=True)
        expected = theirs(given, torch.zeros_like(given))
        expected.backward()
        assert value == pytest.approx(float(expected.detach()), rel=1e-12)
        assert slope == pytest.approx(float(given.grad), rel=1e-12)  # type: ignore[arg-type]
