"""Gaussian multipole (GMP) features, normalised per order, with solid or surface harmonics.

Lei and Medford, "A universal framework for featurization of atomistic systems", J. Phys. Chem. Lett. 13, 7911 (2022).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors.base import Backward, EnergyDerivatives, SparseDerivatives
from bdqm_tune.descriptors.invariants import Kind
from bdqm_tune.descriptors.moments import channels, norms
from bdqm_tune.descriptors.multipoles import (
    MAX_ORDER,
    Multipoles,
    check_sigmas,
    cutoff_settings,
    table_from_settings,
    table_settings,
)
from bdqm_tune.descriptors.pseudodensity import Table
from bdqm_tune.errors import BadInput

VERSION = 1  # of the features; raise it when the code gives other numbers, so that cached ones are not used


def default_cutoff(sigmas: Sequence[float], threshold: float = 1e-8) -> float:
    """Distance in Å, rounded to 0.01, at which the widest probe has decayed to `threshold` (amptorch's rule).

    It solves exp(-r²/(2 sigma²))/(sigma·sqrt(2π)) = threshold, 1/Å. Raises BadInput if the probe is below it at r = 0.
    """
    widest = max(sigmas)
    amplitude = 1 / (widest * math.sqrt(2 * math.pi))
    if amplitude <= threshold:
        raise BadInput(f"descriptor sigma {widest} Å is too wide for a default cutoff; give a cutoff")
    return round(widest * math.sqrt(2 * math.log(amplitude / threshold)), 2)


class GMP(Multipoles):
    """Multipole moments of the electron density around each atom, seen through Gaussian probes.

    The feature of an order is the sum over its Maxwell–Cartesian harmonics of the squared moments, with their
    multinomial weights, as amptorch's `GMPOrderNorm` computes it: Σ_l c_nl·Σ_m mu_nlm² in the terms of `moments`. The
    amplitude of a probe is (1/(sigma·sqrt(2π)))³.

    Columns run order by order, within an order by sigma.
    """

    def __init__(
        self,
        orders: Sequence[int],
        sigmas: Sequence[float],
        cutoff: float | None,
        solid: bool = True,
        square: bool = True,
        pseudodensities: str | Path | Table | None = None,
        root_floor: float = 0.0,
        derivative_floor: float = 0.0,
        smooth_cutoff: bool = True,
    ) -> None:
        """
        Args:
            orders: orders of the harmonics, 0–9.
            sigmas: widths of the probes, Å, positive.
            cutoff: Å, positive; None: `default_cutoff(sigmas)`.
            solid: solid harmonics; else surface harmonics with r_s = 1 Å.
            square: the sum of squares itself; else its root.
            pseudodensities: folder of amptorch `.g` files, or a table by atomic number; None: the package's table.
            root_floor: with `square=False`, values below it become 0, with derivatives 0. amptorch does so (1e-2)
                where it also computes derivatives.
            derivative_floor: 1/Å; derivatives below it become 0, except for a strain, so that forces are no longer
                quite those of the energy. amptorch does so (1e-5): needed to meet forces that it predicts.
            smooth_cutoff: neighbours count less towards the cutoff, so that no feature jumps there: see
                `smooth_cutoff`. amptorch has none.

        Raises:
            BadInput: a value outside its range.
        """
        if len(orders) == 0 or len(set(orders)) != len(orders) or not set(orders) <= set(range(MAX_ORDER + 1)):
            raise BadInput(f"descriptor orders must be different integers from 0 to {MAX_ORDER}, got {list(orders)}")
        check_sigmas(sigmas)
        cutoff = default_cutoff(sigmas) if cutoff is None else cutoff
        super().__init__(sigmas, cutoff, square, root_floor, pseudodensities, smooth_cutoff)
        if not (math.isfinite(derivative_floor) and derivative_floor >= 0):
            raise BadInput(f"descriptor derivative_floor must be 0 or more, got {derivative_floor}")
        self.derivative_floor = float(derivative_floor)
        self.orders = [int(n) for n in orders]
        self.solid = solid
        self.channels = channels(self.orders, surface=not solid)
        weights = np.repeat(np.sqrt(norms(self.channels)), 2 * self.channels.l + 1)
        self.kinds = [Kind(k, np.diag(weights[self.channels.moments(k)])) for k in range(len(self.orders))]

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "name": "gmp",
            "version": VERSION,
            "orders": self.orders,
            "sigmas": self.sigmas,
            "cutoff": self.cutoff,
            "solid": self.solid,
            "square": self.square,
            "root_floor": self.root_floor,
            "pseudodensities": table_settings(self.table),
            **cutoff_settings(self.smooth_cutoff),
            # Not where it is 0: features cached before it existed are the same.
            **({"derivative_floor": self.derivative_floor} if self.derivative_floor else {}),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "GMP":
        """The descriptor whose `settings` these are."""
        arguments = {key: value for key, value in settings.items() if key not in ("name", "version", "pseudodensities")}
        return cls(
            **{"smooth_cutoff": False} | arguments, pseudodensities=table_from_settings(settings["pseudodensities"])
        )

    def sparse_derivatives(self, atoms: Atoms, images: bool = False) -> tuple[NDArray[np.float64], SparseDerivatives]:
        features, derivatives = super().sparse_derivatives(atoms, images)
        # amptorch sees the sum over the periodic images; a single image may well be small.
        if self.derivative_floor and not images:
            values = np.where(np.abs(derivatives.values) < self.derivative_floor, 0.0, derivatives.values)
            derivatives = replace(derivatives, values=values)
        return features, derivatives

    def with_backward(self, atoms: Atoms) -> tuple[NDArray[np.float64], Backward]:
        features, exact = super().with_backward(atoms)
        if not self.derivative_floor:
            return features, exact

        def backward(by_features: NDArray[np.float64]) -> EnergyDerivatives:
            # The floor is of each derivative, which the product does not compute.
            _, derivatives = self.sparse_derivatives(atoms)
            forces = np.stack([derivatives.forces(each) for each in by_features])
            return exact(by_features)._replace(forces=forces)

        return features, backward

    def _amplitudes(self) -> list[float]:
        return [(1 / (sigma * math.sqrt(2 * math.pi))) ** 3 for sigma in self.sigmas]
