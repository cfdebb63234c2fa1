"""An epoch as one compiled function: gather, forward, loss, backward, optimizer step, batch after batch."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled, compiled_fast
from bdqm_tune.learning.compiled.backward import backward
from bdqm_tune.learning.compiled.passes import Work, forward, make_work
from bdqm_tune.learning.compiled.tangents import backward_twice, tangents

# Atoms that go through the network together where batch normalisation does not need a whole batch: few enough that
# their values stay in the processor's cache, and many enough for the products.
TILE = 192
# Multiply-adds of a block's product: OpenBLAS multiplies small matrices without packing them, up to a million
# (sgemm_small_kernel_permit), which takes little more than half the time.
SMALL_PRODUCT = 900_000
SEED_STEP = 1009  # between the seeds of two structures' places in the order: more than layers
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, as torch has them


class Data(NamedTuple):
    """A split; what belongs to forces, or to the stress, is empty where they are not trained."""

    features: NDArray[Any]  # (total atoms, n_features), scaled
    first: NDArray[np.int64]  # (n_structures,) of its atoms
    n_atoms: NDArray[np.int64]  # (n_structures,)
    targets: NDArray[np.float64]  # (n_structures,), scaled
    with_forces: bool
    entry_first: NDArray[np.int64]  # (n_structures,) of its derivatives
    entry_count: NDArray[np.int64]  # (n_structures,)
    centre: NDArray[np.int64]  # (n_entries,) atom of its structure whose features change
    atom: NDArray[np.int64]  # (n_entries,) atom of its structure that is moved
    derivatives: NDArray[Any]  # (n_entries, 3, n_features), 1/Å, of the scaled features
    force_targets: NDArray[Any]  # (total atoms, 3), 1/Å
    known: NDArray[np.bool_]  # (n_structures,) whether its forces are known
    with_stress: bool  # only with forces
    strain_first: NDArray[np.int64]  # (n_structures,) of its derivatives by the strain, one for each of its atoms
    strain_derivatives: NDArray[Any]  # (n_entries, 6, n_features) of the scaled features
    stress_targets: NDArray[Any]  # (n_structures, 6) of stress · volume per atom
    stress_known: NDArray[np.bool_]  # (n_structures,)
    density: NDArray[Any]  # (n_structures,) atoms/Å³


class State(NamedTuple):
    """What training changes."""

    p: NDArray[Any]  # (n,) all weights
    gradient: NDArray[Any]  # (n,)
    first_moment: NDArray[Any]  # (n,) of Adam
    second_moment: NDArray[Any]  # (n,)
    running: NDArray[Any]  # means and variances of batch normalisation


class Options(NamedTuple):
    """Options of training."""

    transition: float  # of the loss, see `learning.losses.transition`
    per_atom: bool  # of energies per atom, else of whole structures
    force_coefficient: float
    stress_coefficient: float
    decay: float  # of the weights, as AdamW takes it


class Tile(NamedTuple):
    """Memory for the atoms that go through the network together."""

    x: NDArray[Any]  # (n_atoms, n_features)
    by_features: NDArray[Any]  # (n_atoms, n_features)
    direction: NDArray[Any]  # (n_atoms, n_features)
    energies: NDArray[Any]  # (n_atoms,)
    outer: NDArray[Any]  # (n_atoms,)
    ones: NDArray[Any]  # (n_atoms,)
    forces: NDArray[Any]  # (n_atoms, 3)
    work: Work


def make_tile(n_features: int, widths: list[int], atoms: int, dtype: Any) -> Tile:
    """Memory for at most so many atoms."""

    def empty(*shape: int) -> NDArray[Any]:
        return np.empty((atoms, *shape), dtype)

    return Tile(
        x=empty(n_features),
        by_features=empty(n_features),
        direction=empty(n_features),
        energies=empty(),
        outer=empty(),
        ones=np.ones(atoms, dtype),
        forces=empty(3),
        work=make_work(widths, atoms, dtype),
    )


@compiled_fast
def epoch(net, state, data, order, sizes, tile, options, train, lr, steps, seed):  # type: ignore[no-untyped-def]
    """Go through a split once, and train on it or not.

    Args:
        order: (n_structures,) indices of the structures.
        sizes: (n_batches,) structures in each batch; one after the other they take `order` up.
        steps: of the optimizer that were taken before.
        seed: of dropout, for the first structure.

    Returns:
        Sums over the structures: of the loss of their batch; of the absolute error of the energy; of the same by the
        number of atoms; and of the absolute errors of all components of the forces, and of the stress.
    """
    # All in one function, for what a compiled function calls is compiled into it once more.
    totals = np.zeros(5)
    start = 0
    small = max(TILE, SMALL_PRODUCT // max(net.widths) ** 2)
    for size in sizes:
        batch = order[start : start + size]
        atoms_with_forces = _clear(state.gradient, data, batch)
        weight = options.force_coefficient / (3 * max(atoms_with_forces, 1))  # of a component of a force
        stress_weight = options.stress_coefficient / (6 * max(_with_stress(data, batch), 1))  # of one of a stress
        begin = 0
        while begin < size:
            end, atoms = _end_of_tile(data.n_atoms, batch, begin, net.batchnorm and train)
            structures, x = batch[begin:end], tile.x[:atoms]
            _gather(data, structures, x)
            key = np.uint64(seed) + np.uint64(SEED_STEP * (start + begin))
            block, curved = (atoms if data.with_forces else small), train and data.with_forces
            forward(net, state.p, state.running, x, tile.work, tile.energies, train, curved, key, block)
            _energies(data, structures, tile.energies, options, size, tile.outer, totals)
            if train or data.with_forces:
                outer = tile.ones if data.with_forces else tile.outer
                by_features, weights_too = tile.by_features[:atoms], not data.with_forces
                backward(net, state.p, x, tile.work, outer, state.gradient, train, weights_too, by_features, block)
            if data.with_forces:
                direction = tile.direction[:atoms]
                loss = _forces(
                    data, structures, tile.by_features, direction, tile.forces, options.transition, weight, totals
                )
                if data.with_stress:
                    loss += _stress(
                        data, structures, tile.by_features, direction, options.transition, stress_weight, totals
                    )
                totals[0] += loss * size
                if train:
                    tangents(net, state.p, direction, tile.work, train)
                    backward_twice(net, state.p, x, direction, tile.work, tile.outer, state.gradient, train)
            begin = end
        start += size
        if train:
            steps += 1
            _adam(state, lr, options.decay, steps)
    return totals


@compiled
def _clear(gradient, data, batch):  # type: ignore[no-untyped-def]
    """Set the gradient to zero for a batch, and give the atoms of that whose forces are trained."""
    for i in range(len(gradient)):
        gradient[i] = 0
    atoms = 0
    if data.with_forces:
        for s in batch:
            if data.known[s]:
                atoms += data.n_atoms[s]
    return atoms


@compiled
def _with_stress(data, batch):  # type: ignore[no-untyped-def]
    """The structures of a batch whose stress is trained."""
    structures = 0
    if data.with_stress:
        for s in batch:
            if data.stress_known[s]:
                structures += 1
    return structures


@compiled
def _end_of_tile(n_atoms, batch, begin, to_the_end):  # type: ignore[no-untyped-def]
    """Where the tile ends that begins in a batch, and how many atoms it has."""
    end, atoms = begin + 1, n_atoms[batch[begin]]
    while end < len(batch) and (to_the_end or atoms + n_atoms[batch[end]] <= TILE):
        atoms += n_atoms[batch[end]]
        end += 1
    return end, atoms


@compiled
def _gather(data, structures, x):  # type: ignore[no-untyped-def]
    at = 0
    for s in structures:
        n = data.n_atoms[s]
        for a in range(n):
            for f in range(x.shape[1]):
                x[at + a, f] = data.features[data.first[s] + a, f]
        at += n


@compiled_fast
def _loss(error, transition):  # type: ignore[no-untyped-def]
    """The loss of an error, and its derivative."""
    if transition == np.inf:
        return error * error, 2 * error
    if abs(error) >= transition:
        return abs(error) - transition / 2, np.sign(error)
    return error * error / (2 * transition), error / transition


@compiled_fast
def _energies(data, structures, energies, options, n_batch, outer, totals):  # type: ignore[no-untyped-def]
    """Add the errors of the structures' energies to the totals; `outer` becomes the derivative of the loss by them."""
    dtype, at = energies.dtype, 0
    for s in structures:
        n = data.n_atoms[s]
        error = -data.targets[s]
        for a in range(at, at + n):
            error += energies[a]
        totals[1] += abs(error)
        totals[2] += abs(error) / n
        share = 1 / n if options.per_atom else 1.0
        error *= share
        loss, by_error = _loss(error, options.transition)
        totals[0] += loss
        slope = dtype.type(by_error * share / n_batch)
        for a in range(at, at + n):
            outer[a] = slope
        at += n


