"""Groups of Maxwell–Cartesian harmonics: which there are, and how they are asked for."""

from typing import Any

import numpy as np
import pytest

from bdqm_tune.descriptors import GMPGroups, maxwell
from bdqm_tune.descriptors.moments import channels, norms
from bdqm_tune.errors import BadInput
from tests.descriptors.cases import TABLE, crystal

ATOMS = crystal(np.random.default_rng(0))


def test_groups_are_numbered_as_amptorch_numbers_them() -> None:
    assert maxwell.groups(0) == [(0, 0, 0)]
    assert maxwell.groups(2) == [(2, 0, 0), (1, 1, 0)]
    assert maxwell.groups(4) == [(4, 0, 0), (3, 1, 0), (2, 2, 0), (2, 1, 1)]
    assert maxwell.groups(6)[3:] == [(4, 1, 1), (3, 3, 0), (3, 2, 1), (2, 2, 2)]
    assert [len(maxwell.groups(n)) for n in range(10)] == [1, 1, 2, 3, 4, 5, 7, 8, 10, 12]


@pytest.mark.parametrize("order", range(10))
def test_every_harmonic_is_in_one_group(order: int) -> None:
    places = [place for group in maxwell.groups(order) for place in maxwell.members(order, group)]
    assert sorted(places) == list(range((order + 1) * (order + 2) // 2))


@pytest.mark.parametrize("surface", [True, False])
@pytest.mark.parametrize("order", range(10))
def test_the_weighted_sum_over_all_harmonics_is_the_norm_of_the_moments(order: int, surface: bool) -> None:
    """The link between the two families: see `moments.norms`."""
    found = channels([order], surface)
    moments = np.random.default_rng(order).normal(size=found.moments(0).stop)
    harmonics = maxwell.from_moments(found, 0) @ moments
    weights = [maxwell.multinomial(powers) for powers in maxwell.harmonics(order)]
    assert np.sum(weights * harmonics**2) == pytest.approx(
        np.sum(np.repeat(norms(found), 2 * found.l + 1) * moments**2), rel=1e-10
    )


def test_columns_run_by_order_then_group_then_sigma_as_they_are_given() -> None:
    def columns(groups: dict[int, list[int]], sigmas: list[float]) -> np.ndarray:
        return GMPGroups(groups, sigmas, 4.3, square=False, pseudodensities=TABLE).compute(ATOMS).T

    mixed = columns({3: [2, 1], 0: [1], 2: [2]}, [0.7, 0.3])
    wanted = [(3, 2), (3, 1), (0, 1), (2, 2)]
    assert len(mixed) == 8
    for place, (order, group) in enumerate(wanted):
        for k, sigma in enumerate((0.7, 0.3)):
            np.testing.assert_allclose(mixed[2 * place + k], columns({order: [group]}, [sigma])[0], rtol=1e-10)


def test_a_rotation_changes_groups_but_not_orders_zero_and_one() -> None:
    turned = ATOMS.copy()
    turned.rotate(35, (1, 2, 3), rotate_cell=True)
    before, after = (
        GMPGroups({0: [1], 1: [1], 2: [1, 2]}, [1.1], 4.3, square=False, pseudodensities=TABLE).compute(atoms)
        for atoms in (ATOMS, turned)
    )
    np.testing.assert_allclose(before[:, :2], after[:, :2], rtol=1e-9)
    assert (np.abs(before - after)[:, 2:].max(axis=0) > 1e-3).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"groups": {}}, "groups must name an order at least"),
        ({"groups": {10: [1]}}, "orders are integers from 0 to 9, got 10"),
        ({"groups": {1.5: [1]}}, "orders are integers from 0 to 9, got 1.5"),
        ({"groups": {2: [3]}}, r"groups of order 2 must be different integers from 1 to 2, got \[3\]"),
        ({"groups": {2: [0]}}, "from 1 to 2"),
        ({"groups": {2: []}}, "from 1 to 2"),
        ({"groups": {2: [1, 1]}}, "different"),
        ({"sigmas": []}, "sigmas must be positive widths"),
        ({"sigmas": [-1.0]}, "sigmas must be positive widths"),
        ({"cutoff": 0.0}, "cutoff must be a positive distance"),
        ({"root_floor": -1.0}, "root_floor must be 0 or more"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        GMPGroups(
            **{"groups": {0: [1]}, "sigmas": [0.5], "cutoff": 4.3, "square": False, **arguments}, pseudodensities=TABLE
        )
