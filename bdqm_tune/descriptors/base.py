"""The contract of a descriptor: structures in, one row of features an atom out."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


class Descriptor(ABC):
    """Turns the neighbourhood of every atom into numbers that a rotation of the structure leaves unchanged."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Features an atom."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that determines the features, as plain JSON values; `name` names the descriptor."""

    @abstractmethod
    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        """Features of shape (n_atoms, n_features), in the order of the atoms.

        Raises:
            BadInput: an element has no parameters here, or a position is not finite.
        """
