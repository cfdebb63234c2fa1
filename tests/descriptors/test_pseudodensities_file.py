"""The shipped table of valence pseudo-densities, and the script that makes it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import chemical_symbols

TABLE = Path(__file__).parents[2] / "bdqm_tune" / "descriptors" / "pseudodensities.json"
SYMBOLS = chemical_symbols[1:87]  # H to Rn


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def entries(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By element: amplitudes B (electrons/Å³) and exponents beta (1/Å²), both (n_gaussians,), and how they fit."""
    raw = table["elements"]
    return {symbol: raw[symbol] | {key: np.array(raw[symbol][key]) for key in ("B", "beta")} for symbol in SYMBOLS}


def density(entry: dict[str, Any], r: np.ndarray) -> np.ndarray:
    """rho (n,), electrons/Å³, at `r` (n,), Å."""
    return np.exp(-np.outer(r**2, entry["beta"])) @ entry["B"]


def failing(entries: dict[str, dict[str, Any]], law: Callable[[dict[str, Any]], bool]) -> dict[str, dict[str, Any]]:
    """The elements that break a law."""
    assert len(entries) == len(SYMBOLS)
    return {symbol: entry for symbol, entry in entries.items() if not law(entry)}


def test_all_elements_in_order_of_atomic_number(table):
    assert list(table["elements"]) == SYMBOLS


def test_provenance_says_how_it_was_made(table):
    wanted = {"program", "method", "pseudopotential", "basis", "script", "units", "fit", "error_definition"}
    assert set(table["provenance"]) == wanted
    assert re.fullmatch(r"pyscf \d+\.\d+.*", table["provenance"]["program"])
    assert (TABLE.parents[2] / table["provenance"]["script"]).is_file()


def test_file_is_small_and_has_one_element_a_line():
    text = TABLE.read_text(encoding="utf-8")
    assert len(text) < 60_000
    assert len(re.findall(r'^    "[A-Z][a-z]?": \{.*\},?$', text, flags=re.MULTILINE)) == len(SYMBOLS)


def test_density_holds_the_valence_electrons(entries):
    def law(entry):
        electrons, number = np.sum(entry["B"] * (np.pi / entry["beta"]) ** 1.5), entry["valence_electrons"]
        return electrons == pytest.approx(number, rel=1e-6) and number == round(number) and 1 <= number <= 25

    assert failing(entries, law) == {}


def test_fit_is_well_conditioned(entries):
    def law(entry):
        beta, amplitudes = entry["beta"], entry["B"]
        return (
            2 <= len(beta) == len(amplitudes) <= 6
            and beta.min() >= 0.05
            and beta.max() <= 60
            and (beta[1:] / beta[:-1]).min() >= 1.3  # neighbouring exponents must not nearly cancel
            and np.abs(amplitudes).max() < 1500
        )

    assert failing(entries, law) == {}


def test_fit_error_is_small(entries):
    assert failing(entries, lambda entry: 0 < entry["fit_error"] < 0.025) == {}


def test_most_fits_are_within_one_percent(table):
    assert np.median([entry["fit_error"] for entry in table["elements"].values()]) < 0.01


def test_density_is_nowhere_negative(entries):
    assert failing(entries, lambda entry: density(entry, np.linspace(0, 10, 10_001)).min() >= 0) == {}


def test_tail_falls_off(entries):
    def law(entry):
        tail = density(entry, np.linspace(1.5, 10, 2001))
        return (np.diff(tail) <= 0).all() and tail[-1] < 1e-5

    assert failing(entries, law) == {}


def test_electrons_are_where_an_atom_has_them(entries):
    """The mean radius of a valence electron lies between a semicore shell's and an alkali atom's."""

    def law(entry):
        mean_radius = np.sum(2 * np.pi * entry["B"] / entry["beta"] ** 2) / entry["valence_electrons"]
        return 0.3 < mean_radius < 2.0

    assert failing(entries, law) == {}


def test_the_laws_can_fail(entries):
    assert set(failing(entries, lambda entry: entry["valence_electrons"] != 1)) >= {"H"}


@pytest.mark.parametrize("symbol", ["H", "O"])
def test_script_gives_the_same_again(symbol, table):
    pytest.importorskip("pyscf", reason="the densities come from pyscf, a development dependency")
    from scripts import fit_pseudodensities

    again, shipped = fit_pseudodensities.element_entry(symbol), table["elements"][symbol]
    assert again.keys() == shipped.keys()
    for key, value in shipped.items():
        assert again[key] == pytest.approx(value, rel=1e-4), key
