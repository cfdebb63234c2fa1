"""Molecular dynamics conserves energy, up to the square of the time step, with the potential of each descriptor."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.calculators.mixing import SumCalculator

from bdqm_tune.learning.calculator import PotentialCalculator
from benchmarks.energy_conservation import ABRUPT, DESCRIPTORS, FALLS, copper, hot_copper, spread, trained


def springs(atoms: Atoms, constant: float) -> HarmonicCalculator:
    """A spring, eV/Å², from each atom to its place."""
    hessian = constant * np.eye(3 * len(atoms))
    return HarmonicCalculator(HarmonicForceField(ref_atoms=atoms.copy(), ref_energy=0.0, hessian_x=hessian))


def test_the_spread_is_that_of_an_oscillator() -> None:
    """Velocity Verlet keeps p²/2m + m·ω²·x²·(1 - ω²dt²/4)/2, so that E varies by ω²dt²/4 of itself."""
    stretch, constant, mass = 0.1, 3.0, 2.0  # Å, eV/Å², u
    atoms = Atoms("H", positions=[[0, 0, 0]], masses=[mass])
    atoms.calc = springs(atoms, constant)
    atoms.positions[0, 0] = stretch
    for step in (0.1, 0.2):
        expected = constant * stretch**2 / 2 * constant / mass * (step * units.fs) ** 2 / 4
        assert spread(atoms, step, 60.0) == pytest.approx(expected, rel=0.02)
    assert atoms.positions[0, 0] == stretch


@pytest.mark.parametrize("name", DESCRIPTORS | ABRUPT)
def test_half_the_time_step_has_a_quarter_of_the_error(name: str) -> None:
    """A random network on the descriptor, whose neighbours cross the cutoff; springs hold the atoms."""
    # Whitened, a network that is not trained is too steep to be followed by these steps.
    descriptor, start = (DESCRIPTORS | ABRUPT)[name] | {"scaling": "standardise"}, hot_copper()
    potential = trained(copper(12), descriptor, epochs=1, initialization="xavier").in_precision("float64")
    forces = potential.predict([start]).forces[0]
    potential = replace(potential, scale=potential.scale / np.sqrt(np.mean(forces**2)))  # to 1 eV/Å
    start.calc = SumCalculator([springs(start, 3.0), PotentialCalculator(potential)])
    coarse, fine = (spread(start, step, 40.0) for step in (2.0, 1.0))
    assert (coarse / fine >= FALLS) == (name in DESCRIPTORS)
