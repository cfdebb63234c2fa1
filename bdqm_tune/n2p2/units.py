"""The units of a potential's files: n2p2 has none of its own, its potentials have those of their training data."""

from dataclasses import dataclass

from ase import units

from bdqm_tune.errors import BadInput, shown

LENGTHS = {"bohr": units.Bohr, "angstrom": 1.0}  # Å
ENERGIES = {"hartree": units.Hartree, "eV": 1.0}  # eV


@dataclass(frozen=True)
class FileUnits:
    """What lengths and energies in the files are in."""

    length: str = "bohr"
    energy: str = "hartree"

    def __post_init__(self) -> None:
        for name, value, known in (("length", self.length, LENGTHS), ("energy", self.energy, ENERGIES)):
            if value not in known:
                raise BadInput(f"{name} unit {shown(value)}: must be {' or '.join(known)}")

    @property
    def angstrom(self) -> float:
        """One unit of length, Å."""
        return LENGTHS[self.length]

    @property
    def electronvolt(self) -> float:
        """One unit of energy, eV."""
        return ENERGIES[self.energy]
