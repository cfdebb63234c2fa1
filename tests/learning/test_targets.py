"""Reference energies and the target's scale: what they recover, what they ignore, and what they do at the edges."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bdqm_tune.learning.targets import (
    NO_REFERENCES,
    ReferenceEnergies,
    fit_reference_energies,
    target_scale,
    target_scale_and_shift,
    undetermined,
)

ENERGIES = {1: -3.4, 8: -7.2, 29: -3.7, 78: -6.1}


def compositions(seed: int, n: int = 40) -> list[Atoms]:
    random = np.random.default_rng(seed)
    return [Atoms(random.choice(list(ENERGIES), random.integers(1, 12))) for _ in range(n)]


def linear(structures: list[Atoms], per_element: dict[int, float] = ENERGIES) -> NDArray[np.float64]:
    return np.array([sum(per_element[z] for z in atoms.numbers) for atoms in structures])


@given(seed=st.integers(0, 10_000), values=st.lists(st.floats(-1000, 1000), min_size=4, max_size=4))
@settings(max_examples=25, deadline=None)
def test_energies_that_are_sums_over_atoms_are_recovered(seed: int, values: list[float]) -> None:
    per_element = dict(zip(ENERGIES, values, strict=True))
    structures = compositions(seed)
    references = fit_reference_energies(structures, linear(structures, per_element))
    spread = max(np.ptp(values), 1e-6)
    for z, energy in per_element.items():
        assert references.per_element[z] == pytest.approx(energy, abs=1e-5 * spread)
    others = compositions(seed + 1)
    error = references.of(others) - linear(others, per_element)
    assert np.abs(error).max() < 1e-4 * spread * 12


def test_noise_is_averaged_out() -> None:
    structures = compositions(1, n=2000)
    noise = np.random.default_rng(2).normal(scale=0.1, size=2000)
    references = fit_reference_energies(structures, linear(structures) + noise)
    for z, energy in ENERGIES.items():
        assert references.per_element[z] == pytest.approx(energy, abs=0.02)


def test_one_element_alone_has_the_mean_energy_of_its_atoms() -> None:
    structures = [Atoms("Cu2"), Atoms("Cu4")]
    references = fit_reference_energies(structures, np.array([-6.0, -16.0]))
    assert references.of([Atoms("Cu10")])[0] == pytest.approx(-35.0, rel=1e-6)


def test_elements_that_always_come_together_share_the_energy_finitely() -> None:
    structures = [Atoms("CuO"), Atoms("Cu2O2"), Atoms("Cu3O3")]
    references = fit_reference_energies(structures, np.array([-10.0, -20.0, -30.0]))
    assert references.of(structures) == pytest.approx(np.array([-10.0, -20.0, -30.0]), rel=1e-6)
    assert all(abs(e) < 10 for e in references.per_element.values())


def test_a_single_structure_gives_its_mean_energy_per_atom() -> None:
    references = fit_reference_energies([Atoms("CuO")], np.array([-10.0]))
    assert references.of([Atoms("CuO")])[0] == pytest.approx(-10.0, rel=1e-9)
    assert references.fallback == -5.0


def test_an_element_seen_once_does_not_make_the_fit_explode() -> None:
    structures = [*compositions(3), Atoms("Au"), Atoms("Cu3")]
    energies = np.append(linear(structures[:-2]), [-3.0, 3 * ENERGIES[29]])
    references = fit_reference_energies(structures, energies)
    assert -10 < references.per_element[79] < 0
    assert references.per_element[29] == pytest.approx(ENERGIES[29], abs=0.3)


ALL_ELECTRON = {1: -13.6, 8: -2041.7, 29: -45129.123456, 78: -501230.3, 79: -535650.9}  # eV


@pytest.mark.parametrize(
    "structures",
    [
        [Atoms([29] * 96 + [8] * (i % 3)) for i in range(30)],
        [Atoms([29] * 108)] * 29 + [Atoms([29] * 107 + [79])],
        [Atoms([29] * k + [8] * k) for k in range(1, 30)],
        compositions(7),
        [Atoms("CuO"), Atoms("Au2Pt")],
    ],
    ids=["slabs with 0 to 2 O", "one Au", "CuO alone", "alloys", "fewer structures than elements"],
)
def test_a_constant_for_each_element_changes_nothing_that_is_left(structures: list[Atoms]) -> None:
    sizes = np.array([len(atoms) for atoms in structures])
    energies = -3.7 * sizes + np.random.default_rng(8).normal(scale=0.3, size=len(structures))
    constants = ReferenceEnergies(ALL_ELECTRON, 0.0).of(structures)
    left = energies - fit_reference_energies(structures, energies).of(structures)
    shifted = energies + constants
    after = shifted - fit_reference_energies(structures, shifted).of(structures)
    np.testing.assert_allclose(after, left, rtol=0, atol=64 * np.spacing(np.abs(constants).max()))
    numbers = sorted({int(z) for atoms in structures for z in atoms.numbers})
    shares = np.array([[np.mean(atoms.numbers == z) for z in numbers] for atoms in structures])
    best = sizes * (shares @ np.linalg.lstsq(shares, energies / sizes, rcond=None)[0])
    np.testing.assert_allclose(left, energies - best, rtol=0, atol=1e-9)


def test_given_energies_stay_and_the_others_are_fitted() -> None:
    structures = compositions(9)
    references = fit_reference_energies(structures, linear(structures), {8: -432.1})
    assert references.per_element[8] == -432.1
    numbers = [1, 29, 78]
    sizes = np.array([len(atoms) for atoms in structures])
    counts = np.array([[np.sum(atoms.numbers == z) for z in numbers] for atoms in structures])
    oxygen = np.array([np.sum(atoms.numbers == 8) for atoms in structures])
    rest = (linear(structures) + 432.1 * oxygen) / sizes
    expected = np.linalg.lstsq(counts / sizes[:, None], rest, rcond=None)[0]
    np.testing.assert_allclose([references.per_element[z] for z in numbers], expected, rtol=1e-9)


def test_sums_that_the_compositions_do_not_split_up_are_known_as_such() -> None:
    together = [Atoms("CuO"), Atoms("Cu2O2"), Atoms("Pt")]
    free, which = undetermined(together, [Atoms("Cu3O3Pt"), Atoms("Cu2O"), Atoms("Pt2"), Atoms("O")])
    assert (free, which.tolist()) == ([8, 29], [1, 3])
    for fixed in ((8,), (8, 29, 78)):
        assert undetermined(together, [Atoms("Cu2O")], fixed)[0] == []
    assert undetermined(compositions(1), [Atoms("H")])[0] == []


def test_an_unseen_element_has_the_mean_energy_of_a_training_atom() -> None:
    structures = [Atoms("CuO"), Atoms("Cu2"), Atoms("O4")]
    energies = np.array([-10.0, -6.0, -28.0])
    references = fit_reference_energies(structures, energies)
    # mean of -5, -3 and -7, the energies per atom of the structures
    assert references.fallback == pytest.approx(-5.0, rel=1e-12)
    assert 79 not in references.per_element
    known = references.of([Atoms("Cu")])[0]
    assert references.of([Atoms("CuAu2")])[0] == pytest.approx(known - 10.0, rel=1e-12)


def test_reference_energies_are_extensive_and_additive() -> None:
    references = ReferenceEnergies(ENERGIES, -5.0)
    assert references.of([Atoms("CuOAu")])[0] == pytest.approx(-3.7 - 7.2 - 5.0)
    assert references.of([Atoms("Cu2O2Au2")])[0] == pytest.approx(2 * references.of([Atoms("CuOAu")])[0])
    assert references.of([Atoms("OCu"), Atoms("Cu")]) == pytest.approx(np.array([-10.9, -3.7]))


def test_without_reference_energies_nothing_is_subtracted() -> None:
    assert NO_REFERENCES.of(compositions(4)).tolist() == [0.0] * 40


@pytest.mark.parametrize("shift", [0.0, 1e3, -1e5])
def test_a_shift_of_every_atom_shifts_the_references_alike(shift: float) -> None:
    structures = compositions(5)
    noise = np.random.default_rng(6).normal(size=40)
    sizes = np.array([len(atoms) for atoms in structures])
    plain = fit_reference_energies(structures, linear(structures) + noise)
    shifted = fit_reference_energies(structures, linear(structures) + noise + shift * sizes)
    for z in ENERGIES:
        assert shifted.per_element[z] - shift == pytest.approx(plain.per_element[z], abs=1e-6)


def test_the_target_scale_is_the_deviation_and_never_zero() -> None:
    assert target_scale(np.array([1.0, 3.0])) == 1.0
    assert target_scale(np.array([-10.0, 10.0])) == 10.0
    assert target_scale(np.array([4.2])) == 1.0
    assert target_scale(np.full(5, 2.5)) == 1.0
    assert target_scale(np.array([1.0, 1.0 + 1e-9])) == 1.0  # rounding, not energies


def test_mean_and_deviation_bring_the_energies_to_mean_zero_and_sample_deviation_one() -> None:
    energies = np.random.default_rng(7).normal(-600, 3, 50)
    scale, shift = target_scale_and_shift(energies, "mean_deviation")
    scaled = (energies - shift) / scale
    assert scaled.mean() == pytest.approx(0, abs=1e-10)
    assert scaled.std(ddof=1) == pytest.approx(1)
    assert target_scale_and_shift(energies, "deviation") == (target_scale(energies), 0.0)


@pytest.mark.parametrize("energies", [[4.2], [2.5, 2.5, 2.5]])
def test_energies_that_do_not_vary_are_left_as_they_are(energies: list[float]) -> None:
    assert target_scale_and_shift(np.array(energies), "mean_deviation") == (1.0, 0.0)
