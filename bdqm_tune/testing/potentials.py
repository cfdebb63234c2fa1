"""The laws that every potential keeps to."""

import pickle  # nosec B403  (of what was just pickled here)
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.calculator import make_calculator
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import FLAT_VOIGT, Potential, periodic_volume, read_potential
from bdqm_tune.testing.requirements import (
    difference,
    displaced,
    require,
    require_equal,
    rotation,
    strained,
    turned,
)

MOST_COMPONENTS = 12  # of the forces of a structure that are compared with differences


def check_potential(
    model: Potential | Ensemble,
    structures: Sequence[Atoms],
    folder: Path,
    read: Callable[[Path], Potential | Ensemble] = read_potential,
    energy_tolerance: float = 1e-7,
    force_tolerance: float = 1e-4,
    step: float = 1e-3,
    rotates: bool = True,
) -> None:
    """Check that a potential keeps to its contract, on structures of elements that it knows.

    In float64: forces are minus the differences of the energy, the stress that of strains over the volume; energies do
    not change with translation, rotation, and the order of atoms, and double with the cell; without derivatives there
    are none. Several structures are predicted as one by one, a calculator gives the same, and structures are left as
    they are. A copy by `save` and `read`, and one by pickle, predict the same as the model itself; float32 is close to
    it. Elements that it was not trained on are refused. There are parameters.

    Args:
        structures: a few, small, and of these a periodic one if the model is for such; away from any jump.
        folder: does not exist yet.
        read: what reads what `save` writes.
        energy_tolerance: eV an atom.
        force_tolerance: eV/Å; of the stress, times the volume, eV, in the same number.
        step: of the differences, Å, and of a strain.
        rotates: whether the energy does not change with a rotation, as that of `GMPGroups` does.

    Raises:
        AssertionError: which law is broken, and by how much.

    Examples:
        >>> check_potential(model, read("small.xyz", ":"), tmp_path / "model")  # doctest: +SKIP
    """
    require(len(structures) > 0, "no structures to check on")
    require(isinstance(model.n_parameters, int) and model.n_parameters > 0, f"n_parameters is {model.n_parameters}")
    require(model.trained_on_forces in (True, False, None), f"trained_on_forces is {model.trained_on_forces!r}")
    _check_elements(model, structures[0])
    exact = model if isinstance(model, Ensemble) else model.in_precision("float64")
    for number, atoms in enumerate(structures):
        where = f"structure {number}, {atoms.get_chemical_formula()}"
        tolerance = energy_tolerance * len(atoms)
        _check_results(exact, atoms, tolerance, force_tolerance, where)
        _check_differences(exact, atoms, force_tolerance, step, where)
        _check_invariance(exact, atoms, tolerance, rotates, where)
        _check_doubled(exact, atoms, tolerance, force_tolerance, where)
    _check_several(exact, structures, energy_tolerance, force_tolerance)
    if not isinstance(model, Ensemble):
        _check_precision(model, structures)
    model.save(folder)
    for how, copy in (("save and read", read(folder)), ("pickle", pickle.loads(pickle.dumps(model)))):  # nosec B301
        _check_copy(model, copy, structures, how)


def _check_elements(model: Potential | Ensemble, atoms: Atoms) -> None:
    if (known := model.known_elements) is None:
        return
    unknown = next(z for z in range(1, 87) if z not in known)
    strange = atoms.copy()
    strange.numbers[0] = unknown
    for request in (lambda: model.results(strange), lambda: model.predict([atoms, strange])):
        try:
            request()
        except BadInput:
            continue
        raise AssertionError(f"{chemical_symbols[unknown]} is not among the known elements, and is predicted")


def _check_results(model: Potential | Ensemble, atoms: Atoms, energy: float, force: float, where: str) -> None:
    before = atoms.copy()
    found, alone = model.results(atoms), model.results(atoms, derivatives=False)
    require(atoms == before, f"{where}: the structure was changed")
    require(isinstance(found["energy"], float), f"{where}: energy is a {type(found['energy']).__name__}, not a float")
    require_equal(alone["energy"], found["energy"], energy, f"{where}: energy without derivatives")
    require(not {"forces", "stress"} & alone.keys(), f"{where}: there are derivatives that nobody requested")
    require(np.shape(found["forces"]) == (len(atoms), 3), f"{where}: forces are {np.shape(found['forces'])}")
    require(found["forces"].dtype == np.float64, f"{where}: forces are {found['forces'].dtype}")
    has_stress = periodic_volume(atoms) > 0
    require(("stress" in found) == has_stress, f"{where}: {'no' if has_stress else 'a'} stress")
    calculated = atoms.copy()
    calculated.calc = make_calculator(model)
    require_equal(calculated.get_forces(), found["forces"], force, f"{where}: forces of the calculator")
    require_equal(calculated.get_potential_energy(), found["energy"], energy, f"{where}: energy of the calculator")
    if has_stress:
        require_equal(calculated.get_stress(), found["stress"], force, f"{where}: stress of the calculator")


