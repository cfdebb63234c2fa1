"""The stress of the structures: whether it is trained on, and what is refused and reported where some have none."""

import numpy as np

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.unread_labels import under_other_names
from bdqm_tune.structures import Structures

# eV/atom, of stress · volume per atom: 400 GPa in copper. Beyond, the stress is more likely in GPa or kbar.
PLAUSIBLE = 30.0
NAMED = "; data.stress_key names it where it is not called stress"


def decide_stress(config: Config, structures: Structures) -> tuple[bool, list[str]]:
    """Whether the stress is trained where forces are, and what to know about it.

    By `auto` it is where every structure in a periodic cell has one, as then it takes little more time, and where none
    is so large that it is in another unit, which would spoil the energies.
    """
    if config.training.stress != "auto":
        return bool(config.training.stress), []
    has_stress = ~np.isnan(structures.stresses).any(axis=1)
    count = int(has_stress.sum())
    if not count:
        return False, []
    if structures.without_stress():
        what = f"{structures.source}: {count} of {structures.n_periodic} images in a periodic cell have a stress"
        return False, [f"{what}, which is not trained on; training.stress: partial trains on it"]
    volumes = np.array([abs(atoms.cell.volume) for atoms in structures.atoms]) / structures.n_atoms
    largest = np.where(has_stress, np.abs(structures.stresses).max(axis=1) * volumes, 0.0)
    if largest.max() > PLAUSIBLE:
        image = int(np.argmax(largest))
        stress = float(np.abs(structures.stresses[image]).max())
        return False, [
            f"{structures.source}, image {structures.images[image]}: the stress is not trained on, as {stress:.3g} "
            "eV/Å³, as it is read, is more than a crystal bears, and may be in another unit (1 GPa is 0.00624 eV/Å³); "
            "training.stress: true trains on it"
        ]
    return True, []


def check_stress(structures: Structures, config: Config) -> None:
    """Raise BadInput unless the structures have the stress that a configuration trains on."""
    option = config.training.stress
    if not option:
        return
    if np.isnan(structures.stresses).any(axis=1).all():
        raise BadInput(
            f"{structures.source}: training.stress: {str(option).lower()} needs a stress (eV/Å³), and no image has one "
            f"in a periodic cell{under_other_names(structures, 'stress') or NAMED}"
        )
    missing, total = structures.without_stress(), structures.n_periodic
    if missing and option != "partial":
        raise BadInput(
            f"{structures.source}, image {missing[0]}: has no stress, as {len(missing)} of {total} images "
            "in a periodic cell; training.stress: true needs it (eV/Å³) in each of these; training.stress: partial "
            f"trains images without on their energies and forces alone{under_other_names(structures, 'stress')}"
        )


def check_split_stress(train: Structures, validation: Structures, config: Config) -> list[str]:
    """Check that the training split has a stress where it is trained on; gives what to know.

    Raises:
        BadInput: it has none.
    """
    if not config.training.stress:
        return []
    if _has_none(train):
        raise BadInput(
            f"{train.source}: no structure of the training split has a stress; another data.validation.seed may give "
            "it some"
        )
    if _has_none(validation):
        what = f"{train.source}: no structure of the validation split has a stress"
        return [f"{what}: there will be no val_stress_mae"]
    return []


def stress_missing_in_test(test: Structures, config: Config) -> list[str]:
    """A warning where the stress is trained, and no structure of the test split has one."""
    if not config.training.stress or not _has_none(test):
        return []
    what = f"{test.source}: no test structure has a stress: there will be no test_stress_mae"
    return [f"{what}{under_other_names(test, 'stress')}"]


def _has_none(structures: Structures) -> bool:
    return bool(np.isnan(structures.stresses).any(axis=1).all())
