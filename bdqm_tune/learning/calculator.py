"""A potential as an ASE calculator."""

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from bdqm_tune.learning.potential import Potential


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """Energies in eV, forces in eV/Å, and the stress of a periodic structure in eV/Å³."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012  (ASE's own form)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        wanted = properties or ["energy"]
        if "stress" in wanted:
            if not self.atoms.pbc.any() or self.atoms.cell.rank < 3:
                raise PropertyNotImplementedError("a stress needs a periodic structure in a cell with a volume")
            self.results["stress"] = self.potential.stress(self.atoms)
        prediction = self.potential.predict([self.atoms], forces="forces" in wanted)
        self.results["energy"] = float(prediction.energies[0])
        if prediction.forces is not None:
            (self.results["forces"],) = prediction.forces