def _check_differences(model: Potential | Ensemble, atoms: Atoms, tolerance: float, step: float, where: str) -> None:
    def energy(changed: Atoms) -> Any:
        return np.float64(model.results(changed, derivatives=False)["energy"])

    found = model.results(atoms)
    components = np.random.default_rng(0).permutation(3 * len(atoms))[:MOST_COMPONENTS]
    by_differences = [
        -difference(lambda by, i=i, axis=axis: energy(displaced(atoms, i, axis, by)), step)  # type: ignore[misc]
        for i, axis in (divmod(int(component), 3) for component in components)
    ]
    # What rounding and the step leave grows with the forces.
    scale = max(1.0, float(np.abs(found["forces"]).max()))
    forces = found["forces"].reshape(-1)[components]
    require_equal(forces, by_differences, tolerance * scale, f"{where}: forces, and differences of the energy")
    total = np.abs(found["forces"].sum(axis=0)).max()
    require(total <= tolerance * scale, f"{where}: the forces add up to {total:.2g} eV/Å, not to 0")
    if "stress" in found:
        virial = [
            difference(lambda by, a=a, b=b: energy(strained(atoms, a, b, by)), step)  # type: ignore[misc]
            for a, b in (divmod(flat, 3) for flat in FLAT_VOIGT)
        ]
        given = found["stress"] * periodic_volume(atoms)
        scale = max(1.0, float(np.abs(given).max()))
        require_equal(given, virial, tolerance * scale, f"{where}: stress · volume, and differences by strain")


def _check_invariance(model: Potential | Ensemble, atoms: Atoms, tolerance: float, rotates: bool, where: str) -> None:
    random = np.random.default_rng(1)
    energy = model.results(atoms, derivatives=False)["energy"]
    moved = atoms.copy()
    moved.positions += random.uniform(-10, 10, 3)
    changed = {"a translation": moved, "another order of atoms": atoms[::-1]}
    if rotates:
        changed["a rotation"] = turned(atoms, rotation(random))
    for what, other in changed.items():
        now = model.results(other, derivatives=False)["energy"]
        require_equal(now, energy, tolerance, f"{where}: energy after {what}")


def _check_doubled(model: Potential | Ensemble, atoms: Atoms, energy: float, force: float, where: str) -> None:
    if not atoms.pbc.any():
        return
    repeats = np.ones(3, dtype=int)
    repeats[int(np.argmax(atoms.pbc))] = 2
    single, double = model.results(atoms), model.results(atoms.repeat(repeats.tolist()))
    require_equal(double["energy"], 2 * single["energy"], 2 * energy, f"{where}: energy of two cells")
    require_equal(double["forces"], np.tile(single["forces"], (2, 1)), force, f"{where}: forces in two cells")


def _check_several(model: Potential | Ensemble, structures: Sequence[Atoms], energy: float, force: float) -> None:
    predicted, alone = model.predict(list(structures)), model.predict(list(structures), forces=False)
    require(alone.forces is None, "predict(forces=False) gives forces")
    require(predicted.forces is not None and len(predicted.forces) == len(structures), "predict gives no forces")
    for i, atoms in enumerate(structures):
        found, tolerance = model.results(atoms), energy * len(atoms)
        require_equal(predicted.energies[i], found["energy"], tolerance, f"structure {i}: energy of several")
        require_equal(alone.energies[i], found["energy"], tolerance, f"structure {i}: energy of several, alone")
        require_equal((predicted.forces or [])[i], found["forces"], force, f"structure {i}: forces of several")


def _check_precision(model: Potential, structures: Sequence[Atoms]) -> None:
    """Single precision is close to double, and neither changes the model that it is made from."""
    before = model.results(structures[0])["energy"]
    single, double = model.in_precision("float32"), model.in_precision("float64")
    require(model.results(structures[0])["energy"] == before, "in_precision changes the model itself")
    for i, atoms in enumerate(structures):
        coarse, fine = single.results(atoms), double.results(atoms)
        tolerance = 1e-5 * max(1.0, abs(fine["energy"])) + 1e-3 * len(atoms)
        require_equal(coarse["energy"], fine["energy"], tolerance, f"structure {i}: energies in float32 and float64")


def _check_copy(model: Potential | Ensemble, copy: Any, structures: Sequence[Atoms], how: str) -> None:
    for name in ("n_parameters", "known_elements", "trained_on_forces"):
        left, right = getattr(copy, name), getattr(model, name)
        require(left == right, f"{how}: {name} is {left!r}, and was {right!r}")
    for i, atoms in enumerate(structures):
        left, right = copy.results(atoms), model.results(atoms)
        for name in ("energy", "forces"):
            scale = max(1.0, float(np.abs(right[name]).max()))
            require_equal(left[name], right[name], 1e-10 * scale, f"{how}: {name} of structure {i}")
