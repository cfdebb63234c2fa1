"""Hints at values of a file that may be labels, under names that are not read."""

from typing import Literal

from bdqm_tune.config.config import Config
from bdqm_tune.structures import Structures

Kind = Literal["energy", "forces", "stress"]


def under_other_names(structures: Structures, kind: Kind) -> str:
    """What a message about a missing label goes on with: the names that it may have; empty where there are none."""
    names = structures.unread.get(kind, ())
    if not names:
        return ""
    which = {"energy": "is the energy", "forces": "are the forces", "stress": "is the stress"}[kind]
    return f"; they have {', '.join(names)}: data.{kind}_key says which of them {which}"


def unread_notes(requested: Config, structures: Structures) -> list[str]:
    """A warning for each kind of labels that the files may have under another name than the one that is read.

    None for labels that the configuration says not to train on.

    Args:
        requested: the configuration as it was given, with its `auto`.
    """
    training, names = requested.training, requested.data
    wanted: dict[Kind, bool] = {
        "energy": True,
        "forces": training.forces is not False,
        "stress": training.forces is not False and training.stress is not False,
    }
    lines = []
    for kind in (kind for kind, is_wanted in wanted.items() if is_wanted and structures.unread.get(kind)):
        if missing := _missing(structures, kind):
            lines.append(f"{structures.source}: {missing}{under_other_names(structures, kind)}")
        else:
            name, others = getattr(names, f"{kind}_key") or kind, ", ".join(structures.unread[kind])
            lines.append(
                f"{structures.source}: {kind} is read under the name {name}; images have other values as {others}: "
                f"data.{kind}_key says which is meant"
            )
    return lines


def _missing(structures: Structures, kind: Kind) -> str:
    """How many images have no label of this kind, in words; empty where each has one."""
    if kind == "energy":  # without which no image is read
        return ""
    if kind == "forces":
        missing, total, what, images = structures.without_forces(), len(structures), "forces", "images"
    else:
        missing, total = structures.without_stress(), structures.n_periodic
        what, images = "stress", "images in a periodic cell"
    return f"{len(missing)} of {total} {images} have no {what}" if missing else ""
