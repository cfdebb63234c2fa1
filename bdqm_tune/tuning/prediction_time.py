"""How long the models of a study's trials take to predict, as an objective of theirs."""

import hashlib
import json
import threading

import numpy as np
import optuna
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import Descriptor
from bdqm_tune.learning.cost import descriptor_seconds, energy_seconds, network_seconds, some_of
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.potential import Potential

DESCRIPTOR_TIME = "descriptor_seconds_per_atom"  # attribute of a study, with the descriptor's digest


class PredictionTime:
    """Times the models of trials, one at a time, whatever else their threads do.

    The time of a descriptor is measured once a study: trials that share it differ by their networks alone, by
    less than what the descriptor's time varies by from one measurement to the next.

    Args:
        structures: that are predicted, or some of them.
    """

    def __init__(self, structures: list[Atoms]) -> None:
        self._structures = some_of(structures)
        self._one_at_a_time = threading.Lock()
        self._features: tuple[str, list[NDArray[np.float64]]] = "", []  # by the latest descriptor

    def per_atom(self, study: optuna.Study, potential: Potential) -> float:
        """Seconds an atom for the energy of a structure: descriptor and network."""
        if not isinstance(potential, NetworkPotential):
            with self._one_at_a_time:
                return energy_seconds(potential, self._structures)
        settings = json.dumps(potential.descriptor.settings, sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
        with self._one_at_a_time:
            if self._features[0] != digest:
                self._features = digest, [potential.descriptor.compute(atoms) for atoms in self._structures]
            of_descriptor = self._of_descriptor(study, digest, potential.descriptor)
            return of_descriptor + network_seconds(potential, self._structures, self._features[1])

    def _of_descriptor(self, study: optuna.Study, digest: str, descriptor: Descriptor) -> float:
        key = f"{DESCRIPTOR_TIME}_{digest}"
        if (known := study.user_attrs.get(key)) is None:
            study.set_user_attr(key, descriptor_seconds(descriptor, self._structures))
            known = study.user_attrs[key]  # of several workers that measure it, most have the latest one's
        return float(known)
