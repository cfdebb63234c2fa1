"""Features that amptorch (master of July 2023) computes otherwise than its definition; docs/amptorch.md lists more."""

from collections.abc import Mapping
from typing import Any


def wrong_without_derivatives(settings: Mapping[str, Any]) -> str:
    """Features that amptorch gets wrong where it computes no derivatives, as in a training without forces; "": none.

    In its routine for order 5, group 4 the square of z is y·z; that for order 9 of solid harmonics differs from the one
    with derivatives, which agrees with the definition.

    Args:
        settings: of a descriptor: `groups`, or `orders` and `solid`.
    """
    if 4 in dict(settings.get("groups") or {}).get(5, []):
        return "order 5, group 4"
    return "order 9 of solid harmonics" if _has_order_nine(settings) and settings["solid"] else ""


def wrong_always(settings: Mapping[str, Any]) -> str:
    """Features that amptorch gets wrong with derivatives, too; "": none. The argument is the same."""
    if max(dict(settings.get("groups") or {}), default=0) > 5:
        return "groups beyond order 5, which are 0 there"
    return "order 9 of surface harmonics" if _has_order_nine(settings) and not settings["solid"] else ""


def _has_order_nine(settings: Mapping[str, Any]) -> bool:
    return "solid" in settings and 9 in (settings.get("orders") or [])
