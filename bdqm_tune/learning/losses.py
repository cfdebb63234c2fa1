"""The loss of an error: absolute, squared, or Huber's, squared near 0 and absolute beyond."""

import math

from torch import nn

from bdqm_tune.config.config import Training


def transition(training: Training, scale: float) -> float:
    """The error, in units of the scaled targets, from which the loss is absolute: 0 for mae, infinite for mse.

    Below a finite one δ > 0 the loss of an error e is e²/(2δ), beyond it |e| - δ/2, so that it tends to the absolute
    one for small δ (Huber, Ann. Math. Statist. 35, 73 (1964), divided by δ). An infinite one is for e².

    Args:
        scale: eV of one unit.
    """
    match training.loss:
        case "mae":
            return 0.0
        case "mse":
            return math.inf
        case "huber":
            return training.huber_delta / scale


def make_loss(training: Training, scale: float) -> nn.Module:
    """The same as a module of torch, the mean over all errors. Args as `transition`."""
    match training.loss:
        case "mae":
            return nn.L1Loss()
        case "mse":
            return nn.MSELoss()
        case "huber":
            return nn.SmoothL1Loss(beta=transition(training, scale))
