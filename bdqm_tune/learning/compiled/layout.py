"""A plain network's weights as one flat array, and where each is in it."""

from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.compiled.activations import ACTIVATION_CODES
from bdqm_tune.learning.compiled.passes import Net


def layout(network: nn.Module, hyperparameters: Hyperparameters) -> Net:
    """The layout of a network's weights, `weights` one after the other."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
    weights, biases, gains, place = [], [], [], 0
    for layer in linear:
        weights.append(place)
        biases.append(place + layer.weight.numel())
        gains.append(place + layer.weight.numel() + layer.out_features)
        place = gains[-1] + (2 * layer.out_features if hyperparameters.batchnorm else 0)
    rows = list(accumulate(widths[1:-1], initial=0))
    dropout = hyperparameters.dropout_rate if hyperparameters.dropout else 0.0
    places = {"widths": widths, "weights": weights, "biases": biases, "gains": gains, "rows": rows}
    return Net(
        **{name: np.array(values, dtype=np.int64) for name, values in places.items()},
        activation=ACTIVATION_CODES[hyperparameters.activation],
        batchnorm=hyperparameters.batchnorm,
        dropout=dropout,
    )


def weights(network: nn.Module) -> list[NDArray[Any]]:
    """The parameters in the order of `layout`, flat, in the network's own memory."""
    return [parameter.detach().numpy().reshape(-1) for parameter in network.parameters()]


def statistics(network: nn.Module) -> list[NDArray[Any]]:
    """The running mean and variance of each batch normalisation, in the network's own memory."""
    parts = [part for layer in normalisations(network) for part in (layer.running_mean, layer.running_var)]
    return [part.numpy() for part in parts if part is not None]


def normalisations(network: nn.Module) -> list[nn.BatchNorm1d]:
    """The layers of batch normalisation."""
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d)]


def joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """The parts, of which there may be none, one after the other in one new array."""
    return np.concatenate([np.zeros(0, dtype), *parts])
