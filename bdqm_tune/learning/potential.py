"""The contract of a model: structures in, energies, forces and stress out, whatever trained it.

All that uses a model (evaluation, ensembles, registry, calculator, serving, `predict`) uses this and no more.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.config.backends import find_backend, named
from bdqm_tune.errors import BadInput, located
from bdqm_tune.learning.known_elements import check_elements

DESCRIPTION = "potential.json"  # of a folder with a model
Precision = Literal["float32", "float64"]
NO_STRESS = "a stress needs a periodic structure in a cell with a volume"
FLAT_VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy of a flat matrix


class Prediction(NamedTuple):
    """Energies and forces that a potential predicts, and how far from what it was trained on."""

    energies: NDArray[np.float64]  # (n_structures,), eV
    forces: list[NDArray[np.float64]] | None = None  # each (n_atoms, 3), eV/Å; None: not requested
    # (n_structures,) of the atom that is furthest outside the training split, see `Scaler.outside`; None: not known
    extrapolation: NDArray[np.float64] | None = None


class Potential(Protocol):
    """A trained model of the potential energy. Energies are in eV, lengths in Å.

    A backend's model is a subclass with the properties, `evaluate`, `in_precision` and `save`; it is read again by what
    the backend declares as `load`. `results`, `predict` and `stress` come from here.
    """

    @property
    def known_elements(self) -> tuple[int, ...] | None:
        """Atomic numbers of the elements of the training split; None: not known."""
        ...

    @property
    def trained_on_forces(self) -> bool | None:
        """Whether forces were trained; None: not known."""
        ...

    @property
    def n_parameters(self) -> int | None:
        """Trainable parameters; None: not known."""
        ...

    def evaluate(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        """What `results` returns, of a structure whose elements were checked."""
        ...

    def in_precision(self, precision: Precision) -> "Potential":
        """The same model, computed in `float32` or `float64`."""
        ...

    def save(self, folder: Path) -> None:
        """Write all that the model needs into a folder, which is made; `potential.json` there names the backend.

        Raises:
            OSError: that fails.
        """
        ...

    def results(self, atoms: Atoms, derivatives: bool = True, allow_unknown_elements: bool = False) -> dict[str, Any]:
        """All that is predicted of one structure, under ASE's names.

        `energy`, eV, of the whole structure; with `derivatives` `forces` (n_atoms, 3), eV/Å, and, of a periodic
        structure with a volume, `stress` (6,), eV/Å³, in the order xx, yy, zz, yz, xz, xy, positive under tension.
        `extrapolation` as in a `Prediction`, where it is known.

        Args:
            allow_unknown_elements: predict elements that the model was not trained on, and warn (`UnknownElement`).

        Raises:
            BadInput: such an element, one that the model cannot describe, or positions that are not finite.
        """
        check_elements(self.known_elements, [atoms], allow_unknown_elements)
        return self.evaluate(atoms, derivatives)

    def predict(self, structures: list[Atoms], forces: bool = True, allow_unknown_elements: bool = False) -> Prediction:
        """Total energies, eV, and, with `forces`, the forces on the atoms, eV/Å. Arguments and errors of `results`."""
        check_elements(self.known_elements, structures, allow_unknown_elements)
        found = [self.evaluate(atoms, forces) for atoms in structures]
        known = [each["extrapolation"] for each in found if "extrapolation" in each]
        return Prediction(
            np.array([each["energy"] for each in found], dtype=np.float64),
            [each["forces"] for each in found] if forces else None,
            np.array(known) if len(known) == len(found) else None,
        )

    def stress(self, atoms: Atoms, allow_unknown_elements: bool = False) -> NDArray[np.float64]:
        """Stress (6,) of a periodic structure, eV/Å³, as in `results`.

        Raises:
            BadInput: as `results`; or the structure has no stress.
        """
        return given_stress(self.results(atoms, True, allow_unknown_elements))


def read_potential(folder: Path) -> Potential:
    """The model in a folder, read by the backend that `potential.json` there names; by the native one if it names none.

    Raises:
        BadInput: there is none, it is damaged, or its backend is not installed.
    """
    try:
        described = json.loads((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError):
        described = {}  # which the native backend refuses, with what is wrong
    backend = described.get("backend", "native") if isinstance(described, dict) else "native"
    with located(str(folder)):
        declared = find_backend(str(backend))
    model: Potential = named(declared.load)(folder)
    return model


def stress_of(by_strain: NDArray[np.float64], atoms: Atoms) -> dict[str, NDArray[np.float64]]:
    """Stress (6,), eV/Å³, in the order xx, yy, zz, yz, xz, xy, under its name: (dE/d strain)/volume.

    Of the derivative (3, 3), eV, the symmetric part is taken, for a rotation is no strain. There is none of a structure
    that is not periodic, or in a cell without a volume.
    """
    volume = periodic_volume(atoms)
    return {"stress": (by_strain + by_strain.T).reshape(-1)[FLAT_VOIGT] / (2 * volume)} if volume > 0 else {}


def periodic_volume(atoms: Atoms) -> float:
    """Volume of the cell, Å³; 0 if the structure is not periodic, or its cell has none."""
    return float(atoms.cell.volume) if atoms.pbc.any() else 0.0


def given_stress(results: Mapping[str, Any]) -> NDArray[np.float64]:
    """The stress among predictions. Raises BadInput if there is none."""
    if "stress" not in results:
        raise BadInput(NO_STRESS)
    stress: NDArray[np.float64] = results["stress"]
    return stress
