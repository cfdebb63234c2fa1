"""Whatever the structure and the settings: either a BadInput, or finite features and derivatives."""

import json
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions, descriptor_from_settings
from bdqm_tune.descriptors.maxwell import groups as groups_of
from bdqm_tune.descriptors.multipoles import Multipoles
from tests.descriptors.cases import TABLE

SYMBOLS = ["H", "C", "O", "Cu"]
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def structures(draw: st.DrawFn) -> Atoms:
    """From one atom to six, some of them at one place, in line or in a plane, in cells flat and small or without."""
    n = draw(st.integers(1, 6))
    # Places on a coarse grid coincide and are symmetric; others are anywhere.
    grid = st.sampled_from([0.0, 1.0, 2.0, -1.5, 12.0])
    coordinate = draw(st.sampled_from([grid, st.floats(-5, 5, allow_subnormal=False)]))
    positions = draw(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=n, max_size=n))
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=n, max_size=n))
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    lengths = draw(st.tuples(*[st.floats(2.0, 7.0)] * 3))
    skew = draw(st.lists(st.floats(-0.9, 0.9), min_size=3, max_size=3))
    cell = np.diag(lengths)
    cell[1, 0], cell[2, 0], cell[2, 1] = skew
    for axis in range(3):
        if not pbc[axis] and draw(st.booleans()):
            cell[axis] = 0
    return Atoms(symbols, positions=positions, cell=cell, pbc=pbc)


widths = st.lists(st.floats(0.02, 4.0), min_size=1, max_size=3)
cutoffs = st.floats(0.5, 5.0)
floors = st.sampled_from([0.0, 1e-8, 1e-2, 10.0])
numbers = st.lists(st.floats(0.0, 20.0, allow_subnormal=False), min_size=1, max_size=2, unique=True)


@st.composite
def gmps(draw: st.DrawFn) -> Descriptor:
    orders = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
    solid, square = draw(st.booleans()), draw(st.booleans())
    return GMP(orders, draw(widths), draw(cutoffs), solid, square, TABLE, draw(floors))


@st.composite
def gmp_groups(draw: st.DrawFn) -> Descriptor:
    orders = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    groups = {n: draw(st.lists(st.integers(1, len(groups_of(n))), min_size=1, max_size=3, unique=True)) for n in orders}
    return GMPGroups(groups, draw(widths), draw(cutoffs), draw(st.booleans()), TABLE, draw(floors))


@st.composite
def symmetry_functions(draw: st.DrawFn) -> Descriptor:
    def angular() -> dict[str, Any]:
        zetas = st.lists(st.floats(1.0, 20.0), min_size=1, max_size=2, unique=True)
        gammas = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=2, unique=True)
        return {"etas": draw(numbers), "zetas": draw(zetas), "gammas": draw(gammas)}

    gamma = draw(st.none() | st.floats(0.3, 10.0))
    return SymmetryFunctions(
        SYMBOLS,
        draw(cutoffs),
        g2={"etas": draw(numbers), "rs": draw(numbers)},
        g4=angular() if draw(st.booleans()) else None,
        g5={draw(st.sampled_from([*SYMBOLS, "default"])): angular()} if draw(st.booleans()) else None,
        cutoff_function="cosine" if gamma is None else "polynomial",
        gamma=gamma,
    )


@pytest.mark.parametrize("kind", [gmps, gmp_groups, symmetry_functions])
@given(data=st.data())
@many
def test_features_and_derivatives_are_finite(kind: Any, data: st.DataObject) -> None:
    descriptor, atoms = data.draw(kind()), data.draw(structures())
    features, sparse = descriptor.sparse_derivatives(atoms)
    assert features.shape == (len(atoms), descriptor.n_features)
    assert np.isfinite(features).all()
    assert np.isfinite(sparse.values).all()
    np.testing.assert_allclose(features, descriptor.compute(atoms), rtol=1e-9, atol=1e-12 * np.abs(features).max())
    again = descriptor_from_settings(json.loads(json.dumps(descriptor.settings)))
    assert np.array_equal(again.compute(atoms), descriptor.compute(atoms))
    if isinstance(descriptor, Multipoles) and descriptor.square:
        assert (features >= 0).all()
