"""Forward through a network, and backward for the gradient by its weights or its features.

Rows are nodes and columns atoms, so that what is done to every atom is done to neighbours in memory; the products are
BLAS's.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled, compiled_fast
from bdqm_tune.learning.fused.activations import activate

EPSILON, MOMENTUM = 1e-5, 0.1  # of batch normalisation, as torch has them


class Net(NamedTuple):
    """Where the numbers of a network stand in one flat array, and what is between its layers."""

    widths: NDArray[np.int64]  # (L + 2,) features, nodes of each of L hidden layers, 1
    weights: NDArray[np.int64]  # (L + 1,) place of each layer's weights, row-major (nodes, nodes before)
    biases: NDArray[np.int64]  # (L + 1,)
    gains: NDArray[np.int64]  # (L,) of batch normalisation; its shifts follow
    rows: NDArray[np.int64]  # (L + 1,) nodes in hidden layers before this one, where its values stand for an atom
    activation: int
    batchnorm: bool
    dropout: float  # share of the nodes that are left out in training


class Work(NamedTuple):
    """Memory for the passes of a tile: flat arrays of a number for each hidden node and atom."""

    value: NDArray[Any]  # of the activation
    slope: NDArray[Any]
    curvature: NDArray[Any]
    before: NDArray[Any]  # what enters the activation, or with batch normalisation what is normalised
    tangent: NDArray[Any]  # of the values
    inner: NDArray[Any]  # tangent of what enters the activation
    product: NDArray[Any]  # tangent of the weights' product
    deviation: NDArray[Any]  # (hidden nodes,) 1 / standard deviation, of batch normalisation
    adjoint: NDArray[Any]  # of one layer
    second: NDArray[Any]
    third: NDArray[Any]
    fourth: NDArray[Any]


def make_work(widths: list[int], atoms: int, dtype: Any) -> Work:
    """Memory for tiles of at most so many atoms through hidden layers of these widths."""
    sizes = dict.fromkeys(Work._fields[:7], sum(widths) * atoms) | {"deviation": sum(widths)}
    sizes |= dict.fromkeys(Work._fields[8:], max(widths) * atoms)
    return Work(**{name: np.empty(size, dtype) for name, size in sizes.items()})


@compiled
def matrix(flat, start, n_rows, n_columns):  # type: ignore[no-untyped-def]
    """A matrix in a flat array."""
    return flat[start : start + n_rows * n_columns].reshape((n_rows, n_columns))


@compiled
def of_layer(flat, net, layer, atoms):  # type: ignore[no-untyped-def]
    """The values (nodes, atoms) of a hidden layer."""
    return matrix(flat, net.rows[layer] * atoms, net.widths[layer + 1], atoms)


@compiled_fast
def forward(net, p, running, x, work, energies, train, curved, seed):  # type: ignore[no-untyped-def]
    """From features x (atoms, features) to energies (atoms,), keeping what the other passes need.

    Args:
        running: means and variances of batch normalisation, layer after layer; moved on in training.
        curved: keep the curvature of the activations as well.
        seed: of dropout.
    """
    atoms, last = len(x), len(net.widths) - 2
    for layer in range(last):
        width, start = net.widths[layer + 1], net.rows[layer] * atoms
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        y = of_layer(work.before, net, layer, atoms)
        if layer == 0:
            np.dot(weights, x.T, y)
        else:
            np.dot(weights, of_layer(work.value, net, layer - 1, atoms), y)
        bias = net.biases[layer]
        for j in range(width):
            for a in range(atoms):
                y[j, a] += p[bias + j]
        stop = start + width * atoms
        entering = work.before[start:stop]
        if net.batchnorm:
            entering = work.inner[start:stop]
            _normalise(net, p, running, layer, y, matrix(entering, 0, width, atoms), work.deviation, train)
        value, slope, curvature = work.value[start:stop], work.slope[start:stop], work.curvature[start:stop]
        activate(net.activation, entering, value, slope, curvature, curved)
        if train and net.dropout > 0:
            _drop(net.dropout, seed + np.uint64(layer), value, slope, curvature, curved)
    value = of_layer(work.value, net, last - 1, atoms)
    for a in range(atoms):
        energies[a] = p[net.biases[last]]
    for j in range(net.widths[last]):
        weight = p[net.weights[last] + j]
        for a in range(atoms):
            energies[a] += weight * value[j, a]


@compiled_fast
def _normalise(net, p, running, layer, y, normalised, deviation, train):  # type: ignore[no-untyped-def]
    """Normalise y, the rows of a layer, in place, and write gain · y + shift."""
    width, atoms = y.shape
    of_batch = train and atoms > 1
    mean_place = 2 * net.rows[layer]
    gain, shift = net.gains[layer], net.gains[layer] + width
    for j in range(width):
        if of_batch:
            mean, variance = y.dtype.type(0), y.dtype.type(0)
            for a in range(atoms):
                mean += y[j, a]
            mean /= atoms
            for a in range(atoms):
                variance += (y[j, a] - mean) * (y[j, a] - mean)
            variance /= atoms
            running[mean_place + j] += MOMENTUM * (mean - running[mean_place + j])
            unbiased = variance * atoms / (atoms - 1)
            running[mean_place + width + j] += MOMENTUM * (unbiased - running[mean_place + width + j])
        else:
            mean, variance = running[mean_place + j], running[mean_place + width + j]
        inverse = y.dtype.type(1 / np.sqrt(variance + EPSILON))
        deviation[net.rows[layer] + j] = inverse
        for a in range(atoms):
            y[j, a] = (y[j, a] - mean) * inverse
            normalised[j, a] = p[gain + j] * y[j, a] + p[shift + j]


@compiled_fast
def _drop(rate, seed, value, slope, curvature, curved):  # type: ignore[no-untyped-def]
    """Set some nodes to zero and enlarge the rest; which ones, a hash of seed and place decides."""
    threshold = np.uint32(rate * 4294967295.0)
    kept = value.dtype.type(1 / (1 - rate))
    mixed = (seed ^ (seed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    start = np.uint32((mixed ^ (mixed >> np.uint64(32))) & np.uint64(0xFFFFFFFF))
    for i in range(len(value)):
        # A hash of 32 bits by Wellons, "lowbias32".
        h = np.uint32(start + np.uint32(i))
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
        h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
        h = np.uint32(h ^ (h >> np.uint32(16)))
        factor = kept if h >= threshold else value.dtype.type(0)
        value[i] *= factor
        slope[i] *= factor
        if curved:
            curvature[i] *= factor


@compiled_fast
def project(y, v, out):  # type: ignore[no-untyped-def]
    """Tangent or adjoint v of normalised rows y, less what the batch's mean and deviation take: (nodes, atoms)."""
    width, atoms = y.shape
    for j in range(width):
        mean, along = y.dtype.type(0), y.dtype.type(0)
        for a in range(atoms):
            mean += v[j, a]
            along += v[j, a] * y[j, a]
        mean /= atoms
        along /= atoms
        for a in range(atoms):
            out[j, a] = v[j, a] - mean - y[j, a] * along


