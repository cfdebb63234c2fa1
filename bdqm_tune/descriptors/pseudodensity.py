"""Valence pseudo-densities of the elements as sums of Gaussians, B·exp(-beta·r²)."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput


@dataclass(frozen=True)
class PseudoDensity:
    """The Gaussians of one element."""

    amplitude: NDArray[np.float64]  # (n_gaussians,) B, electrons/Å³
    exponent: NDArray[np.float64]  # (n_gaussians,) beta, 1/Å²

    @property
    def electrons(self) -> float:
        """Number of electrons: the integral over all space."""
        return float(np.sum(self.amplitude * (np.pi / self.exponent) ** 1.5))


Table = dict[int, PseudoDensity]


@cache
def package_table() -> Table:
    """The table of the package, H to Rn, by atomic number; `scripts/fit_pseudodensities.py` made it."""
    text = files(__package__).joinpath("pseudodensities.json").read_text(encoding="utf-8")
    return {
        atomic_numbers[symbol]: PseudoDensity(np.array(entry["B"]), np.array(entry["beta"]))
        for symbol, entry in json.loads(text)["elements"].items()
    }


def read_folder(folder: str | Path) -> Table:
    """Read amptorch's tables: one file `Symbol_*.g` an element, one line `B beta` a Gaussian.

    Raises:
        BadInput: no such file there, or one that is no table of Gaussians.
    """
    table: Table = {}
    for path in sorted(Path(folder).glob("*.g")):
        symbol = path.name.split("_")[0]
        if atomic_numbers.get(symbol, 0) < 1:
            raise BadInput(f"{path}: the name must begin with a chemical symbol, got {symbol!r}")
        table[atomic_numbers[symbol]] = read_file(path)
    if not table:
        raise BadInput(f"{folder}: no pseudo-density files (*.g) there")
    return table


def read_file(path: Path) -> PseudoDensity:
    """Read one of amptorch's tables, one line `B beta` a Gaussian. Raises BadInput if it is none."""
    try:
        amplitude, exponent = np.loadtxt(path, ndmin=2).T
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise BadInput(f"{path}: each line must hold two numbers, B and beta ({error})") from None
    if not (np.isfinite(amplitude).all() and np.isfinite(exponent).all() and (exponent > 0).all()):
        raise BadInput(f"{path}: B must be finite and beta positive")
    return PseudoDensity(amplitude, exponent)


def require(table: Table, numbers: NDArray[np.integer]) -> None:
    """Raise BadInput if an atomic number in `numbers` has no pseudo-density."""
    missing = sorted(z for z in set(numbers.tolist()) if z not in table)
    if missing:
        names = ", ".join(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in missing)
        known = " ".join(chemical_symbols[z] for z in sorted(table))
        raise BadInput(f"no pseudo-density for element {names}; there are: {known}")
