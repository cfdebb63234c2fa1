"""Quantities as people read them."""

# What trials are judged by, of the validation split.
OBJECTIVE_UNITS = {"val_energy_mae": "eV", "val_forces_mae": "eV/Å"}


def bytes_text(count: int) -> str:
    """Bytes in the largest decimal unit that leaves at least 1: `2.5 MB`."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
