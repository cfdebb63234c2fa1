"""Backward through a network, for the gradient by its weights or its features; `forward` goes before."""

import numpy as np

from bdqm_tune.compiled import compiled_fast
from bdqm_tune.learning.compiled.passes import matrix, of_block

# Numbers of a product over the atoms, at most: of these products OpenBLAS takes up to 1200 without packing the matrices
# (sgemm_small_kernel_permit), in little more than half the time.
SMALL_RESULT = 1000


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
    columns = right.shape[1]
    step = max(1, SMALL_RESULT // columns)
    for first in range(0, len(left), step):
        product = np.dot(left[first : first + step], right)
        for i in range(len(product)):
            for j in range(columns):
                gradient[start + (first + i) * columns + j] += product[i, j]


@compiled_fast
def add_rows(gradient, start, values):  # type: ignore[no-untyped-def]
    for j in range(len(values)):
        total = values.dtype.type(0)
        for a in range(values.shape[1]):
            total += values[j, a]
        gradient[start + j] += total


@compiled_fast
def backward(net, p, x, work, outer, gradient, train, weights_too, by_features, block):  # type: ignore[no-untyped-def]
    """From adjoints of the energies, outer (atoms,), to those of the weights, added to `gradient`, or the features.

    Args:
        weights_too: whether the gradient is wanted; else by_features (atoms, features) is.
        block: atoms of a block, as in `forward`.
    """
    atoms, last = len(x), len(net.widths) - 2
    of_batch = net.batchnorm and train and atoms > 1
    own, next_own = work.second, work.third
    for first in range(0, atoms, block):
        n = min(block, atoms - first)
        above = matrix(work.adjoint, 0, net.widths[last], n)
        value, part = of_block(work.value, net, last - 1, atoms, first, n), outer[first : first + n]
        for j in range(len(above)):
            weight, product = p[net.weights[last] + j], p.dtype.type(0)
            for a in range(n):
                above[j, a] = weight * part[a]
                product += value[j, a] * part[a]
            if weights_too:
                gradient[net.weights[last] + j] += product
        _through_activation(net, work, last - 1, above, own, atoms, first, n)
    if weights_too:
        for a in range(atoms):
            gradient[net.biases[last]] += outer[a]
    for layer in range(last - 1, -1, -1):
        width = net.widths[layer + 1]
        if net.batchnorm and weights_too:
            for j in range(width):
                gradient[net.gains[layer] + j] += work.along[net.rows[layer] + j]
                gradient[net.gains[layer] + width + j] += work.total[net.rows[layer] + j]
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        for first in range(0, atoms, block):
            n = min(block, atoms - first)
            adjoint = matrix(own, width * first, width, n)
            if net.batchnorm:
                _through_normalisation(net, p, work, layer, adjoint, atoms, first, n, of_batch)
            if weights_too:
                if layer == 0:
                    add_product(gradient, net.weights[0], adjoint, x[first : first + n])
                else:
                    value = of_block(work.value, net, layer - 1, atoms, first, n)
                    add_product(gradient, net.weights[layer], adjoint, value.T)
                if not of_batch:  # else the batch's mean takes the bias away
                    add_rows(gradient, net.biases[layer], adjoint)
            if layer > 0:
                above = matrix(work.adjoint, 0, net.widths[layer], n)
                np.dot(weights.T, adjoint, above)
                _through_activation(net, work, layer - 1, above, next_own, atoms, first, n)
            elif not weights_too:
                np.dot(adjoint.T, weights, by_features[first : first + n])
        own, next_own = next_own, own


@compiled_fast
def _through_activation(net, work, layer, above, own, atoms, first, n):  # type: ignore[no-untyped-def]
    """Adjoints of a block, from after to before a layer's activation, written to `own`; their sums over the batch."""
    width = net.widths[layer + 1]
    adjoint, slope = matrix(own, width * first, width, n), of_block(work.slope, net, layer, atoms, first, n)
    y = of_block(work.before, net, layer, atoms, first, n)
    along, total = work.along[net.rows[layer] :], work.total[net.rows[layer] :]
    for j in range(width):
        for a in range(n):
            adjoint[j, a] = above[j, a] * slope[j, a]
        if net.batchnorm:
            along_j, total_j = y.dtype.type(0), y.dtype.type(0)
            for a in range(n):
                along_j += adjoint[j, a] * y[j, a]
                total_j += adjoint[j, a]
            along[j] = along_j if first == 0 else along[j] + along_j
            total[j] = total_j if first == 0 else total[j] + total_j


@compiled_fast
def _through_normalisation(net, p, work, layer, adjoint, atoms, first, n, of_batch):  # type: ignore[no-untyped-def]
    """Adjoints of a block, in place, from after to before a layer's normalisation, as `project` for a whole layer."""
    y = of_block(work.before, net, layer, atoms, first, n)
    for j in range(len(adjoint)):
        factor = p[net.gains[layer] + j] * work.deviation[net.rows[layer] + j]
        along, total = work.along[net.rows[layer] + j] / atoms, work.total[net.rows[layer] + j] / atoms
        if of_batch:
            for a in range(n):
                adjoint[j, a] = factor * (adjoint[j, a] - total - y[j, a] * along)
        else:
            for a in range(n):
                adjoint[j, a] *= factor
