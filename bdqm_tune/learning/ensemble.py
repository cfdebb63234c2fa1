"""Ensembles: the mean prediction of several potentials, and their spread as its uncertainty."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from bdqm_tune.config.config import describe
from bdqm_tune.config.options import Options
from bdqm_tune.descriptors import Descriptor
from bdqm_tune.descriptors.base import EnergyDerivatives
from bdqm_tune.errors import BadInput, located
from bdqm_tune.files import write_whole
from bdqm_tune.learning.calibration import Calibration
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.potential import Potential, given_stress, periodic_volume, read_potential, stress_of

ENSEMBLE = "ensemble.json"


class EnsemblePrediction(NamedTuple):
    """Predictions of an ensemble, and their standard deviations over the members."""

    energies: NDArray[np.float64]  # (n_structures,), eV, mean over the members
    energy_std: NDArray[np.float64]  # (n_structures,), eV
    forces: list[NDArray[np.float64]] | None = None  # each (n_atoms, 3), eV/Å; None: not requested
    forces_std: list[NDArray[np.float64]] | None = None  # each (n_atoms, 3), eV/Å


class Ensemble:
    """Predicts the mean of its members, in float64, and their sample standard deviation (n - 1 in the divisor).

    Args:
        members: two or more, by name.
        calibration: gives the interval of an energy from its spread; None: no intervals.

    Raises:
        BadInput: fewer than two members.
    """

    def __init__(self, members: dict[str, Potential], calibration: Calibration | None = None) -> None:
        if len(members) < 2:
            raise BadInput(f"an ensemble needs at least 2 members, got {len(members)}")
        self.members = {name: member.in_precision("float64") for name, member in members.items()}
        self.calibration = calibration

    @property
    def trained_on_forces(self) -> bool | None:
        """Whether all members were trained on forces; None: not known of some."""
        known = {member.trained_on_forces for member in self.members.values()}
        return False if False in known else None if None in known else True

    @cached_property
    def by_descriptor(self) -> list[tuple[Descriptor, list[tuple[int, NetworkPotential]]]]:
        """The distinct descriptors, each with the members that share its features and their places in the ensemble."""
        groups: dict[str, tuple[Descriptor, list[tuple[int, NetworkPotential]]]] = {}
        for i, member in enumerate(self.members.values()):
            if isinstance(member, NetworkPotential):
                key = json.dumps(member.descriptor.settings, sort_keys=True)
                groups.setdefault(key, (member.descriptor, []))[1].append((i, member))
        return list(groups.values())

    @cached_property
    def others(self) -> list[tuple[int, Potential]]:
        """The members that have no descriptor, and their places in the ensemble."""
        return [(i, each) for i, each in enumerate(self.members.values()) if not isinstance(each, NetworkPotential)]

    @property
    def n_parameters(self) -> int | None:
        """Trainable parameters of all members together; None: not known of some."""
        known = [member.n_parameters for member in self.members.values()]
        return None if None in known else sum(n or 0 for n in known)

    @property
    def known_elements(self) -> tuple[int, ...] | None:
        """Atomic numbers of the elements that all members were trained on; None: not known of any."""
        known = [set(e) for member in self.members.values() if (e := member.known_elements) is not None]
        return tuple(sorted(set.intersection(*known))) if known else None

    def predict(
        self, structures: list[Atoms], forces: bool = True, allow_unknown_elements: bool = False
    ) -> EnsemblePrediction:
        """Mean and standard deviation of energies and, with `forces`, of the components of the forces.

        Args:
            allow_unknown_elements: as that of `Potential.predict`.

        Raises:
            BadInput: an element that a member was not trained on, or that a descriptor does not know, or positions
                that are not finite.
        """
        check_elements(self.known_elements, structures, allow_unknown_elements)
        if not forces:
            return self.predict_features(structures, lambda descriptor: _computed(descriptor, structures))
        found = [self._evaluate(atoms) for atoms in structures]
        mean, std = _mean_and_std(np.reshape([energies for energies, _ in found], (-1, len(self.members))).T)
        pairs = [_mean_and_std(of_members.forces) for _, of_members in found]
        return EnsemblePrediction(mean, std, [pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def _evaluate(self, atoms: Atoms) -> tuple[NDArray[np.float64], EnergyDerivatives]:
        """Energies (n_members,), eV, of one structure, and their derivatives."""
        n = len(self.members)
        energies, forces, by_strain = np.empty(n), np.empty((n, len(atoms), 3)), np.empty((n, 3, 3))
        for descriptor, members in self.by_descriptor:
            features, backward = descriptor.with_backward(atoms)
            places, gradients = [], []
            for i, member in members:
                energies[i], gradient, _ = member.of_features(features, atoms, True)
                places.append(i)
                gradients.append(gradient)
            forces[places], by_strain[places] = backward(np.array(gradients))
        for i, other in self.others:
            found = other.evaluate(atoms, True)
            energies[i], forces[i] = found["energy"], found["forces"]
            stress = found.get("stress", np.zeros(6))
            by_strain[i] = periodic_volume(atoms) * voigt_6_to_full_3x3_stress(stress)
        return energies, EnergyDerivatives(forces, by_strain)

    def predict_features(
        self, structures: list[Atoms], features_of: Callable[[Descriptor], NDArray[np.float64]]
    ) -> EnsemblePrediction:
        """Energies alone.

        Args:
            features_of: gives the features (total atoms, n_features) of the structures for a descriptor.
        """
        energies = np.empty((len(self.members), len(structures)))
        for descriptor, members in self.by_descriptor:
            features = features_of(descriptor)
            for i, member in members:
                energies[i] = member.predict_features(features, structures)
        for i, other in self.others:
            energies[i] = [other.evaluate(atoms, False)["energy"] for atoms in structures]
        return EnsemblePrediction(*_mean_and_std(energies))

    def stress(self, atoms: Atoms, allow_unknown_elements: bool = False) -> NDArray[np.float64]:
        """Mean stress (6,) of a periodic structure, eV/Å³, in the order xx, yy, zz, yz, xz, xy; raises as `predict`."""
        return given_stress(self.results(atoms, True, allow_unknown_elements))

    def results(self, atoms: Atoms, derivatives: bool = True, allow_unknown_elements: bool = False) -> dict[str, Any]:
        """All that is predicted of one structure, under ASE's names and energy_std, forces_std, energy_interval; eV, Å.

        Forces and their deviations with `derivatives`, and then the mean stress of a periodic structure with a volume.

        Raises:
            BadInput: as `predict`.
        """
        check_elements(self.known_elements, [atoms], allow_unknown_elements)
        results: dict[str, Any] = {}
        if derivatives:
            energies, of_members = self._evaluate(atoms)
            mean, std = _mean_and_std(energies[:, None])
            results["forces"], results["forces_std"] = _mean_and_std(of_members.forces)
            results |= stress_of(of_members.by_strain.mean(axis=0), atoms)
        else:
            mean, std, *_ = self.predict_features([atoms], lambda descriptor: descriptor.compute(atoms))
        energy = float(mean[0])
        results |= {"energy": energy, "energy_std": float(std[0])}
        if self.calibration is not None:
            half = float(self.calibration.half_widths(std, np.array([len(atoms)]))[0])
            results["energy_interval"] = np.array([energy - half, energy + half])
        return results

    def save(self, folder: Path) -> None:
        """Write `ensemble.json`, and each member into a folder of its name. Raises OSError if that fails."""
        for name, member in self.members.items():
            member.save(folder / name)
        calibration = CalibrationDescription.of(self.calibration) if self.calibration else None
        description = EnsembleDescription(format=1, members=list(self.members), calibration=calibration)
        write_whole(folder / ENSEMBLE, description.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "Ensemble":
        """Read what `save` wrote.

        Raises:
            BadInput: the folder holds no ensemble, or a damaged one.
        """
        path = Path(folder)
        try:
            description = EnsembleDescription.model_validate_json((path / ENSEMBLE).read_bytes())
            with located(f"{path}: {ENSEMBLE}"):
                calibration = description.calibration.calibration() if description.calibration else None
            return cls({name: read_potential(path / name) for name in description.members}, calibration)
        except OSError as error:
            raise BadInput(f"{path}: no ensemble there ({ENSEMBLE}: {error.strerror})") from None
        except ValidationError as error:
            raise BadInput(f"{path}: {ENSEMBLE}: {describe(error, EnsembleDescription)}") from None


class CalibrationDescription(Options):
    """A `Calibration` as plain values."""

    coverage: Annotated[float, Field(gt=0, lt=1)]
    floor: Annotated[float, Field(gt=0)]  # eV an atom
    scores: list[Annotated[float, Field(ge=0)]]  # ascending

    @classmethod
    def of(cls, calibration: Calibration) -> "CalibrationDescription":
        """The plain values of a calibration."""
        return cls(coverage=calibration.coverage, floor=calibration.floor, scores=calibration.scores.tolist())

    def calibration(self) -> Calibration:
        """The calibration with these values. Raises BadInput if they fit no calibration."""
        return Calibration(np.array(self.scores), self.floor, self.coverage)


class EnsembleDescription(Options):
    """The content of `ensemble.json`."""

    format: Literal[1]
    # Names of folders beside the file: no path leads elsewhere.
    members: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]], Field(min_length=2)]
    calibration: CalibrationDescription | None


def _computed(descriptor: Descriptor, structures: list[Atoms]) -> NDArray[np.float64]:
    empty = np.zeros((0, descriptor.n_features))
    return np.concatenate([empty, *(descriptor.compute(atoms) for atoms in structures)])


def _mean_and_std(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Over the first axis."""
    return values.mean(axis=0), values.std(axis=0, ddof=1)
