"""Log levels and filters of the libraries: only what concerns the user is printed."""

import logging
import os
import warnings

import optuna

from bdqm_tune.errors import one_line
from bdqm_tune.services.secrets import without_secrets


def quiet_libraries() -> None:
    """Keep Optuna's and MLflow's messages about their own doings off the terminal; errors stay, a line each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What it logs as an error, with a traceback, it raises as well.
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_not_raised)
    for handler in (*logging.getLogger("mlflow").handlers, *logging.getLogger("optuna").handlers, logging.lastResort):
        if handler is not None:
            handler.addFilter(_in_one_line)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _is_not_raised(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _in_one_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(one_line(Exception(record.getMessage()))), ()
    record.exc_info = record.exc_text = record.stack_info = None
    return True
