"""One file with all schemas, as of one moment, and the artifacts."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psutil
import pymysql

from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.files import written_whole
from bdqm_tune.mlflow_server.data_lock import data_shared
from bdqm_tune.mlflow_server.database import Database
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.mlflow_server.programs import find_programs
from bdqm_tune.mlflow_server.schemas import SCHEMAS
from bdqm_tune.progress import track

FORMAT = 1
SUMMARY, DUMP, ARTIFACTS = "backup.json", "schemas.sql", "artifacts"
# A trigger's owner, which is this machine's user, may not exist where the file is restored.
DEFINER = re.compile(rb"/\*!50017 DEFINER=`[^`]*`@`[^`]*`\*/ ?")
SCHEMA_LINE = re.compile(rb"^(USE|CREATE DATABASE /\*!32312 IF NOT EXISTS\*/) `([^`]+)`")


@dataclass(frozen=True)
class Contents:
    """What a backup file holds."""

    made: str  # ISO 8601
    versions: dict[str, str]  # of the programs that wrote the schemas
    sha256: dict[str, str]  # of every file in it
    artifacts: int  # files
    bytes: int  # of all files, unpacked


def backup_name(what: str = "backup") -> str:
    return f"{what}-{datetime.now():%Y%m%d-%H%M%S}.tar.gz"


def make_backup(places: ServerPaths, database: Database, file: Path, versions: Mapping[str, str]) -> Contents:
    """Write a backup, whole or not at all, while workers go on writing.

    The schemas come first: the artifacts of every run in them are then in the backup.

    Args:
        versions: of the programs that wrote the schemas, to be kept with them.

    Raises:
        BadInput: there is a file of this name, or no place for it, or a restore is at work.
        BdqmError: a part cannot be read.
    """
    if file.exists():
        raise BadInput(f"{file} exists; a backup does not overwrite it")
    if not file.parent.is_dir():
        raise BadInput(f"{file}: there is no folder {file.parent}")
    try:
        _remove_leftovers(places)
        prefix = f"backup-{os.getpid()}-"
        with data_shared(places), tempfile.TemporaryDirectory(dir=places.folder, prefix=prefix) as scratch:
            dump = Path(scratch) / DUMP
            _dump(places, database, dump)
            with written_whole(file, 0o600, on_disk=True) as raw:
                contents = _pack(raw, dump, places.artifacts, dict(versions))
    except OSError as error:
        raise BdqmError(f"cannot write the backup {file}: {one_line(error)}") from None
    return contents


def _remove_leftovers(places: ServerPaths) -> None:
    """Remove what backups left that were killed: a dump, the client's options with a password."""
    for left in (*places.folder.glob("backup-*-*"), *places.database.glob("client-*.cnf")):
        process = re.split("[-.]", left.name)[1]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _pack(raw: IO[bytes], dump: Path, artifacts: Path, versions: dict[str, str]) -> Contents:
    digests: dict[str, str] = {}
    size = 0
    sources = [path for path in sorted(artifacts.rglob("*")) if path.is_file() and not path.is_symlink()]
    names = {dump: DUMP} | {path: f"{ARTIFACTS}/{path.relative_to(artifacts)}" for path in sources}
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as archive:
        for path, name in track(names.items(), "Backup", len(names)):
            try:
                source = path.open("rb")
            except FileNotFoundError:  # removed since it was listed
                continue
            with source:
                info = archive.gettarinfo(arcname=name, fileobj=source)
                hashing = _Hashing(source)
                archive.addfile(info, hashing)
            digests[name] = hashing.sha256.hexdigest()
            size += info.size
        made = datetime.now(UTC).isoformat(timespec="seconds")
        contents = Contents(made, versions, digests, len(digests) - 1, size)
        text = json.dumps({"format": FORMAT, **contents.__dict__}).encode()
        info = tarfile.TarInfo(SUMMARY)
        info.size, info.mode = len(text), 0o600
        archive.addfile(info, io.BytesIO(text))
    return contents


class _Hashing:
    """A file that is digested as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.sha256.update(block)
        return block


def _dump(places: ServerPaths, database: Database, out: Path) -> None:
    """All schemas in one transaction, under their own names whatever the prefix here, without owners."""
    try:
        connection = database.connect()
    except (pymysql.MySQLError, OSError) as error:
        raise BdqmError(f"the database does not answer ({one_line(error)}): bdqm-tune services status") from None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            there = {name for (name,) in cursor.fetchall()}
    finally:
        connection.close()
    schemas = {database.schema(name): name for name in SCHEMAS if database.schema(name) in there}
    program = find_programs().find("mariadb-dump", "mysqldump")
    wanted = ("--single-transaction", "--quick", "--hex-blob", "--routines", "--triggers")
    with client_option(places, database) as options, out.open("wb") as file:
        process = subprocess.Popen(
            [str(program), options, *wanted, "--databases", *schemas],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            file.write(_renamed(DEFINER.sub(b"", line), schemas))
        problem = process.stderr.read().decode(errors="replace").strip()
        if process.wait():
            raise BdqmError(f"cannot read the schemas: {problem or program.name}")


def _renamed(line: bytes, names: Mapping[str, str]) -> bytes:
    """A line of a dump with the schema that it makes or enters under another name."""
    if found := SCHEMA_LINE.match(line):
        name = names.get(found[2].decode(), found[2].decode())
        return b"%s `%s`%s" % (found[1], name.encode(), line[found.end() :])
    return line


@contextmanager
def client_option(places: ServerPaths, database: Database) -> Iterator[str]:
    """The option by which the database's own clients reach it; a file, for there is a password in it."""
    file = places.database / f"client-{os.getpid()}.cnf"
    url = database.admin
    options: dict[str, Any] = {"user": url.username, "password": url.password, "host": url.host, "port": url.port}
    options |= {"socket": url.query.get("unix_socket"), "ssl-ca": url.query.get("ssl_ca")}
    write_private(file, "\n".join(["[client]", *(f'{key} = "{value}"' for key, value in options.items() if value), ""]))
    try:
        yield f"--defaults-file={file}"
    finally:
        file.unlink(missing_ok=True)
