"""Frames that are nearly those before them are noticed; independent ones are not."""

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from bdqm_tune.structures import Unlabelled, trajectory_note
from bdqm_tune.structures.trajectory import displacement


def note(images: list[Atoms]) -> str:
    return trajectory_note(Unlabelled("md.traj", images, np.arange(len(images)), "0"))


def dynamics(steps: int) -> list[Atoms]:
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    images: list[Atoms] = []
    run = VelocityVerlet(atoms, 5 * units.fs)
    run.attach(lambda: images.append(atoms.copy()))
    run.run(steps)
    return images


def rattled(n: int, atoms: Atoms) -> list[Atoms]:
    random, images = np.random.default_rng(1), []
    for _ in range(n):
        image = atoms.copy()
        image.set_cell(image.cell * random.uniform(0.97, 1.03), scale_atoms=True)
        image.positions += random.normal(scale=0.1, size=image.positions.shape)
        images.append(image)
    return images


def test_molecular_dynamics_is_noticed_and_what_is_drawn_independently_is_not() -> None:
    images = dynamics(60)
    assert "md.traj: of 60 pairs of consecutive frames" in note(images)
    assert "data.validation.split: blocks" in note(images)
    shuffled = [images[i] for i in np.random.default_rng(0).permutation(len(images))]
    assert note(shuffled) == ""
    assert note(rattled(60, bulk("Cu", cubic=True))) == ""
    assert note(rattled(60, molecule("C6H6"))) == ""
    assert note([molecule("H2O")]) == ""
    assert note([molecule(name) for name in ("H2O", "CH4", "CO", "CO2")]) == ""


def test_a_displacement_is_that_of_the_nearest_images_without_a_shift() -> None:
    one = bulk("Cu", cubic=True)
    other = one.copy()
    other.positions += [5 * 3.61, 0.2, 0.1]
    other.positions[0] += [0.0, 0.04, 0.0]
    other.wrap()
    # One of four atoms is displaced by 0.04 Å, the mean by 0.01 Å.
    assert np.isclose(displacement(one, other), np.sqrt((0.03**2 + 3 * 0.01**2) / 4))
