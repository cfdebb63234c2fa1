"""Where the features and derivatives of amptorch, installed here, are not those of their definition.

python -m benchmarks.amptorch_differences [FILE] [--cutoff 6]

Without FILE: every order, group and kind of symmetry function on a methanol molecule, without and with derivatives, as
the largest deviation from ours by the largest value of the column. With FILE: the structures in which amptorch's
neighbour search loses atoms, so that its features change when the structure is shifted; the last column is their
deviation from its own features of a shifted copy, nan where amptorch cannot describe the structure as it is.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.data import atomic_numbers
from numpy.typing import NDArray

from bdqm_tune.backends.amptorch_adapters import amptorchs_globals, import_amptorch
from bdqm_tune.backends.amptorch_copies import lies_within, shifted_copies
from bdqm_tune.backends.amptorch_inputs import descriptor_setup
from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.maxwell import groups
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import read_structures

Array = NDArray[np.float64]
TOLERANCE, ROUNDING, SCALE_OF_ZERO = 1e-6, 1e-12, 1e-6
WIDTHS = [0.5, 1.0]
G2, G4 = {"etas": [0.05, 1.0], "rs": [0.0, 1.5]}, {"etas": [0.005, 0.05], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}


def descriptors() -> Iterator[tuple[str, Descriptor]]:
    """Every kind of feature for itself, with a name."""
    for order in range(10):
        for number in range(1, len(groups(order)) + 1):
            for square in (False, True):
                name = f"gmp_groups {order}, {number}{', square' if square else ''}"
                yield name, GMPGroups({order: [number]}, WIDTHS, 6.0, square=square)
    for order in range(10):
        for solid in (True, False):
            for square in (True, False):
                name = f"gmp {order}, {'solid' if solid else 'surface'}{', square' if square else ''}"
                yield name, GMP([order], WIDTHS, 6.0, solid=solid, square=square)
    for function, gamma in (("cosine", None), ("polynomial", 2.0)):
        for kind, lists in (("g2", G2), ("g4", G4), ("g5", G4)):
            given: dict[str, Any] = {"g2": G2} | {kind: lists}
            name = f"symmetry_functions {kind}, {function}"
            yield name, SymmetryFunctions(["H", "C", "O"], 5.0, cutoff_function=function, gamma=gamma, **given)


def converter(descriptor: Descriptor, elements: list[str], derivatives: bool) -> Callable[[Atoms], Any]:
    """What gives amptorch's data of a structure."""
    from amptorch.dataset import construct_descriptor
    from amptorch.preprocessing import AtomsToData

    with TemporaryDirectory() as folder:
        theirs = construct_descriptor(descriptor_setup(descriptor, elements, Path(folder)))
    convert = AtomsToData(theirs, save_fps=False, fprimes=derivatives).convert

    def of(atoms: Atoms) -> Any:
        with amptorchs_globals(torch.float64):
            return convert(atoms, 0)

    return of


def deviation(found: Array, expected: Array) -> float:
    """Of arrays (n, n_columns), the largest by the largest of its column."""
    largest = np.abs(expected).max(axis=0)
    return float((np.abs(found - expected).max(axis=0) / np.where(largest > ROUNDING, largest, SCALE_OF_ZERO)).max())


def differences(name: str, descriptor: Descriptor, atoms: Atoms) -> tuple[str, str, str, str]:
    """Name; deviation of features without and with derivatives, and of the derivatives."""
    elements = sorted(set(atoms.get_chemical_symbols()), key=lambda symbol: atomic_numbers[symbol])
    features, sparse = descriptor.sparse_derivatives(atoms)
    ours = np.moveaxis(sparse.dense(len(atoms)), 1, -1).reshape(-1, descriptor.n_features)
    found = []
    for derivatives in (False, True):
        try:
            data = converter(descriptor, elements, derivatives)(atoms)
        except Exception as error:  # of whatever kind
            found += [type(error).__name__] * (1 + derivatives)
            continue
        found.append(f"{deviation(data.fingerprint.numpy(), features):.1e}")
        if derivatives:
            theirs = data.fprimes.to_dense().numpy().reshape(len(atoms), -1, len(atoms), 3)
            found.append(f"{deviation(np.moveaxis(theirs, 1, -1).reshape(ours.shape), ours):.1e}")
    return name, found[0], found[1], found[2]


def losses(file: str, cutoff: float) -> Iterator[tuple[int, float, float]]:
    """Images of which amptorch's features are not ours: number, deviation from ours, and from those of a copy."""
    structures = read_structures(file)
    descriptor = GMP([0, 1], [1.0, 2.0], cutoff)
    theirs = converter(descriptor, structures.elements, False)
    for i, atoms in zip(structures.images, structures.atoms, strict=True):
        if not lies_within(atoms):
            yield int(i), float("nan"), float("nan")
            continue
        found = theirs(atoms).fingerprint.numpy()
        if (error := deviation(found, descriptor.compute(atoms))) > TOLERANCE:
            yield int(i), error, deviation(found, theirs(next(shifted_copies(atoms))).fingerprint.numpy())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="structures with energies")
    parser.add_argument("--cutoff", type=float, default=6.0, help="Å (6)")
    options = parser.parse_args(arguments)
    try:
        import_amptorch()
        if options.file:
            lost = list(losses(options.file, options.cutoff))
            print(f"{options.file}, cutoff {options.cutoff} Å: {len(lost)} images with other features than ours")
            print(f"{'image':>6} {'from ours':>10} {'from itself, shifted':>21}")
            print("\n".join(f"{i:>6} {ours:>10.1e} {shifted:>21.1e}" for i, ours, shifted in lost))
            return 0
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    atoms = molecule("CH3OH", vacuum=6.0, pbc=True)
    atoms.rotate(37, (1, 2, 3))
    print(f"{'feature':<34} {'without derivatives':>19} {'with derivatives':>17} {'derivatives':>12}")
    for name, descriptor in descriptors():
        row = differences(name, descriptor, atoms)
        print(f"{row[0]:<34} {row[1]:>19} {row[2]:>17} {row[3]:>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
