"""A restore is alone with the data, and one that is killed anywhere is finished or undone by what comes next."""

import hashlib
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.mlflow_server import restore as restoring
from bdqm_tune.mlflow_server.backup import make_backup
from bdqm_tune.mlflow_server.certificates import make_certificates
from bdqm_tune.mlflow_server.control import status, up
from bdqm_tune.mlflow_server.data_lock import data_alone, data_shared
from bdqm_tune.mlflow_server.database import await_database, initialise, own_database, start_database
from bdqm_tune.mlflow_server.node import servers_process
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.mlflow_server.processes import free_port, held, stop
from bdqm_tune.mlflow_server.programs import Programs, find_programs
from bdqm_tune.mlflow_server.restore import restore, settle
from tests.forked import Forked

# The restore itself, but for the database that it makes, which is a file here; it is killed before its N-th move.
RESTORE = """
import os, sys, time
from pathlib import Path
from bdqm_tune.mlflow_server import restore
from bdqm_tune.mlflow_server.paths import ServerPaths

def load(places, dump):
    places.data.mkdir()
    (places.data / "who").write_text("new")
    print("loading", flush=True)
    time.sleep(float(sys.argv[4]))

def rename(path, target, moves=[]):
    if len(moves) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    moves.append(target)
    return move(path, target)

restore._load, move, Path.rename = load, Path.rename, rename
restore.restore(ServerPaths(Path(sys.argv[1])), Path(sys.argv[2]), True, print)
"""


@pytest.fixture
def places(tmp_path: Path) -> ServerPaths:
    """Of servers that are down, with data."""
    places = ServerPaths(tmp_path / "services")
    places.make()
    places.claim_socket()
    places.data.mkdir()
    for folder in (places.data, places.artifacts):
        (folder / "who").write_text("old")
    return places


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backup."""
    files = {"schemas.sql": b"", "artifacts/who": b"new"}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    summary = {"format": 1, "made": "then", "versions": {}, "sha256": digests, "artifacts": 1, "bytes": 3}
    files["backup.json"] = json.dumps(summary).encode()
    path = tmp_path / "backup.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def start(places: ServerPaths, file: Path) -> Iterator[Callable[..., Forked]]:
    """`start(kill_before, seconds)` begins a restore in a process of its own, whose database takes so long."""
    started: list[Forked] = []

    def begin(kill_before: int = 9, seconds: float = 0.0) -> Forked:
        started.append(Forked(["-c", RESTORE, places.folder, file, str(kill_before), str(seconds)]))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def who(folder: Path) -> tuple[str, str]:
    """Whose database and whose artifacts are in a folder."""
    return (folder / "database" / "data" / "who").read_text(), (folder / "artifacts" / "who").read_text()


def test_nothing_else_touches_the_data_during_a_restore(
    places: ServerPaths, file: Path, start: Callable[..., Forked], tmp_path: Path
) -> None:
    process = start(seconds=60)
    assert process.stdout.readline() == "loading\n"
    at_work = rf"is at work \(process {process.pid} on {os.uname().nodename}\); wait until it has ended"
    with pytest.raises(BadInput, match=at_work):
        up(places, "127.0.0.1", False, print)
    with pytest.raises(BadInput, match=at_work):
        up(places, "127.0.0.1", True, print)
    with pytest.raises(BadInput, match=at_work):
        make_backup(places, own_database(places, "127.0.0.1", 0), tmp_path / "other.tar.gz", {})
    with pytest.raises(BadInput, match=at_work):
        restore(places, file, True, print)
    assert status(places).restore.startswith(f"{file}, since ")
    assert who(places.folder) == ("old", "old")
    process.send_signal(signal.SIGKILL)
    process.wait(120)
    assert status(places).restore == f"{file}, cut off; bdqm-tune services up undoes it"


def test_nothing_is_restored_while_servers_run_or_a_backup_is_written(places: ServerPaths, file: Path) -> None:
    with data_shared(places), data_shared(places):
        with pytest.raises(BadInput, match="a backup of .* is being written; wait"):
            restore(places, file, True, print)
        with held(places.lock, lambda: BdqmError()), pytest.raises(BadInput, match="bdqm-tune services down"):
            restore(places, file, True, print)
    assert who(places.folder) == ("old", "old")


def test_a_restore_that_is_killed_while_it_prepares_is_undone(
    places: ServerPaths, file: Path, start: Callable[..., Forked]
) -> None:
    process = start(seconds=60)
    assert process.stdout.readline() == "loading\n"
    process.kill()
    process.wait(120)
    said: list[str] = []
    settle(places, said.append)
    assert "before it changed anything" in said[0]
    assert f"bdqm-tune services restore {file}" in said[0]
    assert who(places.folder) == ("old", "old")
    assert not places.restoring.exists()
    settle(places, said.append)
    assert len(said) == 1


@pytest.mark.parametrize("moves", range(4))
def test_a_restore_that_is_killed_between_two_moves_is_finished(
    places: ServerPaths, start: Callable[..., Forked], moves: int
) -> None:
    assert start(kill_before=moves).wait(60) == -signal.SIGKILL
    assert status(places).restore.endswith("bdqm-tune services up finishes it")
    said: list[str] = []
    settle(places, said.append)
    (aside,) = places.folder.glob("replaced-*")
    assert "it is finished now" in said[0]
    assert str(aside) in said[0]
    assert who(places.folder) == ("new", "new")
    assert ((aside / "data" / "who").read_text(), (aside / "artifacts" / "who").read_text()) == ("old", "old")
    assert not places.restoring.exists()
    assert status(places).restore == ""


def test_an_interrupted_restore_leaves_what_was_there(places: ServerPaths, start: Callable[..., Forked]) -> None:
    process = start(seconds=60)
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert who(places.folder) == ("old", "old")
    assert not places.restoring.exists()
    assert status(places).restore == ""


def test_one_that_began_on_another_machine_is_settled_there_or_by_who_insists(
    places: ServerPaths, file: Path, start: Callable[..., Forked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks may end at the machine, on some file systems: it may be at work there, though nobody here has the lock."""
    assert start(kill_before=1).wait(60) == -signal.SIGKILL
    record = json.loads(places.restore_record.read_text())
    write_private(places.restore_record, json.dumps({**record, "host": "node7"}))
    with pytest.raises(BadInput, match=r"began on node7 and has not ended.*--replace"):
        settle(places, print)
    with pytest.raises(BadInput, match=r"began on node7 and has not ended"):
        restore(places, file, False, print)
    monkeypatch.setattr("bdqm_tune.mlflow_server.restore._load", lambda inner, dump: inner.data.mkdir())
    said: list[str] = []
    restore(places, file, True, said.append)
    assert len(said) == 1
    assert (places.artifacts / "who").read_text() == "new"
    kept = {(path.parent.name, path.read_text()) for path in places.folder.glob("replaced-*/*/who")}
    assert ("data", "old") in kept
    assert ("artifacts", "old") in kept


