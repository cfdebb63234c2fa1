"""The passes through a network: forward, backward, and both once more for the derivative along a direction.

Training on forces needs the gradient, by the weights, of a function of dE/dx. With u the derivative of the loss by
dE/dx, that is the gradient of u·dE/dx, the derivative of E along u: a forward pass of tangents with u at its start, and
a backward pass through both (Pearlmutter, Neural Comput. 6, 147 (1994)). Batch normalisation takes part with the
statistics of its batch. Rows are nodes and columns atoms, so that what is done to every atom is done to neighbours in
memory; the products are BLAS's.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bdqm_tune.learning.fused.activations import FAST, activate

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


@njit(cache=True, nogil=True)
def matrix(flat, start, n_rows, n_columns):  # type: ignore[no-untyped-def]
    """A matrix in a flat array."""
    return flat[start : start + n_rows * n_columns].reshape((n_rows, n_columns))


@njit(cache=True, nogil=True)
def of_layer(flat, net, layer, atoms):  # type: ignore[no-untyped-def]
    """The values (nodes, atoms) of a hidden layer."""
    return matrix(flat, net.rows[layer] * atoms, net.widths[layer + 1], atoms)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
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


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
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


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
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


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _project(y, v, out):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _add_product(gradient, start, left, right):  # type: ignore[no-untyped-def]
    """Add left @ right to the matrix at a place of the gradient."""
    product = np.dot(left, right)
    for i in range(product.shape[0]):
        for j in range(product.shape[1]):
            gradient[start + i * product.shape[1] + j] += product[i, j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _add_rows(gradient, start, values):  # type: ignore[no-untyped-def]
    for j in range(len(values)):
        total = values.dtype.type(0)
        for a in range(values.shape[1]):
            total += values[j, a]
        gradient[start + j] += total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
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
            _project(y, own, own)
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        if weights_too:
            if layer == 0:
                _add_product(gradient, net.weights[0], own, x)
            else:
                _add_product(gradient, net.weights[layer], own, of_layer(work.value, net, layer - 1, atoms).T)
            if not of_batch:  # else the batch's mean takes the bias away
                _add_rows(gradient, net.biases[layer], own)
        if layer > 0:
            above = matrix(work.adjoint, 0, net.widths[layer], atoms)
            np.dot(weights.T, own, above)
        elif not weights_too:
            np.dot(own.T, weights, by_features)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def tangents(net, p, direction, work, train):  # type: ignore[no-untyped-def]
    """The derivative of all values along a direction (atoms, features) of the features; `forward` goes before."""
    atoms, last = len(direction), len(net.widths) - 2
    of_batch = net.batchnorm and train and atoms > 1
    for layer in range(last):
        width = net.widths[layer + 1]
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        product, inner = of_layer(work.product, net, layer, atoms), of_layer(work.inner, net, layer, atoms)
        if layer == 0:
            np.dot(weights, direction.T, product)
        else:
            np.dot(weights, of_layer(work.tangent, net, layer - 1, atoms), product)
        if of_batch:
            _project(of_layer(work.before, net, layer, atoms), product, inner)
        tangent, slope = of_layer(work.tangent, net, layer, atoms), of_layer(work.slope, net, layer, atoms)
        for j in range(width):
            factor = p.dtype.type(1)
            if net.batchnorm:
                factor = p[net.gains[layer] + j] * work.deviation[net.rows[layer] + j]
            for a in range(atoms):
                inner[j, a] = factor * (inner[j, a] if of_batch else product[j, a])
                tangent[j, a] = slope[j, a] * inner[j, a]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward_twice(net, p, x, direction, work, outer, gradient, train):  # type: ignore[no-untyped-def]
    """Add to `gradient` that of Σ outer · E + dE/dx · direction by the weights; `tangents` goes before."""
    atoms, last = len(x), len(net.widths) - 2
    of_batch = net.batchnorm and train and atoms > 1
    width, zero = net.widths[last], p.dtype.type(0)
    above, above_tangent = matrix(work.adjoint, 0, width, atoms), matrix(work.third, 0, width, atoms)
    value, tangent = of_layer(work.value, net, last - 1, atoms), of_layer(work.tangent, net, last - 1, atoms)
    for j in range(width):
        weight, product = p[net.weights[last] + j], zero
        for a in range(atoms):
            above[j, a] = weight * outer[a]
            above_tangent[j, a] = weight
            product += value[j, a] * outer[a] + tangent[j, a]
        gradient[net.weights[last] + j] += product
    for a in range(atoms):
        gradient[net.biases[last]] += outer[a]
    for layer in range(last - 1, -1, -1):
        width = net.widths[layer + 1]
        own, own_tangent = matrix(work.second, 0, width, atoms), matrix(work.fourth, 0, width, atoms)
        slope, curvature = of_layer(work.slope, net, layer, atoms), of_layer(work.curvature, net, layer, atoms)
        inner, y = of_layer(work.inner, net, layer, atoms), of_layer(work.before, net, layer, atoms)
        product = of_layer(work.product, net, layer, atoms)
        for j in range(width):
            for a in range(atoms):
                own_tangent[j, a] = slope[j, a] * above_tangent[j, a]
                own[j, a] = slope[j, a] * above[j, a] + curvature[j, a] * inner[j, a] * above_tangent[j, a]
            if net.batchnorm:
                _through_normalisation(
                    net, p, layer, j, y[j], product[j], own[j], own_tangent[j], work.deviation, gradient, of_batch
                )
        if of_batch:
            _project(y, own_tangent, own_tangent)
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        if layer == 0:
            _add_product(gradient, net.weights[0], own, x)
            _add_product(gradient, net.weights[0], own_tangent, direction)
        else:
            before = net.weights[layer]
            _add_product(gradient, before, own, of_layer(work.value, net, layer - 1, atoms).T)
            _add_product(gradient, before, own_tangent, of_layer(work.tangent, net, layer - 1, atoms).T)
        if not of_batch:
            _add_rows(gradient, net.biases[layer], own)
        if layer > 0:
            above = matrix(work.adjoint, 0, net.widths[layer], atoms)
            above_tangent = matrix(work.third, 0, net.widths[layer], atoms)
            np.dot(weights.T, own, above)
            np.dot(weights.T, own_tangent, above_tangent)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _through_normalisation(  # type: ignore[no-untyped-def]
    net, p, layer, j, y, product, own, own_tangent, deviations, gradient, of_batch
):
    """Adjoints of one node, in place, from after its normalisation to before it.

    With s the inverse deviation, y = (z - mean)·s what is normalised and ż the tangent of z, what leaves is
    gain·y + shift, and its tangent gain·s·(ż - mean(ż) - y·mean(y·ż)); all of y, s and ż take part. `own_tangent` is
    left to be projected.
    """
    atoms = len(y)
    gain, deviation = p[net.gains[layer] + j], deviations[net.rows[layer] + j]
    zero = p.dtype.type(0)
    mean, along = zero, zero
    if of_batch:
        for a in range(atoms):
            mean += product[a]
            along += product[a] * y[a]
        mean /= atoms
        along /= atoms
    by_gain, by_shift, by_deviation, by_along = zero, zero, zero, zero
    for a in range(atoms):
        inner = product[a] - mean - y[a] * along
        by_gain += own[a] * y[a]
        by_shift += own[a]
        by_deviation += own_tangent[a] * inner
        by_along += own_tangent[a] * y[a]
    gradient[net.gains[layer] + j] += by_gain + deviation * by_deviation
    gradient[net.gains[layer] + net.widths[layer + 1] + j] += by_shift
    factor = gain * deviation
    if not of_batch:
        for a in range(atoms):
            own[a] *= factor
            own_tangent[a] *= factor
        return
    # Adjoint of y, then of z: through y, and through the deviation.
    total, projection = zero, zero
    for a in range(atoms):
        own[a] = gain * own[a] - factor * (own_tangent[a] * along + by_along / atoms * product[a])
        total += own[a]
        projection += own[a] * y[a]
    total /= atoms
    projection = projection / atoms + gain * by_deviation * deviation / atoms
    for a in range(atoms):
        own[a] = deviation * (own[a] - total - projection * y[a])
        own_tangent[a] *= factor
