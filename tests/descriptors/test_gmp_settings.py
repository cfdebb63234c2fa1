"""How a GMP is made: refused arguments, settings that bring it back, and what a configuration asks for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule

from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import GMP, Descriptor, descriptor_from_options, descriptor_from_settings
from bdqm_tune.descriptors.gmp import default_cutoff
from bdqm_tune.descriptors.multipoles import probe_widths
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table
from bdqm_tune.errors import BadInput

TABLE: Table = {z: PseudoDensity(np.array([1.0 + z, -0.5]), np.array([1.3, 2.4])) for z in (1, 6, 8, 29)}


def gmp(**arguments: Any) -> GMP:
    """One with these arguments, and something for the others."""
    given = {"orders": (0, 1, 2, 3), "sigmas": (0.4, 0.8, 1.2), "cutoff": 6.0, "pseudodensities": TABLE}
    return GMP(**given | arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"orders": []}, "orders"),
        ({"orders": [10]}, r"orders .* 0 to 9, got \[10\]"),
        ({"orders": [-1]}, "orders"),
        ({"orders": [1, 1]}, "different"),
        ({"orders": [1.5]}, "integers"),
        ({"sigmas": []}, "sigmas"),
        ({"sigmas": [0.5, 0.0]}, r"sigmas must be positive widths in Å, got \[0.5, 0.0\]"),
        ({"sigmas": [-1.0]}, "sigmas"),
        ({"sigmas": [float("nan")]}, "sigmas"),
        ({"sigmas": [float("inf")]}, "sigmas"),
        ({"cutoff": 0.0}, "cutoff must be a positive distance in Å, got 0.0"),
        ({"cutoff": -6.0}, "cutoff"),
        ({"cutoff": float("nan")}, "cutoff"),
        ({"cutoff": float("inf")}, "cutoff"),
        # So wide that its amplitude is below the threshold of the default cutoff.
        ({"sigmas": [1e8], "cutoff": None}, "sigma"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        gmp(**arguments)


def test_an_unknown_element_is_named_and_the_known_ones_are_listed() -> None:
    with pytest.raises(BadInput, match=r"no pseudo-density for element N, Au; there are: H C O Cu$"):
        gmp().compute(Atoms("CuAuN", positions=np.eye(3) * 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_refused(value: float) -> None:
    atoms = molecule("H2O")
    atoms.positions[1, 2] = value
    with pytest.raises(BadInput, match="positions and cell must be finite"):
        gmp().compute(atoms)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"orders": [3, 0, 9], "sigmas": [0.123456789012345, 2], "cutoff": 5, "square": False, "root_floor": 0.01},
        {"orders": (0, 1), "sigmas": (0.5,), "cutoff": None, "pseudodensities": None},
    ],
)
def test_settings_as_json_bring_the_same_descriptor_back(arguments: dict[str, Any]) -> None:
    original = gmp(**arguments)
    again = descriptor_from_settings(json.loads(json.dumps(original.settings)))
    structure = fcc111("Cu", size=(1, 1, 2), vacuum=4.0)
    assert again.settings == original.settings
    assert again.n_features == original.n_features
    assert np.array_equal(again.compute(structure), original.compute(structure))


def test_settings_tell_descriptors_apart() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"orders": [0, 1]},
        {"sigmas": [0.4]},
        {"cutoff": 7.0},
        {"solid": False},
        {"square": False},
        {"root_floor": 0.1},
        {"smooth_cutoff": False},
        {"pseudodensities": {**TABLE, 6: TABLE[8]}},
    ]
    texts = {json.dumps(gmp(**v).settings, sort_keys=True) for v in variants}
    assert len(texts) == len(variants)


def test_settings_of_another_descriptor_are_refused() -> None:
    settings = gmp().settings
    for other, named in (
        ({"name": "soap"}, r"'soap' version 1 is not known; there are: gmp version 1, gmp_groups version 1, symm"),
        ({"version": 2}, "'gmp' version 2 is not known"),
        ({"version": None}, "'gmp' version None"),
        ({"name": ["gmp"]}, "not known"),
        ({"name": "symmetry_functions"}, "settings of descriptor symmetry_functions are damaged: .*orders"),
        ({"pseudodensities": {"H": [[1.0], [1.0]]}}, "settings of descriptor gmp are damaged"),
        ({"sigmas": None}, "settings of descriptor gmp are damaged"),
        ({"sigmas": []}, "sigmas must be"),
    ):
        with pytest.raises(BadInput, match=named):
            descriptor_from_settings(settings | other)


def test_the_number_of_features_is_the_width_of_what_is_computed() -> None:
    descriptor: Descriptor = gmp(orders=[0, 2, 4], sigmas=[0.2, 0.4])
    assert descriptor.n_features == 6
    assert descriptor.compute(molecule("H2O")).shape == (3, 6)
    assert descriptor.compute(molecule("H2O")).dtype == np.float64


def test_a_configuration_asks_for_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "H_pseudodensity_1.g").write_text("0.5 1.5\n")
    options = DescriptorOptions(
        orders=[1, 4], sigmas=[0.3, 0.9, 1.1], cutoff=4.5, square=False, pseudodensities=str(tmp_path)
    )
    settings = descriptor_from_options(options).settings
    assert settings == {
        "name": "gmp",
        "version": 1,
        "orders": [1, 4],
        "sigmas": [0.3, 0.9, 1.1],
        "cutoff": 4.5,
        "solid": True,
        "square": False,
        "root_floor": 0.0,
        "pseudodensities": {"1": [[0.5], [1.5]]},
        "smooth_cutoff": True,
    }
    abrupt = descriptor_from_options(options.model_copy(update={"smooth_cutoff": False})).settings
    assert abrupt == {key: value for key, value in settings.items() if key != "smooth_cutoff"}
    assert descriptor_from_settings(abrupt).settings == abrupt  # as in potentials saved before it existed


def test_a_number_of_sigmas_asks_for_that_many_widths() -> None:
    settings = descriptor_from_options(DescriptorOptions(sigmas=5, cutoff=None)).settings
    assert settings["sigmas"] == probe_widths(5)
    assert settings["cutoff"] == default_cutoff([2.0])


@pytest.mark.parametrize("count", [2, 3, 8, 40])
def test_probe_widths_run_from_a_tenth_to_two_in_equal_ratios(count: int) -> None:
    widths = probe_widths(count)
    assert len(widths) == count
    assert (widths[0], widths[-1]) == (0.1, 2.0)
    np.testing.assert_allclose(np.diff(np.log(widths)), np.log(20) / (count - 1), atol=3e-5)


def test_a_single_probe_is_one_angstrom_wide() -> None:
    assert probe_widths(1) == [1.0]
