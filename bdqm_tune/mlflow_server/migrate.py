"""Make or upgrade the tables of Optuna, MLflow and MLflow's accounts, in a process of its own.

`python -m bdqm_tune.mlflow_server.migrate` reads a `Request` (JSON) from standard input, so that no password is on its
command line, and prints a list of `Schema` (JSON) as its last line.
"""

import json
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from bdqm_tune.errors import BdqmError, one_line
from bdqm_tune.services.database_lock import DatabaseLock
from bdqm_tune.services.mlflow_private import account_revisions, initialize_tables, upgrade_tables
from bdqm_tune.services.mlflow_private import revisions as mlflow_revisions
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.services.tables import make_tables

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

# There while the tables of an empty schema are made, and while they are upgraded: the database cannot undo either, so
# that what was cut off must be seen by the next.
MAKING, UPGRADING = "bdqm_making", "bdqm_upgrading"
LOCK, LOCK_SECONDS = "bdqm-tune schemas", 300  # eight that begin together on two busy cores take two minutes and more
DEFAULT_EXPERIMENT = "0"


@dataclass(frozen=True)
class Request:
    """What to do."""

    urls: dict[str, str]  # of the schemas, with an account that may make tables: optuna, and mlflow with mlflow_auth
    admin_password: str  # of MLflow's accounts
    user_password: str
    upgrade: bool  # else a schema of an older version is only reported


@dataclass(frozen=True)
class Schema:
    """A schema as it was found, and what was done."""

    name: str
    state: str  # made, current, older, newer or broken (an upgrade was cut off); upgraded
    found: str  # revision


class Tables(ABC):
    """The tables of one program."""

    package: str  # as pip names it
    version_table = "alembic_version"
    with_ours = False  # the schema also has tables of our own

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @abstractmethod
    def make(self) -> None:
        """Make the tables in an empty schema."""

    @abstractmethod
    def upgrade(self) -> None:
        """Bring the tables to this version."""

    @abstractmethod
    def script(self) -> ScriptDirectory:
        """Alembic's revisions of this version."""

    def revision(self) -> str:
        """The revision in the database, empty if it has none."""
        with self.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": self.version_table})
            return context.get_current_revision() or ""

    def names(self) -> Collection[str]:
        return inspect(self.engine).get_table_names()


class OptunaTables(Tables):
    package = "optuna"
    with_ours = True

    def make(self) -> None:
        self._storage()

    def upgrade(self) -> None:
        self._storage(skip_compatibility_check=True).upgrade()

    def script(self) -> ScriptDirectory:
        from bdqm_tune.services.optuna_private import revisions

        return revisions(self._storage(skip_table_creation=True, skip_compatibility_check=True))

    def _storage(self, **options: Any) -> "RDBStorage":
        from optuna.storages import RDBStorage

        return RDBStorage(self.engine.url.render_as_string(hide_password=False), **options)


class MlflowTables(Tables):
    package = "mlflow"

    def make(self) -> None:
        initialize_tables(self.engine)

    def upgrade(self) -> None:
        upgrade_tables(self.engine)

    def script(self) -> ScriptDirectory:
        return mlflow_revisions()


class AuthTables(Tables):
    package = "mlflow"
    version_table = "alembic_version_auth"

    def make(self) -> None:
        """Make the first tables here, since MLflow's own first step gives two keys one name, which MySQL refuses.

        Without a table of versions MLflow takes them for those of an old release, and upgrades them.
        """
        first = sqlalchemy.MetaData()
        column, string = sqlalchemy.Column, sqlalchemy.String(255)
        sqlalchemy.Table(
            "users",
            first,
            column("id", sqlalchemy.Integer, primary_key=True),
            column("username", string, unique=True),
            column("password_hash", string),
            column("is_admin", sqlalchemy.Boolean),
        )
        for table, key in (("experiment_permissions", "experiment_id"), ("registered_model_permissions", "name")):
            unique = "unique_experiment_user" if key == "experiment_id" else "unique_name_user"
            sqlalchemy.Table(
                table,
                first,
                column("id", sqlalchemy.Integer, primary_key=True),
                column(key, string, nullable=False),
                column(
                    "user_id",
                    sqlalchemy.Integer,
                    sqlalchemy.ForeignKey("users.id", name=f"fk_{table}_user"),
                    nullable=False,
                ),
                column("permission", string),
                sqlalchemy.UniqueConstraint(key, "user_id", name=unique),
            )
        first.create_all(self.engine)
        self.upgrade()

    def upgrade(self) -> None:
        from mlflow.server.auth.db.utils import migrate

        migrate(self.engine, "head")

    def script(self) -> ScriptDirectory:
        return account_revisions()


