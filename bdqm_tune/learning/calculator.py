"""A potential, or an ensemble of them, as an ASE calculator."""

import warnings
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential

DERIVATIVES = {"forces", "stress", "forces_std"}


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """Energies in eV, forces in eV/Å, and the stress of a periodic structure in eV/Å³.

    `free_energy` is the energy: models have no electronic temperature. Forces and stress are derivatives of the energy.
    For a model trained on energies only, one warning says so, and `trained_on_forces` is False (None: not known).

    Calculating raises BadInput for an element that the model does not know, and PropertyNotImplementedError for the
    stress of a structure that is not periodic or whose cell has no volume.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's own form)

    def __init__(self, potential: Potential | Ensemble) -> None:
        super().__init__()
        self.potential = potential
        self.trained_on_forces = potential.trained_on_forces
        self._warned = False

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        wanted = set(properties or ["energy"])
        note = untrained_forces(self.potential)
        if wanted & DERIVATIVES and note and not self._warned:
            self._warned = True
            warnings.warn(note, stacklevel=2)
        if "stress" in wanted:
            if not self.atoms.pbc.any() or self.atoms.cell.rank < 3:
                raise PropertyNotImplementedError("a stress needs a periodic structure in a cell with a volume")
            self.results["stress"] = self.potential.stress(self.atoms)
        self.results |= self._predict(forces=bool(wanted & {"forces", "forces_std"}))
        self.results["free_energy"] = self.results["energy"]

    def _predict(self, forces: bool) -> dict[str, Any]:
        """Predictions for `self.atoms`, under ASE's names."""
        prediction = self.potential.predict([self.atoms], forces=forces)
        results: dict[str, Any] = {"energy": float(prediction.energies[0])}
        if prediction.forces is not None:
            (results["forces"],) = prediction.forces
        return results


class EnsembleCalculator(PotentialCalculator):
    """The mean prediction of an ensemble, and in `results` also its uncertainty.

    `energy_std` (eV) and `forces_std` (n_atoms, 3), eV/Å: standard deviations over the members. `energy_interval`, eV:
    low and high end of the interval with the ensemble's stated coverage, if it is calibrated.
    """

    potential: Ensemble

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__(ensemble)
        more = ["energy_std", "forces_std", *(["energy_interval"] if ensemble.calibration else [])]
        self.implemented_properties = [*PotentialCalculator.implemented_properties, *more]

    def _predict(self, forces: bool) -> dict[str, Any]:
        return self.potential.results(self.atoms, forces)


def make_calculator(model: Potential | Ensemble) -> PotentialCalculator:
    """The ASE calculator of a potential or an ensemble."""
    return EnsembleCalculator(model) if isinstance(model, Ensemble) else PotentialCalculator(model)


def untrained_forces(model: Potential | Ensemble) -> str:
    """A warning about the forces of a model that was not trained on forces; empty if it was."""
    if model.trained_on_forces:
        return ""
    unknown = model.trained_on_forces is None
    known = "does not say whether it was trained on forces" if unknown else "was trained on energies only"
    return f"this model {known}: its forces are the derivative of its energy, and may be far from the true ones"
