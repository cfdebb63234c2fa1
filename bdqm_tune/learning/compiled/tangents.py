"""Both passes once more, for the derivative along a direction of the features.

Training on forces needs the gradient, by the weights, of a function of dE/dx. With u the derivative of the loss by
dE/dx, that is the gradient of u·dE/dx, the derivative of E along u: a forward pass of tangents with u at its start, and
a backward pass through both (Pearlmutter, Neural Comput. 6, 147 (1994)). Batch normalisation takes part with the
statistics of its batch.
"""

import numpy as np

from bdqm_tune.compiled import compiled_fast
from bdqm_tune.learning.compiled.backward import add_product, add_rows, project
from bdqm_tune.learning.compiled.passes import matrix, of_layer


@compiled_fast
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
            project(of_layer(work.before, net, layer, atoms), product, inner)
        tangent, slope = of_layer(work.tangent, net, layer, atoms), of_layer(work.slope, net, layer, atoms)
        for j in range(width):
            factor = p.dtype.type(1)
            if net.batchnorm:
                factor = p[net.gains[layer] + j] * work.deviation[net.rows[layer] + j]
            for a in range(atoms):
                inner[j, a] = factor * (inner[j, a] if of_batch else product[j, a])
                tangent[j, a] = slope[j, a] * inner[j, a]


@compiled_fast
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
            project(y, own_tangent, own_tangent)
        weights = matrix(p, net.weights[layer], width, net.widths[layer])
        if layer == 0:
            add_product(gradient, net.weights[0], own, x)
            add_product(gradient, net.weights[0], own_tangent, direction)
        else:
            before = net.weights[layer]
            add_product(gradient, before, own, of_layer(work.value, net, layer - 1, atoms).T)
            add_product(gradient, before, own_tangent, of_layer(work.tangent, net, layer - 1, atoms).T)
        if not of_batch:
            add_rows(gradient, net.biases[layer], own)
        if layer > 0:
            above = matrix(work.adjoint, 0, net.widths[layer], atoms)
            above_tangent = matrix(work.third, 0, net.widths[layer], atoms)
            np.dot(weights.T, own, above)
            np.dot(weights.T, own_tangent, above_tangent)


@compiled_fast
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
