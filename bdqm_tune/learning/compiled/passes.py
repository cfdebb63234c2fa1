"""The memory layout of a network and of a pass through it, and the forward pass.

Rows are nodes and columns atoms, so that what is done to every atom is done to neighbours in memory; the products are
BLAS's. A layer's values are stored by blocks of atoms, each block a matrix, so that they are in the processor's cache
from one product to the next also where batch normalisation needs a whole batch at once.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled, compiled_fast
from bdqm_tune.learning.compiled.activations import activate

EPSILON, MOMENTUM = 1e-5, 0.1  # of batch normalisation, as torch has them


class Net(NamedTuple):
    """The layout of a network in one flat array, and what is between its layers."""

    widths: NDArray[np.int64]  # (L + 2,) features, nodes of each of L hidden layers, 1
    weights: NDArray[np.int64]  # (L + 1,) place of each layer's weights, row-major (nodes, nodes before)
    biases: NDArray[np.int64]  # (L + 1,)
    gains: NDArray[np.int64]  # (L,) of batch normalisation; its shifts follow
    rows: NDArray[np.int64]  # (L + 1,) hidden nodes before this layer: the offset of its values, for each atom
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
    mean: NDArray[Any]  # (hidden nodes,) of batch normalisation
    deviation: NDArray[Any]  # (hidden nodes,) 1 / standard deviation
    along: NDArray[Any]  # (hidden nodes,) sum of adjoint times normalised value
    total: NDArray[Any]  # (hidden nodes,) sum of the adjoints
    adjoint: NDArray[Any]  # of one layer
    second: NDArray[Any]
    third: NDArray[Any]
    fourth: NDArray[Any]


def make_work(widths: list[int], atoms: int, dtype: Any) -> Work:
    """Memory for tiles of at most so many atoms through hidden layers of these widths."""
    sizes = dict.fromkeys(Work._fields[:7], sum(widths) * atoms) | dict.fromkeys(Work._fields[7:11], sum(widths))
    sizes |= dict.fromkeys(Work._fields[11:], max(widths) * atoms)
    return Work(**{name: np.empty(size, dtype) for name, size in sizes.items()})


@compiled
def matrix(flat, start, n_rows, n_columns):  # type: ignore[no-untyped-def]
    """A matrix in a flat array."""
    return flat[start : start + n_rows * n_columns].reshape((n_rows, n_columns))


@compiled
def of_block(flat, net, layer, atoms, first, n):  # type: ignore[no-untyped-def]
    """The values (nodes, n) of a hidden layer for the block of n atoms, of so many in all, that begins with `first`."""
    width = net.widths[layer + 1]
    return matrix(flat, net.rows[layer] * atoms + width * first, width, n)


@compiled
def of_layer(flat, net, layer, atoms):  # type: ignore[no-untyped-def]
    """The values (nodes, atoms) of a hidden layer where all atoms are one block."""
    return of_block(flat, net, layer, atoms, 0, atoms)


@compiled_fast
def forward(net, p, running, x, work, energies, train, curved, seed, block):  # type: ignore[no-untyped-def]
    """From features x (atoms, features) to energies (atoms,), keeping what the other passes need.

    Args:
        running: means and variances of batch normalisation, layer after layer; moved on in training.
        curved: keep the curvature of the activations as well.
        seed: of dropout.
        block: atoms of a block.
    """
    atoms, last = len(x), len(net.widths) - 2
    of_batch = train and atoms > 1
    for layer in range(last + 1):
        for first in range(0, atoms, block):
            n = min(block, atoms - first)
            if layer > 0:
                _leave(net, p, work, layer - 1, atoms, first, n, train, curved, seed)
            if layer < last:
                _enter(net, p, x, work, layer, first, n, of_batch)
            else:
                _add_up(net, p, of_block(work.value, net, last - 1, atoms, first, n), energies[first : first + n])
        if net.batchnorm and layer < last:
            _end_statistics(net, running, work, layer, atoms, of_batch)


@compiled_fast
def _enter(net, p, x, work, layer, first, n, of_batch):  # type: ignore[no-untyped-def]
    """A layer's product and bias, and what the block adds to the statistics of its batch."""
    atoms, width = len(x), net.widths[layer + 1]
    weights, y = (
        matrix(p, net.weights[layer], width, net.widths[layer]),
        of_block(work.before, net, layer, atoms, first, n),
    )
    if layer == 0:
        np.dot(weights, x[first : first + n].T, y)
    else:
        np.dot(weights, of_block(work.value, net, layer - 1, atoms, first, n), y)
    mean, squares = work.mean[net.rows[layer] :], work.deviation[net.rows[layer] :]
    for j in range(width):
        bias = p[net.biases[layer] + j]
        for a in range(n):
            y[j, a] += bias
        if net.batchnorm and of_batch:
            own, deviations = y.dtype.type(0), y.dtype.type(0)
            for a in range(n):
                own += y[j, a]
            own /= n
            for a in range(n):
                deviations += (y[j, a] - own) * (y[j, a] - own)
            if first == 0:
                mean[j], squares[j] = own, deviations
            else:  # of two parts together (Chan, Golub and LeVeque, Am. Stat. 37, 242 (1983))
                step, share = own - mean[j], y.dtype.type(n / (first + n))
                mean[j] += step * share
                squares[j] += deviations + step * step * share * first


