"""Quantities as people read them."""

# Objectives: errors of the validation split, and the cost of a prediction.
OBJECTIVE_UNITS = {"val_energy_mae": "eV", "val_forces_mae": "eV/Å", "n_parameters": "", "time_per_atom": "s"}


def metric_unit(name: str) -> str:
    """The unit that the name of an evaluation's metric implies; empty where it has none."""
    if "seconds_per_atom" in name:
        return "s/atom"
    if any(part in name for part in ("_r2", "coverage", "correlation", "overlap")):
        return ""
    if "forces" in name:
        return "eV/Å"
    if "per_atom" in name:
        return "eV/atom"
    return "eV" if "energy" in name or "width" in name else ""


def bytes_text(count: int) -> str:
    """Bytes in the largest decimal unit that leaves at least 1: `2.5 MB`."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """A time span in the unit that people would choose: `45 s`, `12 min`, `3.5 h`, `4 days`."""
    for unit, size, digits in (("days", 86400, 0), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{max(seconds, 0):.0f} s"