TABLES: dict[str, type[Tables]] = {"optuna": OptunaTables, "mlflow": MlflowTables, "mlflow_auth": AuthTables}


def migrate(request: Request) -> list[Schema]:
    """Make the tables of empty schemas, check the others, and upgrade them if requested."""
    engines = {name: sqlalchemy.create_engine(url) for name, url in request.urls.items()}
    found = []
    with closing(DatabaseLock(_connect(next(iter(engines.values()))), LOCK, LOCK_SECONDS, "making schemas")) as lock:
        for name, engine in engines.items():
            lock.check()
            found.append(_bring(name, TABLES[name](engine), request.upgrade))
        usable = all(schema.state in ("made", "current", "upgraded") for schema in found)
        if usable and "mlflow_auth" in request.urls:
            _set_accounts(request)
    for engine in engines.values():
        engine.dispose()
    return found


def _connect(engine: Engine) -> Any:
    """A connection of the driver, which the engine forgets."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    pooled.detach()
    return connection


def _bring(name: str, tables: Tables, upgrade: bool) -> Schema:
    engine, there = tables.engine, tables.names()
    if MAKING in there:
        _empty(engine, there)
    if MAKING in there or not there:
        _make(tables)
        return Schema(name, "made", tables.revision())
    found = tables.revision()
    if UPGRADING in there:
        return Schema(name, "broken", found)
    script = tables.script()
    if found == script.get_current_head():
        _add_ours(tables)
        return Schema(name, "current", found)
    if found not in [revision.revision for revision in script.walk_revisions()]:
        return Schema(name, "newer", found)
    if not upgrade:
        return Schema(name, "older", found)
    _execute(engine, f"CREATE TABLE {UPGRADING} (id INT)")
    tables.upgrade()
    _add_ours(tables)
    _execute(engine, f"DROP TABLE {UPGRADING}")
    return Schema(name, "upgraded", tables.revision())


def _make(tables: Tables) -> None:
    engine = tables.engine
    _execute(engine, f"CREATE TABLE {MAKING} (id INT)")
    try:
        # MLflow's migration makes a trigger, half-way through what cannot be undone.
        _execute(engine, f"CREATE TRIGGER bdqm_try BEFORE INSERT ON {MAKING} FOR EACH ROW SET NEW.id = NEW.id")
    except sqlalchemy.exc.DBAPIError as error:
        _execute(engine, f"DROP TABLE {MAKING}")
        raise BdqmError(
            f"the account {engine.url.username!r} may not make triggers in the schema {engine.url.database}, which "
            f"MLflow needs ({one_line(error.orig or error)}); ask the server's administrator for: "
            f"GRANT TRIGGER ON `{engine.url.database}`.* TO it"
        ) from None
    tables.make()
    _add_ours(tables)
    _execute(engine, f"DROP TABLE {MAKING}")


def _add_ours(tables: Tables) -> None:
    """Make what is missing of our own tables, as where an older bdqm-tune has been; nothing is changed in others."""
    if tables.with_ours:
        make_tables(tables.engine)


def _empty(engine: Engine, there: Collection[str]) -> None:
    """Drop the tables of a schema that was never finished, and so never used."""
    _execute(engine, "SET FOREIGN_KEY_CHECKS = 0", *(f"DROP TABLE `{table}`" for table in there))


def _execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _set_accounts(request: Request) -> None:
    """MLflow's two accounts, with the passwords that we have, also where a backup or an older file had others."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(request.urls["mlflow_auth"])
    for user, password, admin in (("admin", request.admin_password, True), ("bdqm", request.user_password, False)):
        if not store.has_user(user):
            store.create_user(user, password, is_admin=admin)
        elif not store.authenticate_user(user, password):
            store.update_user(user, password=password)
    # What is not one's own may only be read; and the experiment that `mlflow run` uses by default is nobody's own.
    with suppress(MlflowException):  # already granted
        store.create_experiment_permission(DEFAULT_EXPERIMENT, "bdqm", "MANAGE")


def main() -> None:
    request = Request(**json.load(sys.stdin))
    try:
        found: Sequence[Schema] = migrate(request)
    except Exception as error:
        if not isinstance(error, BdqmError):
            traceback.print_exc()  # for the log
        print(json.dumps({"error": without_secrets(one_line(getattr(error, "orig", None) or error))}))
        sys.exit(1)
    print(json.dumps([asdict(schema) for schema in found]))


if __name__ == "__main__":
    main()