@compiled_fast
def _end_statistics(net, running, work, layer, atoms, of_batch):  # type: ignore[no-untyped-def]
    """Mean and inverse deviation of a layer's nodes: of the batch, which moves the running ones on, or those."""
    width, place = net.widths[layer + 1], 2 * net.rows[layer]
    mean, deviation = work.mean[net.rows[layer] :], work.deviation[net.rows[layer] :]
    for j in range(width):
        if of_batch:
            variance = deviation[j] / atoms
            running[place + j] += MOMENTUM * (mean[j] - running[place + j])
            unbiased = variance * atoms / (atoms - 1)
            running[place + width + j] += MOMENTUM * (unbiased - running[place + width + j])
        else:
            mean[j], variance = running[place + j], running[place + width + j]
        deviation[j] = 1 / np.sqrt(variance + EPSILON)


@compiled_fast
def _leave(net, p, work, layer, atoms, first, n, train, curved, seed):  # type: ignore[no-untyped-def]
    """A block through a layer's normalisation, activation and dropout."""
    width = net.widths[layer + 1]
    start = net.rows[layer] * atoms + width * first
    stop = start + width * n
    entering = work.before[start:stop]
    if net.batchnorm:
        y, entering = entering, work.adjoint[: width * n]
        for j in range(width):
            mean, deviation = work.mean[net.rows[layer] + j], work.deviation[net.rows[layer] + j]
            gain, shift = p[net.gains[layer] + j], p[net.gains[layer] + width + j]
            for i in range(j * n, (j + 1) * n):
                y[i] = (y[i] - mean) * deviation
                entering[i] = gain * y[i] + shift
    value, slope, curvature = work.value[start:stop], work.slope[start:stop], work.curvature[start:stop]
    activate(net.activation, entering, value, slope, curvature, curved)
    if train and net.dropout > 0:
        _drop(net.dropout, seed + np.uint64(layer), width * first, value, slope, curvature, curved)


@compiled_fast
def _add_up(net, p, value, energies):  # type: ignore[no-untyped-def]
    """The last layer: energies (n,) from the values (nodes, n) before it."""
    last = len(net.widths) - 2
    for a in range(len(energies)):
        energies[a] = p[net.biases[last]]
    for j in range(len(value)):
        weight = p[net.weights[last] + j]
        for a in range(len(energies)):
            energies[a] += weight * value[j, a]


@compiled_fast
def _drop(rate, seed, place, value, slope, curvature, curved):  # type: ignore[no-untyped-def]
    """Set some nodes to zero and enlarge the rest; which ones, a hash of seed and place (of the first) decides."""
    threshold = np.uint32(rate * 4294967295.0)
    kept = value.dtype.type(1 / (1 - rate))
    mixed = (seed ^ (seed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    start = np.uint32((mixed ^ (mixed >> np.uint64(32))) & np.uint64(0xFFFFFFFF))
    for i in range(len(value)):
        # A hash of 32 bits by Wellons, "lowbias32".
        h = np.uint32(start + np.uint32(place + i))
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
        h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
        h = np.uint32(h ^ (h >> np.uint32(16)))
        factor = kept if h >= threshold else value.dtype.type(0)
        value[i] *= factor
        slope[i] *= factor
        if curved:
            curvature[i] *= factor
