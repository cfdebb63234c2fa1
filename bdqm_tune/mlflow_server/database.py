"""The private MariaDB or MySQL instance: its configuration, first initialisation, start, and connections to it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pymysql
from sqlalchemy import URL

from bdqm_tune.errors import BdqmError, one_line
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.mlflow_server.processes import marked, start, stop, tail_of_start, wait_for
from bdqm_tune.mlflow_server.programs import Programs
from bdqm_tune.user import user_name

# Two for each of 1000 workers, and those that the MLflow server may open (see tracking.py and settings.py). One that is
# not used costs nothing; where the system allows fewer files, the database takes less by itself.
MAX_CONNECTIONS = 3300
START_SECONDS = 60.0  # after a crash InnoDB recovers first


@dataclass(frozen=True)
class Database:
    """How its administrator, this process, reaches a database; and how others do."""

    admin: URL  # without a schema
    public: URL  # for clients, with TLS; without account and schema
    local: URL  # for the MLflow server, on the same node
    own: bool  # whether we run it; else its accounts are its administrator's affair
    prefix: str = ""  # of the schemas' names

    def schema(self, name: str) -> str:
        """The name in the database of one of our schemas."""
        return self.prefix + name

    def connect(self, schema: str | None = None) -> "pymysql.connections.Connection":
        """Connect as administrator. Raises pymysql.MySQLError."""
        return connect(self.admin.set(database=schema))


def connect(url: URL) -> "pymysql.connections.Connection":
    """Connect to what a URL of SQLAlchemy names. Raises pymysql.MySQLError."""
    arguments, options = url.get_dialect()().create_connect_args(url)
    return pymysql.connect(*arguments, **{"connect_timeout": 10, "autocommit": True, **options})


def own_database(places: ServerPaths, host: str, port: int) -> Database:
    """The instance in the folder, as it is reached at this address.

    The administrator needs no password: the operating system tells the database whose process connects to its socket.
    """
    socket, tls = {"unix_socket": str(places.socket), "charset": "utf8mb4"}, {"ssl_ca": str(places.ca)}
    at_socket = URL.create("mysql+pymysql", host="localhost", query=socket)
    return Database(
        admin=at_socket.set(username=user_name()),
        local=at_socket,
        public=URL.create("mysql+pymysql", host=host, port=port, query={"charset": "utf8mb4", **tls}),
        own=True,
    )


def given_database(url: URL) -> Database:
    """A server that the user has; the path of its URL, if any, is put before the names of the schemas."""
    bare = URL.create(url.drivername, url.username, url.password, url.host, url.port, query=url.query)
    return Database(admin=bare, public=bare, local=bare, own=False, prefix=url.database or "")


def configuration(places: ServerPaths, mariadb: bool, bind: str, port: int) -> str:
    """The text of the instance's my.cnf."""
    options: dict[str, object] = {
        "datadir": places.data,
        "socket": places.socket,
        # Its own: a server that starts removes what it takes for leftovers there, other servers' tables too.
        "tmpdir": places.socket.parent,
        "pid-file": places.database / "database.pid",
        "bind-address": bind,
        "port": port,
        # TLS for everyone who comes over the network; a socket counts as secure.
        "require_secure_transport": "ON",
        "ssl-ca": places.ca,
        "ssl-cert": places.tls / "server.pem",
        "ssl-key": places.tls / "server.key",
        "tls-version": "TLSv1.2,TLSv1.3",
        # An address then never counts as the host `localhost`: the administrator's accounts are the socket's alone.
        "skip-name-resolve": "ON",
        "local-infile": "OFF",
        "character-set-server": "utf8mb4",
        "collation-server": "utf8mb4_bin",
        "transaction-isolation": "READ-COMMITTED",
        "innodb-buffer-pool-size": "256M",
        "max-allowed-packet": "64M",
        "max-connections": MAX_CONNECTIONS,
        "skip-log-bin": None,
        "performance-schema": "OFF",
    }
    if os.getuid() == 0:
        options["user"] = "root"  # which it does not run as unless this is set
    if mariadb:
        options["log-warnings"] = 1  # at 2, every worker that is killed leaves a line
    else:
        options |= {"mysqlx": "OFF", "plugin-load-add": "auth_socket.so", "init-file": places.database / "init.sql"}
    lines = [name if value is None else f'{name} = "{value}"' for name, value in options.items()]
    return "\n".join(["[mysqld]", *lines, ""])


def initialise(places: ServerPaths, programs: Programs) -> None:
    """Make the data directory, whole or not at all, unless it is there.

    Raises:
        BdqmError: the database's own program for it fails.
    """
    if places.data.exists():
        return
    # Of names of their own: the program of one that was killed may still be at work in its directory.
    for left in places.socket.parent.glob("new-*"):
        left.unlink(missing_ok=True)
    for left in places.database.glob("new-*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=places.database))
    link = places.socket.parent / new.name
    link.symlink_to(new)  # since mariadb-install-db cannot do with a blank in the path
    user = user_name()
    if programs.mariadb:
        command = [programs.find("mariadb-install-db", "mysql_install_db"), "--no-defaults", f"--datadir={link}"]
        command += ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", "--skip-test-db"]
        command += ["--skip-name-resolve"]
    else:
        command = [programs.server, "--no-defaults", f"--datadir={link}", "--initialize-insecure"]
        account = f"'{user}'@'localhost'"
        write_private(
            places.database / "init.sql",  # run at each start, before the port is open
            f"CREATE USER IF NOT EXISTS {account};\nALTER USER {account} IDENTIFIED WITH auth_socket;\n"
            f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION;\n"
            "ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED WITH auth_socket;\n",
        )
    if os.getuid() == 0:
        command += ["--user=root"]
    # Not in a folder of all, where others see the names of its files, and servers that start remove what they take for
    # leftovers.
    environment = marked({**os.environ, "TMPDIR": str(places.socket.parent)}, places.folder)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise BdqmError(f"cannot initialise the database: {one_line(Exception(done.stderr or done.stdout))}")
    link.unlink()
    new.rename(places.data)


def start_database(places: ServerPaths, programs: Programs, database: Database, bind: str) -> psutil.Popen:
    """Start the instance; `await_database` waits for it.

    Args:
        database: where it is to be, as `own_database` says.
        bind: the address that it listens at.
    """
    assert database.public.port is not None
    file = places.database / "my.cnf"
    write_private(file, configuration(places, programs.mariadb, bind, database.public.port))
    places.socket.unlink(missing_ok=True)
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    log = places.log("database")
    return start([programs.server, f"--defaults-file={file}"], places.folder, log, environment)


def await_database(places: ServerPaths, database: Database, process: psutil.Popen) -> None:
    """Wait until the instance answers.

    Raises:
        BdqmError: it does not start, and was stopped; the message has the end of its log.
    """
    log = places.log("database")
    if not wait_for(lambda: answers(database), [process], START_SECONDS):
        stop([process], 20)  # it may be in the middle of a recovery
        problems = [line for line in tail_of_start(log, 40) if "ERROR" in line]
        raise BdqmError(
            f"the database does not start: {' / '.join(problems[-3:]) or 'it does not answer'} (log: {log})"
        )


def answers(database: Database) -> bool:
    """Whether its administrator can connect."""
    try:
        database.connect().close()
    except pymysql.MySQLError:
        return False
    return True


def execute(connection: "pymysql.connections.Connection", statements: Sequence[str]) -> None:
    """Run SQL statements one after the other."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
