"""What makes the choice of a champion doubtful."""

import math
from collections.abc import Mapping

EASIER = 2.0  # times the validation error: from there on the training error is suspicious


def easier_validation(metrics: Mapping[str, float]) -> list[str]:
    """What to say of a champion that is much worse on what it learned from than on the validation split.

    The other way round is usual. So it is where a few structures are hard (collisions, other phases) and the validation
    split has none of them: it cannot tell models that got them from models that did not.

    Args:
        metrics: of the champion's run, after its last epoch: errors in eV and eV/Å.
    """
    found = []
    for what, name, unit in (("energies", "energy_mae", "eV"), ("forces", "forces_mae", "eV/Å")):
        train, validation = metrics.get(f"train_{name}", 0.0), metrics.get(f"val_{name}", math.inf)
        if train > EASIER * validation:
            found.append(
                f"the champion's {what} are off by {train:.3g} {unit} on training, and by {validation:.3g} on the "
                "validation split, which lacks what is hard; a larger one chooses better (data.validation.fraction)"
            )
    return found
