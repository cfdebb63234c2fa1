"""Descriptors: what stands around an atom, in numbers."""

from typing import Any

from bdqm_tune.config import DescriptorOptions
from bdqm_tune.descriptors import gmp
from bdqm_tune.descriptors.base import Descriptor
from bdqm_tune.descriptors.gmp import GMP, probe_widths
from bdqm_tune.descriptors.store import stored_features
from bdqm_tune.errors import BadInput

__all__ = ["GMP", "Descriptor", "descriptor_from_options", "descriptor_from_settings", "stored_features"]


def descriptor_from_options(options: DescriptorOptions) -> Descriptor:
    """The descriptor that a configuration asks for."""
    sigmas = probe_widths(options.sigmas) if isinstance(options.sigmas, int) else options.sigmas
    return GMP(
        orders=options.orders,
        sigmas=sigmas,
        cutoff=options.cutoff,
        square=options.square,
        pseudodensities=options.pseudodensities,
    )


def descriptor_from_settings(settings: dict[str, Any]) -> Descriptor:
    """The descriptor whose `settings` these are. Raises BadInput if there is none of that name and version."""
    name, version = settings.get("name"), settings.get("version")
    if (name, version) != ("gmp", gmp.VERSION):
        raise BadInput(f"descriptor {name!r} version {version!r} is not known; there is: gmp version {gmp.VERSION}")
    return GMP.from_settings(settings)
