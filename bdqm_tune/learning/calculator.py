"""A potential, or an ensemble of them, as an ASE calculator."""

import warnings
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.extrapolation import far_outside
from bdqm_tune.learning.potential import NO_STRESS, Potential, periodic_volume

DERIVATIVES = {"forces", "stress", "forces_std"}


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """Energies in eV, forces in eV/Å, and the stress of a periodic structure in eV/Å³.

    `free_energy` is the energy: models have no electronic temperature. Forces and stress are derivatives of the energy.
    For a model trained on energies only, one warning says so, and `trained_on_forces` is False (None: not known).

    `results` are of one structure, `atoms`; forces and stress are computed together. A potential's say as
    `extrapolation` how far the structure is outside the training split, in widths of that, of the atom that is
    furthest: one warning says so above 0.5.

    Calculating raises BadInput for an element that the model was not trained on, and PropertyNotImplementedError for
    the stress of a structure that is not periodic or whose cell has no volume.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's own form)

    def __init__(self, potential: Potential | Ensemble, allow_unknown_elements: bool = False) -> None:
        """
        Args:
            allow_unknown_elements: predict elements that the model was not trained on, and warn of them.
        """
        super().__init__()
        self.potential = potential
        self.allow_unknown_elements = allow_unknown_elements
        self.trained_on_forces = potential.trained_on_forces
        self._warned = self._warned_outside = False

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        # Another dictionary, as a shallow copy of this calculator has the same one; empty, if what follows fails.
        self.results: dict[str, Any] = {}
        wanted = set(properties or ["energy"])
        note = untrained_forces(self.potential)
        if wanted & DERIVATIVES and note and not self._warned:
            self._warned = True
            warnings.warn(note, stacklevel=2)
        if "stress" in wanted and not periodic_volume(self.atoms):
            raise PropertyNotImplementedError(NO_STRESS)
        found = self.potential.results(self.atoms, bool(wanted & DERIVATIVES), self.allow_unknown_elements)
        self.results = {**found, "free_energy": found["energy"]}
        if (note := far_outside([found.get("extrapolation")])) and not self._warned_outside:
            self._warned_outside = True
            warnings.warn(note, stacklevel=2)


class EnsembleCalculator(PotentialCalculator):
    """The mean prediction of an ensemble, and in `results` also its uncertainty.

    `energy_std` (eV) and `forces_std` (n_atoms, 3), eV/Å: standard deviations over the members. `energy_interval`, eV:
    low and high end of the interval with the ensemble's stated coverage, if it is calibrated.
    """

    potential: Ensemble

    def __init__(self, ensemble: Ensemble, allow_unknown_elements: bool = False) -> None:
        super().__init__(ensemble, allow_unknown_elements)
        more = ["energy_std", "forces_std", *(["energy_interval"] if ensemble.calibration else [])]
        self.implemented_properties = [*PotentialCalculator.implemented_properties, *more]


def make_calculator(model: Potential | Ensemble, allow_unknown_elements: bool = False) -> PotentialCalculator:
    """The ASE calculator of a potential or an ensemble."""
    if isinstance(model, Ensemble):
        return EnsembleCalculator(model, allow_unknown_elements)
    return PotentialCalculator(model, allow_unknown_elements)


def untrained_forces(model: Potential | Ensemble) -> str:
    """A warning about the forces of a model that was not trained on forces; empty if it was."""
    if model.trained_on_forces:
        return ""
    unknown = model.trained_on_forces is None
    known = "does not say whether it was trained on forces" if unknown else "was trained on energies only"
    return f"this model {known}: its forces are the derivative of its energy, and may be far from the true ones"