@compiled_fast
def _forces(data, structures, by_features, direction, forces, transition, weight, totals):  # type: ignore[no-untyped-def]
    """Loss of the forces, and its derivative by `by_features`, the gradient of the energy, into `direction`.

    The force on an atom is F_k = -Σ_i Σ_f dE/dG_if · dG_if/dr_k, see learning/forces.py.
    """
    n_features, zero = by_features.shape[1], by_features.dtype.type(0)
    loss, start = 0.0, 0
    for s in structures:
        n, first = data.n_atoms[s], data.first[s]
        if not data.known[s]:
            direction[start : start + n] = 0
            start += n
            continue
        entries = range(data.entry_first[s], data.entry_first[s] + data.entry_count[s])
        for a in range(n):
            for f in range(n_features):
                direction[start + a, f] = 0
            for axis in range(3):
                forces[start + a, axis] = -data.force_targets[first + a, axis]
        own, along = forces[start : start + n], direction[start : start + n]
        for e in entries:
            felt = by_features[start + data.centre[e]]
            for axis in range(3):
                pull = zero
                for f in range(n_features):
                    pull += data.derivatives[e, axis, f] * felt[f]
                own[data.atom[e], axis] -= pull
        for a in range(n):
            for axis in range(3):
                error = own[a, axis]
                totals[3] += abs(error)
                of_error, by_error = _loss(error, transition)
                loss += weight * of_error
                own[a, axis] = weight * by_error
        for e in entries:
            by_force, row = own[data.atom[e]], along[data.centre[e]]
            for axis in range(3):
                for f in range(n_features):
                    row[f] -= by_force[axis] * data.derivatives[e, axis, f]
        start += n
    return loss


