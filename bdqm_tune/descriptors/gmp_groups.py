"""Gaussian multipole (GMP) features of single groups of Maxwell–Cartesian harmonics.

Lei and Medford, "A universal framework for featurization of atomistic systems", J. Phys. Chem. Lett. 13, 7911 (2022).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bdqm_tune.descriptors import maxwell
from bdqm_tune.descriptors.invariants import Kind
from bdqm_tune.descriptors.moments import channels
from bdqm_tune.descriptors.multipoles import (
    MAX_ORDER,
    Multipoles,
    cutoff_settings,
    table_from_settings,
    table_settings,
)
from bdqm_tune.descriptors.pseudodensity import Table
from bdqm_tune.errors import BadInput

VERSION = 1  # of the features; raise it when the code gives other numbers, so that cached ones are not used


class GMPGroups(Multipoles):
    """One feature for every order, group of harmonics, and width, as amptorch's `GMP` computes it.

    The harmonics are surface harmonics with r_s = 1 Å (see `moments`), the amplitude of a probe is 1/(sigma·sqrt(2π)).
    The feature of a group is the sum of its squared moments, one for each permutation of the axes.

    A rotation mixes the groups of an order: except for orders 0 and 1 the features depend on the orientation of the
    structure, and are invariant under permutation of the axes only. `GMP` is invariant under rotation.

    Columns run order by order, then group by group, then by sigma.
    """

    signed = True

    def __init__(
        self,
        groups: Mapping[int, Sequence[int]],
        sigmas: Sequence[float],
        cutoff: float,
        square: bool,
        pseudodensities: str | Path | Table | None = None,
        root_floor: float = 0.0,
        smooth_cutoff: bool = True,
    ) -> None:
        """
        Args:
            groups: order, 0–9 → its groups, numbered from 1 as in `maxwell.groups`.
            sigmas: widths of the probes, Å, positive.
            cutoff: Å, positive.
            square: the sum of the squares itself; else its root, or the moment with its sign where the group has one
                harmonic only, as (0, 0, 0) and (1, 1, 1) have.
            pseudodensities: folder of amptorch `.g` files, or a table by atomic number; None: the package's table.
            root_floor: roots below it become 0, with derivatives 0. amptorch does so (1e-8) where it also computes
                derivatives.
            smooth_cutoff: as for `GMP`.

        Raises:
            BadInput: a value outside its range.
        """
        super().__init__(sigmas, cutoff, square, root_floor, pseudodensities, smooth_cutoff)
        self.groups = _checked(groups)
        self.channels = channels(list(self.groups), surface=True)
        self.kinds = []
        for place, (order, numbers) in enumerate(self.groups.items()):
            rows = maxwell.from_moments(self.channels, place)
            for number in numbers:
                self.kinds.append(Kind(place, rows[maxwell.members(order, maxwell.groups(order)[number - 1])]))

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "name": "gmp_groups",
            "version": VERSION,
            # A list: the order of the columns is that of the orders, which keys of a JSON object need not keep.
            "groups": [[order, numbers] for order, numbers in self.groups.items()],
            "sigmas": self.sigmas,
            "cutoff": self.cutoff,
            "square": self.square,
            "root_floor": self.root_floor,
            "pseudodensities": table_settings(self.table),
            **cutoff_settings(self.smooth_cutoff),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "GMPGroups":
        """The descriptor whose `settings` these are."""
        arguments = {key: value for key, value in settings.items() if key not in ("name", "version")}
        return cls(
            **{"smooth_cutoff": False}
            | arguments
            | {
                "groups": dict(arguments["groups"]),
                "pseudodensities": table_from_settings(arguments["pseudodensities"]),
            }
        )

    def _amplitudes(self) -> list[float]:
        return [1 / (sigma * math.sqrt(2 * math.pi)) for sigma in self.sigmas]


def _checked(groups: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """The groups with plain keys and values. Raises BadInput for an order or a group that does not exist."""
    if len(groups) == 0:
        raise BadInput("descriptor groups must name an order at least, as {0: [1], 1: [1]}, got none")
    for order, numbers in groups.items():
        if order not in range(MAX_ORDER + 1):
            raise BadInput(f"descriptor groups: orders are integers from 0 to {MAX_ORDER}, got {order!r}")
        count = len(maxwell.groups(order))
        if len(numbers) == 0 or len(set(numbers)) != len(numbers) or not set(numbers) <= set(range(1, count + 1)):
            raise BadInput(
                f"descriptor groups of order {order} must be different integers from 1 to {count}, got {list(numbers)}"
            )
    return {int(order): [int(number) for number in numbers] for order, numbers in groups.items()}
