"""Which test split a study has, and its structures; the labels are the evaluation's."""

from pathlib import Path

import optuna

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.structures import Unlabelled
from bdqm_tune.structures.sealed import is_sealed, read_sealed
from bdqm_tune.study.study import TEST


def note_test_split(study: optuna.Study, test: Unlabelled, home: Path) -> None:
    """Keep the digest of the test split in the study.

    Raises:
        BdqmError: it was prepared for another `home`.
    """
    if not is_sealed(home, test.digest):
        raise BdqmError(
            f"{test.source}: prepared with another BDQM_HOME than {home}, where it is not; prepare the data again"
        )
    if TEST not in study.user_attrs:
        study.set_user_attr(TEST, {"digest": test.digest, "source": test.source})


def load_test_split(study: optuna.Study, home: Path) -> Unlabelled:
    """The test structures of a study, without their labels.

    Raises:
        BadInput: the study was made without a test split.
        BdqmError: its files are not in `home`.
    """
    kept = study.user_attrs.get(TEST)
    if kept is None:
        raise BadInput(
            f"study {study.study_name!r} has no test split; run tune again under this name with the same options and "
            "--test FILE"
        )
    if not is_sealed(home, kept["digest"]):
        raise BdqmError(f"the test split of {study.study_name!r} is not in {home}; set BDQM_HOME as it was for tune")
    return read_sealed(home, kept["digest"], f"{kept['source']} (test split)")
