"""Files of structures with predictions: extended XYZ or a trajectory of ASE, by the name of the file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.files import write_whole

FORMATS = {".extxyz": "extxyz", ".xyz": "extxyz", ".traj": "traj"}
COMPRESSED = (".gz", ".bz2", ".xz")  # extended XYZ alone
# Arrays that a trajectory has a place for; `Atoms.info` takes the others.
OF_TRAJECTORIES = ("numbers", "positions", "tags", "momenta", "masses", "initial_magmoms", "initial_charges")


def file_format(out: Path) -> str:
    """The format that the name of a file stands for, as ASE calls it. Raises BadInput for any other, or no folder."""
    suffixes = [suffix.lower() for suffix in out.suffixes]
    packed = bool(suffixes) and suffixes[-1] in COMPRESSED
    suffix = (suffixes[:-1] if packed else suffixes)[-1:]
    kind = FORMATS.get(suffix[0]) if suffix else None
    if kind is None or (packed and kind != "extxyz"):
        raise BadInput(
            f"{out}: predictions are written as extended XYZ (.extxyz or .xyz, also compressed: .xyz.gz) or as a "
            "trajectory (.traj)"
        )
    if out.is_dir() or not out.parent.is_dir():
        problem = "is a folder, not a file" if out.is_dir() else f"there is no folder {out.parent}"
        raise BadInput(f"{out}: {problem}")
    return kind


def write_structures(out: Path, images: Sequence[Atoms]) -> None:
    """Write structures with their results in the format of the name, whole or not at all.

    Raises:
        BadInput: as `file_format`.
        BdqmError: the file cannot be written.
    """
    kind = file_format(out)
    written = [_for_trajectory(atoms) if kind == "traj" else _for_xyz(atoms) for atoms in images]
    try:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            made = Path(folder) / out.name  # whose suffix says whether it is compressed
            ase.io.write(made, written, format=kind)
            write_whole(out, made.read_bytes())
    except OSError as error:
        raise BdqmError(f"{out}: cannot be written ({error.strerror or error})") from None


def _for_trajectory(atoms: Atoms) -> Atoms:
    """A copy whose arrays of other names are in `info`, for a trajectory has no place for them."""
    copy = atoms.copy()
    copy.calc = atoms.calc
    for name in [name for name in copy.arrays if name not in OF_TRAJECTORIES]:
        copy.info[name] = copy.arrays.pop(name)
    return copy


def _for_xyz(atoms: Atoms) -> Atoms:
    """A copy whose arrays have one row of plain values an atom, as extended XYZ has columns."""
    copy = atoms.copy()
    copy.calc = atoms.calc
    for name, values in list(copy.arrays.items()):
        if values.dtype.kind == "O":
            copy.arrays[name] = np.array([str(value) for value in values])
        elif values.ndim > 2:
            copy.arrays[name] = values.reshape(len(values), -1)
    return copy
