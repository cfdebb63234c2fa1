"""Whether the two stores can be used as they are; nothing is made where nothing is."""

import mlflow
import requests
from mlflow.exceptions import MlflowException

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.findings import ERROR, OK, Finding
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.database import StudyDatabase, not_made_yet, opened
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.search import tracking_not_made_yet


def check_studies(stores: Stores) -> Finding:
    """The database of studies: reached, and of this version of Optuna."""
    try:
        database = StudyDatabase(stores)
        if not_made_yet(stores):
            return Finding("studies", OK, f"{database} is not made yet; `bdqm-tune tune` makes it")
        with opened(stores) as storage:
            backend = storage.backend
            count = len(backend.get_all_studies())
            where = str(database).partition("?")[0]
            said = f"{where}: {count} {'study' if count == 1 else 'studies'}"
            return Finding("studies", OK, f"{said}, tables of Optuna's revision {backend.get_current_version()}")
    except BdqmError as error:
        return Finding("studies", ERROR, str(error))


def check_runs(stores: Stores) -> Finding:
    """MLflow's store: reached, and of this version of MLflow."""
    try:
        where = without_secrets(stores.tracking_uri or mlflow.get_tracking_uri())
        if tracking_not_made_yet(stores):
            return Finding("runs", OK, f"MLflow's store {where} is not made yet; `bdqm-tune tune` makes it")
        tracking_client(stores).search_experiments(max_results=1)
    except (MlflowException, requests.RequestException, OSError) as error:
        return Finding("runs", ERROR, f"MLflow's store {where}: {reason(error)}")
    except BdqmError as error:
        return Finding("runs", ERROR, str(error))
    # A server looks at its tables itself, and may be of another version.
    fits = "" if where.startswith("http") else f", its tables fit mlflow {mlflow.__version__}"
    return Finding("runs", OK, f"MLflow's store {where} answers{fits}")
