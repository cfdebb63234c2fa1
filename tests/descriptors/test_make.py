"""Descriptors that a configuration asks for."""

from typing import Any

import pytest

from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions, descriptor_from_options
from bdqm_tune.errors import BadInput

G2 = {"etas": [0.5], "rs": [0.0]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"orders": [1], "solid": False, "sigmas": [0.5]}, GMP([1], [0.5], 6.0, solid=False)),
        (
            {"name": "gmp_groups", "groups": {2: [2], 0: [1]}, "sigmas": [0.5], "cutoff": 4.0},
            GMPGroups({2: [2], 0: [1]}, [0.5], 4.0, square=True),
        ),
        ({"name": "gmp_groups", "sigmas": 1}, GMPGroups({0: [1], 1: [1], 2: [1, 2]}, [1.0], 6.0, square=True)),
        (
            {"name": "symmetry_functions", "cutoff": 5.0, "g2": {"H": G2, "default": G2}, "g4": None},
            SymmetryFunctions(["H", "Cu"], 5.0, g2=G2),
        ),
        (
            {
                "name": "symmetry_functions",
                "elements": ["O", "H"],
                "g4": {"etas": [0.005], "zetas": [1, 4], "gammas": [-1, 1]},
                "cutoff_function": "polynomial",
                "gamma": 3,
            },
            SymmetryFunctions(
                ["H", "O"],
                6.0,
                g4={"etas": [0.005], "zetas": [1, 4], "gammas": [-1, 1]},
                cutoff_function="polynomial",
                gamma=3.0,
            ),
        ),
    ],
)
def test_options_give_the_descriptor(options: dict[str, Any], expected: Descriptor) -> None:
    found = descriptor_from_options(DescriptorOptions(**options), elements=["Cu", "H"])
    assert type(found) is type(expected)
    assert found.settings == expected.settings


def test_what_only_the_descriptor_can_judge_is_refused_when_it_is_made() -> None:
    for options, named in (
        ({"name": "gmp_groups", "groups": {2: [3]}}, "groups of order 2 must be different integers from 1 to 2"),
        ({"name": "symmetry_functions", "g2": {"eta": [1.0]}}, "g2 needs the lists etas, rs, got eta"),
    ):
        with pytest.raises(BadInput, match=named):
            descriptor_from_options(DescriptorOptions(**options), elements=["H"])
