"""The three schemas of the platform and the accounts that may write to them, as SQL."""

import pymysql

from bdqm_tune.errors import BdqmError, one_line
from bdqm_tune.mlflow_server.database import Database, execute
from bdqm_tune.mlflow_server.passwords import Passwords
from bdqm_tune.services.secrets import without_secrets

OPTUNA, MLFLOW, AUTH = "optuna", "mlflow", "mlflow_auth"
SCHEMAS = (OPTUNA, MLFLOW, AUTH)
# What a server or a worker does in its schema. Tables are made by the administrator alone, in migrate.py.
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


def account(schema: str) -> str:
    """The account of a schema; not the schema's name, which may be that of a user of the machine."""
    return f"bdqm_{schema}"


def create_schemas(database: Database) -> list[str]:
    """The statements that make the schemas.

    Names are compared by their bytes, as in SQLite: `OC20` and `oc20` are two studies.
    """
    names = [database.schema(name) for name in SCHEMAS]
    return [f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" for name in names]


def create_accounts(passwords: Passwords) -> list[str]:
    """The statements that make the accounts of our own instance, or set their passwords to these.

    Workers come over the network, with TLS. MLflow's server uses the socket of its node.
    """
    statements = []
    for schema, password, host, tls in (
        (OPTUNA, passwords.optuna, "%", "SSL"),
        (MLFLOW, passwords.mlflow, "localhost", "NONE"),
        (AUTH, passwords.mlflow_auth, "localhost", "NONE"),
    ):
        user = f"'{account(schema)}'@'{host}'"
        statements += [
            f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}'",
            f"ALTER USER {user} IDENTIFIED BY '{password}' REQUIRE {tls}",
            f"GRANT {RIGHTS} ON `{schema}`.* TO {user}",
        ]
    return statements


def anonymous_accounts(connection: "pymysql.connections.Connection") -> list[str]:
    """The statements that remove accounts without a name, which initialisation may have left."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT Host FROM mysql.user WHERE User = ''")
        return [f"DROP USER ''@'{host}'" for (host,) in cursor.fetchall()]


def prepare_schemas(database: Database, passwords: Passwords) -> None:
    """Make what of schemas and accounts is not there.

    Raises:
        BdqmError: the database does not answer, or the account that was given may not make schemas.
    """
    try:
        connection = database.connect()
    except pymysql.MySQLError as error:
        where = database.admin.render_as_string().partition("?")[0]
        raise BdqmError(without_secrets(f"cannot use the database {where}: {one_line(error)}")) from None
    try:
        if database.own:
            execute(connection, anonymous_accounts(connection))
        try:
            execute(connection, create_schemas(database))
        except pymysql.err.OperationalError as error:
            wanted = "; ".join(create_schemas(database))
            raise BdqmError(
                f"the account {database.admin.username!r} may not make the schemas ({one_line(error)}); "
                f"ask the server's administrator for: {wanted}; and all rights on them"
            ) from None
        if database.own:
            execute(connection, create_accounts(passwords))
    finally:
        connection.close()
