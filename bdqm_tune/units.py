"""Quantities as people read them."""

from collections.abc import Mapping

MEV = 1000.0  # meV an eV

# Objectives: errors of the validation split, and the cost of a prediction.
OBJECTIVE_UNITS = {
    "val_energy_mae": "eV",
    "val_energy_mae_per_atom": "eV/atom",
    "val_forces_mae": "eV/Å",
    "val_energy_forces": "eV/atom",
    "n_parameters": "",
    "time_per_atom": "s",
}
# Å: how far a force acts in `val_energy_forces`, the error of the energy per atom plus that of the work of a force on
# that way. 0.1 Å is an atom's thermal displacement at some 300 K.
FORCE_LENGTH = 0.1


def metric_unit(name: str) -> str:
    """The unit that the name of an evaluation's metric implies; empty where it has none."""
    if "seconds_per_atom" in name:
        return "s/atom"
    if any(part in name for part in ("_r2", "coverage", "correlation", "overlap")):
        return ""
    if "forces" in name:
        return "eV/Å"
    if "stress" in name:
        return "eV/Å³"
    if "per_atom" in name:
        return "eV/atom"
    return "eV" if "energy" in name or "width" in name else ""


def shown(value: float, unit: str) -> tuple[float, str]:
    """A value and its unit as the field quotes them: energies per atom in meV/atom, all others as they are."""
    return (MEV * value, "meV/atom") if unit == "eV/atom" else (value, unit)


def error_name(objective: str) -> str:
    """What kind of error an objective is: `val_energy_forces` is no mean of one quantity."""
    return "error" if objective == "val_energy_forces" else "MAE"


def error_title(objective: str) -> str:
    """The same, and of what: `MAE of forces`."""
    of = {"val_forces_mae": " of forces", "val_energy_forces": f" of energy + {FORCE_LENGTH} Å · forces"}
    return f"{error_name(objective)}{of.get(objective, '')}"


def error_text(errors: Mapping[str, float | None], objective: str, digits: str = ".4f") -> str:
    """The error of a training as a reader quotes it: `166.4 meV/atom (12.1218 eV)`, or `0.0918 eV/Å`.

    Of energies and forces together: `13.82 meV/atom (3.021 meV/atom, 0.1080 eV/Å)`.

    Args:
        errors: by name; `val_energy_mae_per_atom` (eV/atom) is missing, None or NaN where an earlier version trained.
        objective: the error to show.
        digits: format of its value; an energy per atom has four digits.
    """

    def text(name: str) -> str:
        value = errors.get(name)
        if value is None or value != value:
            return ""
        value, unit = shown(value, OBJECTIVE_UNITS[name])
        return f"{f'{value:#.4g}'.rstrip('.') if unit == 'meV/atom' else f'{value:{digits}}'} {unit}"

    if objective == "val_energy_forces":
        parts = [part for part in map(text, ("val_energy_mae_per_atom", "val_forces_mae")) if part]
        return f"{text(objective)} ({', '.join(parts)})" if parts else text(objective)
    per_atom = text("val_energy_mae_per_atom") if objective == "val_energy_mae" else ""
    return f"{per_atom} ({text(objective)})" if per_atom else text(objective)


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
