"""A study with its runs and files, copied from files to the servers or back."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import sqlalchemy as sa
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from bdqm_tune.admin.deletion import idle
from bdqm_tune.admin.repair import repair_leftovers
from bdqm_tune.admin.row_copy import copy_rows
from bdqm_tune.admin.run_copy import copy_runs, is_run_id, renamed
from bdqm_tune.admin.runs import runs_of_study
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.diagnostics import FIXED
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.cache import Cache
from bdqm_tune.storage.database import not_made_yet, opened, study_lock
from bdqm_tune.study.checkpoints import checkpoint_folder
from bdqm_tune.study.study import EXPERIMENT, IDENTITY, no_such_study, study_id_of
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.search import tracking_not_made_yet, versions_of
from bdqm_tune.workers.registry import Worker


@dataclass(frozen=True)
class Copied:
    """What was copied."""

    study: str
    trials: int
    runs: int
    to: str  # the database, without a password
    models: tuple[str, ...]  # versions of registered models, which are not copied


def copy_study(source: Stores, target: Stores, name: str, say: Callable[[str], None] = lambda line: None) -> Copied:
    """Copy a study that has no running workers, with its runs, their files, and checkpoints of unfinished trials.

    The study is copied after all of its runs. A copy that was cut off leaves runs, from which the next call resumes.
    The source is not changed, except that what killed workers left in it is repaired first.

    Args:
        say: called with a line for each repair.

    Raises:
        BadInput: there is no such study, or one of this name where it is to be.
        BdqmError: workers run, or a store failed.
    """
    quiet_libraries()
    if not_made_yet(source):
        raise no_such_study(source, name, [])
    for finding in repair_leftovers(source, wait=False):
        if finding.state == FIXED:
            say(finding.message)
    where = without_secrets(target.storage_url).partition("?")[0]

    def refuse_known(ours: Cache) -> None:
        if study_id_of(ours, name) is not None:
            raise BadInput(f"there is a study {name!r} in {where} already; nothing is copied over it")

    if not not_made_yet(target):  # before any lock, as a copy the other way takes them in the other order
        with opened(target) as ours:
            refuse_known(ours)
    # The locks are held until the end, so that no worker starts on it, or creates one of its name.
    with study_lock(source, name), opened(source) as theirs:
        trials, workers = idle(source, theirs, name)
        with study_lock(target, name), opened(target) as ours:
            refuse_known(ours)
            study_id = theirs.get_study_id_from_name(name)
            before = theirs.get_study_user_attrs(study_id)
            after = before | {IDENTITY: uuid4().hex[:12]}  # the checkpoints of the one are not the other's
            checkpoints = checkpoint_folder(source.home, name, before)
            copied = checkpoint_folder(target.home, name, after)
            try:
                ids, models = _copy_runs(source, target, name, trials, workers)
                if checkpoints.is_dir():
                    shutil.copytree(checkpoints, copied)
                copy_rows(
                    theirs.backend,
                    ours.backend,
                    study_id,
                    lambda key, text: _attribute(key, text, ids, after[IDENTITY]),
                )
            except (MlflowException, OSError, sa.exc.SQLAlchemyError, StorageInternalError) as error:
                shutil.rmtree(copied, ignore_errors=True)
                raise BdqmError(
                    f"cannot copy the study {name!r} to {where}: {reason(error)}; it is not there yet, and "
                    "`bdqm-tune copy-study` resumes from the runs that were copied"
                ) from None
    return Copied(name, len(trials), sum(map(is_run_id, ids)), where, models)


def _copy_runs(
    source: Stores, target: Stores, name: str, trials: Sequence[FrozenTrial], workers: Sequence[Worker]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Ids in the target by those in the source, and the versions of registered models that lie in these runs."""
    if tracking_not_made_yet(source):
        return {}, ()
    theirs, ours = tracking_client(source), tracking_client(target)
    runs = runs_of_study(theirs, name, trials, workers)
    return copy_runs(theirs, ours, runs), tuple(versions_of(theirs, {run.info.run_id for run in runs}))


def _attribute(key: str, text: str, ids: Mapping[str, str], identity: str) -> str:
    if key == EXPERIMENT:
        return json.dumps(ids.get(json.loads(text), json.loads(text)))
    return json.dumps(identity) if key == IDENTITY else renamed(text, ids)
