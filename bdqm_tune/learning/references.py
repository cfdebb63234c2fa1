"""The reference energies that a configuration asks for: fitted, given, or those of isolated atoms."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.targets import NO_REFERENCES, ReferenceEnergies, fit_reference_energies, undetermined
from bdqm_tune.structures import Geometries, Structures
from bdqm_tune.structures.isolated import is_isolated

OPTION = "target.reference_energies"
LARGEST_ROUNDING = 1e-3  # eV


def choose_references(
    config: Config, train: Structures, validation: Geometries, isolated: Mapping[int, float]
) -> ReferenceEnergies:
    """The reference energies that `target.reference_energies` says.

    Args:
        isolated: energies of isolated atoms, eV, by atomic number; used if the option says so.

    Raises:
        BadInput: an element of the training or the validation split has none.
    """
    option = config.target.reference_energies
    if option == "none":
        return NO_REFERENCES
    if option == "fit":
        return fit_reference_energies(train.atoms, train.energies)
    given, to_fit = dict(isolated), set()
    if isinstance(option, dict):
        given = {atomic_numbers[symbol]: energy for symbol, energy in option.items() if energy != "fit"}
        to_fit = {atomic_numbers[symbol] for symbol, energy in option.items() if energy == "fit"}
    present = {atomic_numbers[symbol] for symbol in (*train.elements, *validation.elements)}
    if missing := sorted(present - given.keys() - to_fit):
        symbols = [chemical_symbols[z] for z in missing]
        first = symbols[0]
        if isinstance(option, dict):
            what = f"has no energy of {', '.join(symbols)}, which the structures have"
            how = f"give it in eV, or say that it is to be fitted, as {{{first}: fit}}"
        else:
            what = f"isolated_atoms: no frame of {', '.join(symbols)} with config_type=IsolatedAtom"
            how = f"add one, or give all energies in eV, as {{{first}: -3.7}}, or fit"
        raise BadInput(f"{train.source}: {OPTION}: {what}; {how}")
    return fit_reference_energies(train.atoms, train.energies, given)


def reference_warnings(
    config: Config, train: Structures, others: Mapping[str, Geometries | None], references: ReferenceEnergies
) -> list[str]:
    """What to know about the reference energies of a dataset: elements without data, energies that are not determined.

    Args:
        others: the validation and the test split by name; None: there is none.
    """
    known, warnings = set(train.elements), []
    option = config.target.reference_energies
    fitted = option == "fit" or (isinstance(option, dict) and "fit" in option.values())
    given = {z for z in references.per_element if z not in {atomic_numbers[s] for s in known}}
    if isinstance(option, dict):
        given |= {atomic_numbers[symbol] for symbol, energy in option.items() if energy != "fit"}
    for name, split in others.items():
        if split is None:
            continue
        if unseen := sorted(set(split.elements) - known, key=chemical_symbols.index):
            guessed = [symbol for symbol in unseen if atomic_numbers[symbol] not in references.per_element]
            by = f"its reference energy is the mean energy of a training atom ({references.fallback:.3f} eV), and "
            warnings.append(
                f"{', '.join(unseen)} in the {name} split but not in the training split: {by if guessed else ''}its "
                "predictions are extrapolations"
            )
        if not fitted:
            continue
        free, which = undetermined(train.atoms, split.atoms, given)
        if len(which):
            symbols = ", ".join(chemical_symbols[z] for z in free)
            warnings.append(
                f"the reference energies of {symbols} are known in sums only, as these elements come in fixed "
                f"proportions in the training split; {len(which)} structures of the {name} split have others, as image "
                f"{int(split.images[which[0]])}: their energies are off by what the single energies are. Give one in "
                f"{OPTION}, or train on other proportions"
            )
    marked = sum(is_isolated(atoms) for atoms in train.atoms)
    if marked and option != "isolated_atoms":
        warnings.append(
            f"{train.source}: {marked} training structures have config_type=IsolatedAtom and are trained on as the "
            f"others; {OPTION}: isolated_atoms takes their energies as those of the elements instead"
        )
    return warnings


def fold_warnings(folds: Sequence[tuple[Structures, Structures]]) -> list[str]:
    """What to know about elements that are in one fold of a cross-validation only.

    Args:
        folds: of each the structures that are trained on, and those that it holds out.
    """
    unseen = {symbol for train, held_out in folds for symbol in set(held_out.elements) - set(train.elements)}
    if not unseen:
        return []
    symbols = ", ".join(sorted(unseen, key=chemical_symbols.index))
    return [
        f"{symbols} in one fold only: the networks that validate such structures were not trained on the element, the "
        "network that is kept is; the validation error is larger for it"
    ]


def check_precision(config: Config, source: str, residuals: NDArray[np.float64]) -> None:
    """Raise BadInput if single precision cannot hold what the reference energies leave (n_structures,), eV."""
    typical = float(np.median(np.abs(residuals)))
    rounding = typical * 2.0**-24
    if config.training.precision == "float32" and rounding > LARGEST_ROUNDING:
        raise BadInput(
            f"{source}: {OPTION} and target.scaling leave energies of {typical:.3g} eV, which single precision rounds "
            f"by {rounding:.1g} eV; use {OPTION}: fit, or training.precision: float64"
        )
