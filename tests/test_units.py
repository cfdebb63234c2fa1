"""Errors as a reader quotes them."""

import pytest

from bdqm_tune.units import FORCE_LENGTH, OBJECTIVE_UNITS, error_text, shown

ERRORS = {
    "val_energy_mae": 12.12184,
    "val_energy_mae_per_atom": 0.170123,
    "val_forces_mae": 0.09183,
    "val_energy_forces": 0.170123 + FORCE_LENGTH * 0.09183,
}


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        ("val_energy_mae", "170.1 meV/atom (12.1218 eV)"),
        ("val_energy_mae_per_atom", "170.1 meV/atom"),
        ("val_forces_mae", "0.0918 eV/Å"),
        ("val_energy_forces", "179.3 meV/atom (170.1 meV/atom, 0.0918 eV/Å)"),
    ],
)
def test_an_error_is_quoted_in_the_units_of_the_field(objective: str, text: str) -> None:
    assert error_text(ERRORS, objective) == text


def test_what_an_earlier_version_did_not_record_is_left_out() -> None:
    assert error_text({"val_energy_mae": 1.0, "val_energy_mae_per_atom": None}, "val_energy_mae") == "1.0000 eV"
    alone = {"val_energy_forces": 0.0123, "val_forces_mae": float("nan")}
    assert error_text(alone, "val_energy_forces") == "12.30 meV/atom"


def test_every_error_has_a_unit_that_is_shown() -> None:
    assert {shown(1.0, OBJECTIVE_UNITS[name])[1] for name in ERRORS} == {"eV", "meV/atom", "eV/Å"}
