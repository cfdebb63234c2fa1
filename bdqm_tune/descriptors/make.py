"""Descriptors from the options of a configuration, and from the settings of a saved potential."""

import json
from collections.abc import Sequence
from typing import Any

from ase import Atoms

from bdqm_tune.config.backends import named
from bdqm_tune.config.descriptor_options import DESCRIPTORS, DescriptorOptions
from bdqm_tune.config.descriptor_plugins import find_descriptor
from bdqm_tune.descriptors import gmp, gmp_groups, symmetry_functions
from bdqm_tune.descriptors.base import Descriptor
from bdqm_tune.descriptors.gmp import GMP
from bdqm_tune.descriptors.gmp_groups import GMPGroups
from bdqm_tune.descriptors.multipoles import probe_widths
from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.descriptors.symmetry_selection import chosen_functions
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.plugins import plugin_names

KNOWN: dict[tuple[str, int], type[GMP] | type[GMPGroups] | type[SymmetryFunctions]] = {
    ("gmp", gmp.VERSION): GMP,
    ("gmp_groups", gmp_groups.VERSION): GMPGroups,
    ("symmetry_functions", symmetry_functions.VERSION): SymmetryFunctions,
}


def descriptor_from_options(
    options: DescriptorOptions, elements: Sequence[str] = (), structures: Sequence[Atoms] = ()
) -> Descriptor:
    """The descriptor with these options of a configuration.

    Args:
        elements: symbols of the elements in the structures, for symmetry functions without `elements`.
        structures: those that symmetry functions are chosen for, where they are.

    Raises:
        BadInput: an option outside its range.
    """
    sigmas = probe_widths(options.sigmas) if isinstance(options.sigmas, int) else options.sigmas
    match options.name:
        case "gmp":
            return GMP(
                options.orders,
                sigmas,
                options.cutoff,
                options.solid,
                options.square,
                options.pseudodensities,
                smooth_cutoff=options.smooth_cutoff,
            )
        case "gmp_groups":
            assert options.cutoff is not None
            return GMPGroups(
                options.groups,
                sigmas,
                options.cutoff,
                options.square,
                options.pseudodensities,
                smooth_cutoff=options.smooth_cutoff,
            )
        case "symmetry_functions":
            assert options.cutoff is not None
            elements = elements if options.elements is None else options.elements
            function, gamma = options.cutoff_function, options.gamma
            if options.combines:
                return SymmetryFunctions(elements, options.cutoff, options.g2, options.g4, options.g5, function, gamma)
            if options.functions != "auto":
                return SymmetryFunctions(elements, cutoff_function=function, gamma=gamma, functions=options.functions)
            return chosen_functions(elements, options.cutoff, options.n_functions, structures, function, gamma)
    declared = find_descriptor(options.name)
    return _checked(declared.name, named(declared.make)(declared.options(**options.options), list(elements)))


def descriptor_from_settings(settings: dict[str, Any]) -> Descriptor:
    """The descriptor whose `settings` these are.

    Raises:
        BadInput: the name or version is not known, its package does not load, or the settings are damaged.
    """
    name, version = settings.get("name"), settings.get("version")
    if isinstance(name, str) and name not in DESCRIPTORS and name in plugin_names("descriptor"):
        return _of_another_package(name, settings)
    descriptor = KNOWN.get((name, version)) if isinstance(name, str) and isinstance(version, int) else None
    if descriptor is None:
        there_are = ", ".join([*(f"{known} version {n}" for known, n in KNOWN), *plugin_names("descriptor")])
        raise BadInput(f"descriptor {name!r} version {version!r} is not known; there are: {there_are}")
    try:
        return descriptor.from_settings(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"settings of descriptor {name} are damaged: {one_line(error)}") from None


def _of_another_package(name: str, settings: dict[str, Any]) -> Descriptor:
    load = named(find_descriptor(name).load)
    try:
        return _checked(name, load(settings))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"settings of descriptor {name} are damaged: {one_line(error)}") from None


def _checked(name: str, descriptor: Any) -> Descriptor:
    """A descriptor of another package, whose settings have what the feature cache and saved models go by.

    Raises:
        BadInput: they are not plain JSON, or have another name.
    """
    if not isinstance(descriptor, Descriptor):
        raise BadInput(f"descriptor {name!r}: made a {type(descriptor).__name__}, not a Descriptor")
    settings = descriptor.settings
    try:
        plain = json.loads(json.dumps(settings))
    except (TypeError, ValueError) as error:
        raise BadInput(f"descriptor {name!r}: its settings are not plain JSON: {one_line(error)}") from None
    if plain != settings or settings.get("name") != name:
        raise BadInput(f"descriptor {name!r}: its settings must be plain JSON with name {name!r}, got {settings}")
    return descriptor
