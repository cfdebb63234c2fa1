"""The one place where numbers of a file are checked: their kind, their shape, and that they are finite."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput, shown

PER_ATOM = "n_atoms"  # a length that is the number of atoms
GEOMETRY = "positions and cell"
Shape = tuple[int | str, ...]
# What a structure and its calculation may have, and the shapes in which they are given.
SHAPES: dict[str, tuple[Shape, ...]] = {
    "positions": ((PER_ATOM, 3),),
    "cell": ((3, 3),),
    "atomic numbers": ((PER_ATOM,),),
    "energy": ((),),
    "forces": ((PER_ATOM, 3),),
    "stress": ((6,), (3, 3), (9,)),
    "virial": ((6,), (3, 3), (9,)),
    "energies": ((PER_ATOM,),),
    "stresses": ((PER_ATOM, 6), (PER_ATOM, 3, 3)),
}


def checked(kind: str, values: Any, n_atoms: int, name: str = "") -> NDArray[np.float64]:
    """The values as an array of the shape that this kind has.

    Args:
        kind: what they are, one of `SHAPES`.
        n_atoms: of the structure.
        name: what the file calls them, where that is another name.

    Raises:
        BadInput: they are no numbers, of another shape, or not all finite.
    """
    called = f"the {kind}" if kind == "energy" else kind
    called = f"{called} ({name})" if name and name != kind else called
    shapes = SHAPES[kind]
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":  # text, truth values and complex numbers are none
        hint = ""
        if kind == "energy" and array.dtype.kind == "b":
            hint = "; extended XYZ takes a name without a value for true"
        raise BadInput(f"{called} must be {_expected(shapes)}, got {shown(_plain(values))}{hint}")
    if not any(array.shape == tuple(n_atoms if n == PER_ATOM else n for n in shape) for shape in shapes):
        got = shown(_plain(values)) if kind == "energy" else f"the shape {array.shape}"
        raise BadInput(f"{called} must be {_expected(shapes)}, got {got}; the structure has {n_atoms} atoms")
    if not np.isfinite(array).all():
        got = f", got {float(array)}" if array.ndim == 0 else ""
        called = GEOMETRY if kind in GEOMETRY.split() else called
        raise BadInput(f"{called} must be finite{got}")
    return array.astype(np.float64)


def _expected(shapes: tuple[Shape, ...]) -> str:
    if shapes == ((),):
        return "one number"
    return "numbers of the shape " + " or ".join(f"({', '.join(map(str, shape))})" for shape in shapes)


def _plain(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray | np.generic) else values
