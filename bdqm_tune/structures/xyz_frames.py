"""Checks the frames of an extended XYZ text before ASE reads it, because ASE trusts the sizes in the text."""

import re
import sys
from collections.abc import Iterable
from itertools import islice

from bdqm_tune.errors import BadInput, shown

MOST_COLUMNS = 1000
COLUMNS = re.compile(r":[A-Za-z]:(\d+)")  # of a property, as in pos:R:3


def check_frames(text: Iterable[str]) -> None:
    """Check that every image of the text, given line by line, has as many lines as it declares.

    With a damaged number of atoms ASE would read for hours, and it leaves out all images after a blank line. A number
    that is none, ASE itself refuses.

    Raises:
        BadInput: an image has fewer lines than atoms or columns without end, or a blank line is between images.
    """
    lines, image = enumerate(text, 1), 0
    for number, line in lines:
        if not line.strip():
            if any(rest.strip() for _, rest in lines):
                raise BadInput(f"line {number} is blank; the images after it would be left out")
            return
        if line.lstrip().startswith("VEC"):  # a vector of the cell, after the atoms
            continue
        try:
            n_atoms = int(line)
        except ValueError:
            if image == 0:  # no extended XYZ, which ASE says
                return
            got = shown(line.strip())
            raise BadInput(f"image {image}: line {number} must be its number of atoms, got {got}") from None
        _, comment = next(lines, (0, ""))
        if any(int(columns) > MOST_COLUMNS for columns in COLUMNS.findall(comment)):
            raise BadInput(f"image {image}: a property of more than {MOST_COLUMNS} columns: {shown(comment)}")
        found = sum(1 for _ in islice(lines, min(max(n_atoms, 0), sys.maxsize)))
        if found < n_atoms:
            raise BadInput(f"image {image}: has {n_atoms} atoms by line {number}, and {found} lines for them")
        image += 1