@compiled_fast
def add_product(gradient, start, left, right):  # type: ignore[no-untyped-def]
    """Add left @ right to the matrix at a place of the gradient."""
    product = np.dot(left, right)
    for i in range(product.shape[0]):
        for j in range(product.shape[1]):
            gradient[start + i * product.shape[1] + j] += product[i, j]


@compiled_fast
def add_rows(gradient, start, values):  # type: ignore[no-untyped-def]
    for j in range(len(values)):
        total = values.dtype.type(0)
        for a in range(values.shape[1]):
            total += values[j, a]
        gradient[start + j] += total


@compiled_fast
def backward(net, p, x, work, outer, gradient, train, weights_too, by_features):  # type: ignore[no-untyped-def]
    """From adjoints of the energies, outer (atoms,), to those of the weights, added to `gradient`, or the features.

    Args:
        weights_too: whether the gradient is wanted; else by_features (atoms, features) is.
    """
    atoms, last = len(x), len(net.widths) - 2
    of_batch = net.batchnorm and train and atoms > 1
    width = net.widths[last]
    above = matrix(work.adjoint, 0, width, atoms)
    value = of_layer(work.value, net, last - 1, atoms)
    for j in range(width):
        weight, product = p[net.weights[last] + j], p.dtype.type(0)
        for a in range(atoms):
            above[j, a] = weight * outer[a]
            product += value[j, a] * outer[a]
        if weights_too:
            gradient[net.weights[last] + j] += product
    if weights_too:
        for a in range(atoms):
            gradient[net.biases[last]] += outer[a]
    for layer in range(last - 1, -1, -1):
        width = net.widths[layer + 1]
        own = matrix(work.second, 0, width, atoms)
        slope, y = of_layer(work.slope, net, layer, atoms), of_layer(work.before, net, layer, atoms)
        gain, deviation = net.gains[layer], work.deviation[net.rows[layer] :]
        for j in range(width):
            for a in range(atoms):
                own[j, a] = above[j, a] * slope[j, a]
            if net.batchnorm:
                along, total, factor = p.dtype.type(0), p.dtype.type(0), p[gain + j] * deviation[j]
                for a in range(atoms):
                    along += own[j, a] * y[j, a]
                    total += own[j, a]
                    own[j, a] *= factor
                if weights_too:
                    gradient[gain + j] += along
                    gradient[gain + width + j] += total
        if of_batch:
            project(y, own, own)
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        if weights_too:
            if layer == 0:
                add_product(gradient, net.weights[0], own, x)
            else:
                add_product(gradient, net.weights[layer], own, of_layer(work.value, net, layer - 1, atoms).T)
            if not of_batch:  # else the batch's mean takes the bias away
                add_rows(gradient, net.biases[layer], own)
        if layer > 0:
            above = matrix(work.adjoint, 0, net.widths[layer], atoms)
            np.dot(weights.T, own, above)
        elif not weights_too:
            np.dot(own.T, weights, by_features)
