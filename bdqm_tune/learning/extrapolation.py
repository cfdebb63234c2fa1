"""How far structures are from what a model was trained on: beyond that, its predictions are guesses."""

from collections.abc import Sequence

import numpy as np

# Of the width of the training split's range, along some axis. Of the test structures of molybdenum and silicon none is
# further outside than 0.3, of structures that were held out none than 0.5; a cell compressed by 20 % is at 20.
FAR = 0.5


def far_outside(found: Sequence[float | None], names: Sequence[str] = ()) -> str:
    """A warning of structures that are far outside the training split; empty: there are none.

    Args:
        found: of each structure, of its atom that is most outside, see `Scaler.outside`; None: not known.
        names: of the structures; without, the warning is of a single one.
    """
    if not any(beyond is not None and beyond > FAR for beyond in found):
        return ""
    known = np.array([0.0 if beyond is None else beyond for beyond in found])
    worst = int(known.argmax())
    which = f"{(known > FAR).sum()} of {len(known)} structures have atoms" if names else "this structure has atoms"
    where = f" ({names[worst]})" if names else ""
    return (
        f"{which} in surroundings far from those of the training split, by up to {known[worst]:.2g} times its width"
        f"{where}: what is predicted of them is a guess"
    )
