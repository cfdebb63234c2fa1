"""The passwords of the servers' accounts: made here, kept in one file that only its owner may read."""

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server.paths import write_private


def _new() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, repr=False)  # so that none gets into a traceback
class Passwords:
    """One for each account: three of the database, two of MLflow, and the key that signs MLflow's cookies."""

    optuna: str = field(default_factory=_new)
    mlflow: str = field(default_factory=_new)
    mlflow_auth: str = field(default_factory=_new)
    tracking_admin: str = field(default_factory=_new)
    tracking_user: str = field(default_factory=_new)
    flask_key: str = field(default_factory=_new)


def load_passwords(path: Path) -> Passwords:
    """The passwords in a file, which is made if there is none.

    Raises:
        BdqmError: the file is damaged.
    """
    try:
        return Passwords(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        made = Passwords()
        write_private(path, json.dumps(asdict(made), indent=1) + "\n")
        return made
    except (ValueError, TypeError):
        raise BdqmError(
            f"{path} is damaged; delete it, and `bdqm-tune services up` gives the accounts new passwords"
        ) from None