@compiled_fast
def _stress(data, structures, by_features, direction, transition, weight, totals):  # type: ignore[no-untyped-def]
    """Loss of stress · volume per atom, whose derivative by `by_features` is added to `direction`, see `_forces`.

    A component is Σ_i Σ_f dE/dG_if · dG_if/dε over the number of atoms, see learning/stress.py.
    """
    n_features, dtype = by_features.shape[1], by_features.dtype
    loss, start = 0.0, 0
    for s in structures:
        n = data.n_atoms[s]
        if data.stress_known[s]:
            entries = data.strain_derivatives[data.strain_first[s] : data.strain_first[s] + n]
            for v in range(6):
                virial = dtype.type(0)
                for a in range(n):
                    for f in range(n_features):
                        virial += entries[a, v, f] * by_features[start + a, f]
                error = virial / n - data.stress_targets[s, v]
                totals[4] += abs(error) * data.density[s]
                of_error, by_error = _loss(error, transition)
                loss += weight * of_error
                slope = dtype.type(weight * by_error / n)
                for a in range(n):
                    for f in range(n_features):
                        direction[start + a, f] += slope * entries[a, v, f]
        start += n
    return loss


@compiled_fast
def _adam(state, lr, decay, steps):  # type: ignore[no-untyped-def]
    """A step of Adam (Kingma and Ba, arXiv:1412.6980), with decay AdamW (Loshchilov and Hutter, arXiv:1711.05101)."""
    dtype = state.p.dtype
    rate = dtype.type(lr / (1 - BETA1**steps))
    root = dtype.type(1 / np.sqrt(1 - BETA2**steps))
    kept, epsilon, one = dtype.type(1 - lr * decay), dtype.type(EPSILON), dtype.type(1)
    beta1, beta2 = dtype.type(BETA1), dtype.type(BETA2)
    p, gradient, first, second = state.p, state.gradient, state.first_moment, state.second_moment
    for i in range(len(p)):
        g = gradient[i]
        first[i] = beta1 * first[i] + (one - beta1) * g
        second[i] = beta2 * second[i] + (one - beta2) * g * g
        p[i] = kept * p[i] - rate * first[i] / (np.sqrt(second[i]) * root + epsilon)