def test_servers_that_are_up_on_another_node_are_named(places: ServerPaths, file: Path) -> None:
    """Even where the lock of that node is not seen here."""
    places.lock.write_text("node7 4711\n")
    places.connection.write_text("{}")
    assert (running := servers_process(places)) is not None
    assert running.host == "node7"
    with pytest.raises(BadInput, match=r"the servers run on node7; there, first: bdqm-tune services down"):
        restore(places, file, True, print)


def test_a_damaged_record_is_named_and_nothing_touched(places: ServerPaths, file: Path) -> None:
    places.restore_record.write_text("{")
    places.restoring.mkdir()
    for act in (lambda: settle(places, print), lambda: restore(places, file, True, print)):
        with pytest.raises(BdqmError, match=r"restore\.json is damaged"):
            act()
    assert places.restoring.exists()
    assert who(places.folder) == ("old", "old")


def test_whoever_restores_is_alone(places: ServerPaths) -> None:
    with data_alone(places), pytest.raises(BadInput, match="a restore into"), data_shared(places):
        pass


def test_no_backup_runs_commands_or_touches_what_is_not_its_own(tmp_path: Path, require: Callable[[str], None]) -> None:
    """Found by an attack: a backup from elsewhere ran a shell, as the one who restored it."""
    require("mariadb")
    programs, places, mark = find_programs(), ServerPaths(tmp_path / "services"), tmp_path / "mark"
    places.make()
    places.claim_socket()
    make_certificates(places.tls, ["127.0.0.1"])
    initialise(places, programs)
    database = own_database(places, "127.0.0.1", free_port("127.0.0.1"))
    process = start_database(places, programs, database, "127.0.0.1")
    secret = tmp_path / "secret.sql"
    secret.write_text("CREATE TABLE optuna.found (x INT);\n")
    begin = "CREATE DATABASE IF NOT EXISTS `optuna`;\nUSE `optuna`;\nCREATE TABLE IF NOT EXISTS t (x TEXT);\n"
    try:
        await_database(places, database, process)
        for line in (
            rf"\! touch {mark}",
            f"system touch {mark}",
            rf"SELECT 1 \! touch {mark}",
            rf"\T {mark}",
            rf"\. {secret}",
            f"source {secret}",
            f"SELECT 1 INTO OUTFILE '{mark}';",
            f"INSERT INTO t VALUES (LOAD_FILE('{secret}')); SELECT 1 FROM t WHERE x IS NOT NULL INTO OUTFILE '{mark}';",
            f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE t;",
            f"SET GLOBAL general_log_file = '{mark}'; SET GLOBAL general_log = 1;",
            "CREATE FUNCTION shell RETURNS STRING SONAME 'shell.so';",
            "CREATE USER other@'%';",
            "INSERT INTO mysql.global_priv VALUES ('%', 'other', '{}');",
            "DROP DATABASE mysql;",
        ):
            dump = tmp_path / "dump.sql"
            dump.write_text(f"{begin}{line}\n")
            with pytest.raises(BdqmError, match="the database does not take the backup"):
                restoring._run_dump(places, programs, database, dump)
            with closing(database.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SHOW TABLES IN optuna")
                assert cursor.fetchall() == (("t",),), line
                cursor.execute(f"DROP USER {restoring.OWNER}@localhost")
            assert not mark.exists(), line
        dump.write_text(begin + "CREATE TRIGGER many BEFORE INSERT ON t FOR EACH ROW SET NEW.x = 'from the trigger';\n")
        restoring._run_dump(places, programs, database, dump)
        with closing(database.connect("optuna")) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES ('')")
            cursor.execute("SELECT x FROM t WHERE x IS NOT NULL")
            assert cursor.fetchall() == (("from the trigger",),)
    finally:
        stop([process], 30)


def test_a_client_that_runs_commands_restores_nothing(tmp_path: Path, places: ServerPaths) -> None:
    client = tmp_path / "mysql"
    client.write_text("#!/bin/sh\necho '--help  Display this help'\n")
    client.chmod(0o755)
    programs = Programs(tmp_path / "mysqld", False, "8.0", (tmp_path,))
    with pytest.raises(BdqmError, match=f"{client} would run commands that a backup may hold"):
        restoring._run_dump(places, programs, own_database(places, "127.0.0.1", 1), tmp_path / "dump.sql")
