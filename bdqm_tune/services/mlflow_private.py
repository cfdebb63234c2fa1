"""Every private name of MLflow that this package uses, and why; nothing else imports one, or reads such an attribute.

`BY_NAME` lists what is used; its test names those that a new version of MLflow lacks. MLflow takes seconds to import,
hence the imports inside the functions.
"""

from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import Engine

# By object, the names that are used of it, and why.
BY_NAME = {
    "mlflow.store.db.utils._initialize_tables": ("tables in an empty schema, without a server", ()),
    "mlflow.store.db.utils._upgrade_db": ("the same for a schema of an older version", ()),
    "mlflow.store.db.utils._get_alembic_config": ("the revisions of those tables, to see which one a schema has", ()),
    "mlflow.server.auth.db.utils._get_alembic_config": ("the same for the tables of accounts", ()),
    "mlflow.server.handlers._get_tracking_store": ("the server's own store, for our endpoint of metric histories", ()),
    "mlflow.tracking.MlflowClient": (
        "address and password as the client has them, for that endpoint",
        ("_tracking_client",),
    ),
}


def initialize_tables(engine: Engine) -> None:
    """Make MLflow's tables in an empty schema."""
    from mlflow.store.db.utils import _initialize_tables

    _initialize_tables(engine)


def upgrade_tables(engine: Engine) -> None:
    """Bring MLflow's tables to this version."""
    from mlflow.store.db.utils import _upgrade_db

    _upgrade_db(engine)


def revisions() -> ScriptDirectory:
    """Alembic's revisions of MLflow's tables."""
    from mlflow.store.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config(db_url=""))


def account_revisions() -> ScriptDirectory:
    """Alembic's revisions of the tables of MLflow's accounts."""
    from mlflow.server.auth.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config(""))


def server_store() -> Any:
    """The tracking store of the MLflow server that this process is."""
    from mlflow.server.handlers import _get_tracking_store

    return _get_tracking_store()


def host_credentials(client: Any) -> Any:
    """Address and password of the server that an `MlflowClient` sends its requests to."""
    return client._tracking_client.store.get_host_creds()
