"""amptorch's own descriptors, for `parity` and `features`; importing this imports amptorch, or raises ImportError."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from bdqm_tune import descriptors as ours
from bdqm_tune.backends.amptorch_adapters import import_amptorch
from bdqm_tune.descriptors.multipoles import Multipoles
from bdqm_tune.errors import BadInput
from benchmarks.settings import GMP_GROUPS, GMP_NORMALISED, SYMMETRY

try:
    import_amptorch()  # with what it needs to be imported at all
except BadInput as missing:
    raise ImportError(str(missing)) from None

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm


def run(setting: str, atoms: Atoms, densities: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (n_atoms, n_features) and derivatives (n_atoms, n_features, n_atoms, 3), 1/Å."""
    elements = sorted(set(atoms.get_chemical_symbols()), key=lambda symbol: atomic_numbers[symbol])
    descriptor = _descriptor(setting, elements, densities)
    features, derivatives = [np.empty(0)] * len(atoms), [np.empty(0)] * len(atoms)
    for element in elements:
        # Features of the atoms of one element, in their order; the derivatives as a sparse matrix.
        _, rows, values, row, column, shape = descriptor.calculate_fingerprints(atoms, element, True, None)
        dense = np.zeros(shape)
        dense[row, column] = values
        dense = dense.reshape(len(rows), -1, len(atoms), 3)
        for place, i in enumerate(np.flatnonzero(atoms.numbers == atomic_numbers[element])):
            features[i], derivatives[i] = rows[place], dense[place]
    return np.stack(features), np.stack(derivatives)


def worker(descriptor: Any, derivatives: bool) -> Callable[[Atoms], None]:
    """What computes the features of one structure, as amptorch does it, and leaves them."""

    def work(atoms: Atoms) -> None:
        for element in dict.fromkeys(atoms.get_chemical_symbols()):
            descriptor.calculate_fingerprints(atoms, element, derivatives, None)

    return work


def _descriptor(setting: str, elements: list[str], densities: Path) -> Any:
    if setting in GMP_GROUPS:
        return descriptor(ours.GMPGroups, GMP_GROUPS[setting], elements, densities)
    if setting in GMP_NORMALISED:
        return descriptor(ours.GMP, GMP_NORMALISED[setting], elements, densities)
    given = SYMMETRY[setting]
    functions: dict[str, Any] = {"cutoff": given["cutoff"]}
    for kind in ("g2", "g4", "g5"):
        if kind in given:
            functions[kind.upper()] = {("rs_s" if key == "rs" else key): value for key, value in given[kind].items()}
    return Gaussian({"default": functions}, elements, given.get("cutoff_function", "cosine"), given.get("gamma"))


def descriptor(kind: type[Multipoles], given: dict[str, Any], elements: list[str], densities: Path) -> Any:
    """amptorch's descriptor with the arguments of ours."""
    files = {element: str(next(densities.glob(f"{element}_*.g"))) for element in elements}
    if kind is ours.GMPGroups:
        orders = {str(n): {"groups": numbers, "sigmas": given["sigmas"]} for n, numbers in given["groups"].items()}
        options = {"cutoff": given["cutoff"], "square": given["square"]}
        return GMP({"MCSHs": orders, "atom_gaussians": files, **options}, elements)
    normalised = {"orders": list(given["orders"]), "sigmas": given["sigmas"]}
    options = {"square": given.get("square", True), "solid_harmonics": given.get("solid", True)}
    if given["cutoff"] is not None:
        options["cutoff"] = given["cutoff"]
    return GMPOrderNorm({"MCSHs": normalised, "atom_gaussians": files, **options}, elements)
