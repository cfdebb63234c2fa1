"""Symmetry functions chosen for given structures: a grid of many, of which those are kept that say most.

The grid is that of Imbalzano, Anelli, Giofré, Klees, Behler and Ceriotti, J. Chem. Phys. 148, 241730 (2018), section
II.B, with n = 5. The choice is their CUR decomposition.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement, pairwise, product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.descriptors.symmetry_parameters import CutoffFunction, Function

N = 5
ZETAS, GAMMAS = (1.0, 4.0, 16.0), (-1.0, 1.0)
SAMPLED = 2000  # atoms, of structures evenly spaced in the file
NEW = 1e-8  # share of its variance that the chosen ones do not give, below which a function says nothing new


def grid(elements: Sequence[str], cutoff: float) -> list[Function]:
    """All functions to choose from, of any element of the centre.

    For each neighbouring element, G2 at the centre with etas (n^(m/n)/R_c)², m = 0 to n, and as many on shells at
    R_s = R_c/n^(m/n) whose width is the distance to the next; for each pair of elements, G4 with the same etas.
    """
    etas = [(N ** (m / N) / cutoff) ** 2 for m in range(N + 1)]
    shells = [cutoff / N ** (m / N) for m in range(N + 1)]
    functions = [Function("G2", (element,), eta, cutoff) for element in elements for eta in etas]
    functions += [
        Function("G2", (element,), 1 / (outer - inner) ** 2, cutoff, rs=inner)
        for element in elements
        for outer, inner in pairwise(shells)
    ]
    return functions + [
        Function("G4", pair, eta, cutoff, zeta=zeta, gamma=gamma)
        for pair in combinations_with_replacement(elements, 2)
        for eta, zeta, gamma in product(etas, ZETAS, GAMMAS)
    ]


def chosen_functions(
    elements: Sequence[str],
    cutoff: float,
    n_functions: int,
    structures: Sequence[Atoms],
    cutoff_function: CutoffFunction = "cosine",
    gamma: float | None = None,
) -> SymmetryFunctions:
    """The symmetry functions of a grid that describe the atoms of some structures best.

    Args:
        elements: symbols of all elements that a structure may hold, by atomic number.
        cutoff: of all functions, Å.
        n_functions: of each element of the centre, at most: there may be fewer that say something new.
        structures: those that the functions are chosen for; without any the whole grid is given.
    """
    candidates = grid(elements, cutoff)
    options = [candidate.options for candidate in candidates]

    def functions(kept: dict[str, list[int]]) -> SymmetryFunctions:
        by_element = {element: [options[column] for column in kept[element]] for element in elements}
        return SymmetryFunctions(elements, cutoff_function=cutoff_function, gamma=gamma, functions=by_element)

    whole = functions({element: list(range(len(options))) for element in elements})
    sample = _sample(structures)
    if not sample:
        return whole
    features = np.concatenate([whole.compute(atoms) for atoms in sample])
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in sample])
    kept = {element: choose_columns(features[symbols == element], n_functions) for element in elements}
    return functions(kept)


def choose_columns(features: NDArray[np.float64], n: int) -> list[int]:
    """The columns of features (n_atoms, n_features) that give the others best, at most n, ascending.

    One after another, that column is taken which has the largest part in the leading principal axis of the standardised
    columns, and what it gives of the others is taken off them (CUR decomposition).
    """
    if not len(features):
        return [0]
    deviations = features.std(axis=0)
    varying = deviations > 1e-9 * np.abs(features).max(axis=0)
    centred = np.where(varying, features - features.mean(axis=0), 0.0) / np.where(varying, deviations, 1.0)
    left = centred.T @ centred / len(features)
    kept: list[int] = []
    while len(kept) < n and np.diag(left).max() > NEW:
        leading = np.abs(np.linalg.eigh(left)[1][:, -1])
        # Of those that differ by rounding, the first: another machine is to choose the same.
        column = int(np.flatnonzero(leading > leading.max() * (1 - 1e-6))[0])
        kept.append(column)
        left = left - np.outer(left[:, column], left[column]) / left[column, column]
        left[:, kept] = left[kept] = 0
    return sorted(kept) or [0]


def _sample(structures: Sequence[Atoms]) -> list[Atoms]:
    """Structures, evenly spaced, of some thousand atoms."""
    n_atoms = sum(map(len, structures))
    step = max(n_atoms // SAMPLED, 1)
    return list(structures[::step])
