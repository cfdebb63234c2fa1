"""A backup brought back: made beside what is there, then moved into its place.

A restore is alone with the data: it holds `data.lock`, which the process that runs the servers and backups share. What
it is about to do is in `restore.json`, so that the next `up` or `restore` finishes or undoes one that was killed.
"""

import hashlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain, count
from pathlib import Path, PurePosixPath

from bdqm_tune.errors import BadInput, BdqmError, one_line, printable
from bdqm_tune.mlflow_server.backup import ARTIFACTS, DUMP, FORMAT, SUMMARY, Contents, client_option
from bdqm_tune.mlflow_server.certificates import make_certificates
from bdqm_tune.mlflow_server.data_lock import data_alone
from bdqm_tune.mlflow_server.database import Database, await_database, execute, initialise, own_database, start_database
from bdqm_tune.mlflow_server.node import elsewhere
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.mlflow_server.processes import free_port, holder, leftovers, stop, uninterrupted
from bdqm_tune.mlflow_server.programs import Programs, find_programs
from bdqm_tune.mlflow_server.schemas import SCHEMAS

OWNER = "bdqm_restored"  # of what a dump makes


@dataclass(frozen=True)
class Record:
    """What a restore is about to do."""

    file: str  # the backup
    host: str
    since: str  # ISO 8601
    aside: str = ""  # folder for what is there; "" until all that is to come is whole

    @property
    def command(self) -> str:
        return f"bdqm-tune services restore {shlex.quote(self.file)}"


def restore(places: ServerPaths, file: Path, replace_data: bool, say: Callable[[str], None]) -> Contents:
    """Put the schemas and artifacts of a backup into a folder of servers that are down.

    Everything is made beside what is there and then moved into its place.

    Args:
        replace_data: what is there is put aside, into `replaced-DATE`; else there may be nothing.
        say: reports an earlier restore that was cut off.

    Raises:
        BadInput: the file is no backup or damaged, there is data, or servers, a backup or another restore use it.
        BdqmError: the database cannot be made.
    """
    _refuse_running(places)
    places.make()
    with data_alone(places):
        _refuse_running(places)
        _settle(places, say, takes_over=replace_data)
        if places.data.exists() and not replace_data:
            raise BadInput(
                f"there is a database in {places.folder}; --replace puts it aside, "
                "BDQM_SERVICES=FOLDER names another place"
            )
        now = datetime.now()
        record = Record(str(file), os.uname().nodename, now.isoformat(sep=" ", timespec="seconds"))
        _write_record(places, record)
        try:
            inner = ServerPaths(places.restoring)
            shutil.rmtree(inner.folder, ignore_errors=True)
            inner.make()
            contents = _unpack(file, inner.folder)
            _load(inner, inner.folder / DUMP)
        except BaseException:
            _forget(places)
            raise
        record = replace(record, aside=str(_new_folder(places.folder / f"replaced-{now:%Y%m%d-%H%M%S}")))
        _write_record(places, record)
        _move(places, record)
        _forget(places)
    return contents


def settle(places: ServerPaths, say: Callable[[str], None]) -> None:
    """Finish or undo a restore that was cut off, if there is one.

    Raises:
        BadInput: it is at work, or began on another machine and may be.
        BdqmError: it can be neither finished nor undone.
    """
    if places.restore_record.exists():
        with data_alone(places):
            _settle(places, say)


def restore_state(places: ServerPaths) -> str:
    """One line on a restore that is running or was cut off; "" where there is none."""
    record = _read_record(places)
    if record is None:
        return ""
    if (running := holder(places.data_lock)) is not None:
        return f"{record.file}, since {record.since}, by process {running.pid} on {running.host}"
    then = "finishes it" if record.aside else "undoes it"
    where = "" if record.host == os.uname().nodename else f"on {record.host} "
    return f"{record.file}, cut off; {where}bdqm-tune services up {then}"


def _refuse_running(places: ServerPaths) -> None:
    if (node := elsewhere(places)) is not None:
        raise BadInput(
            f"the servers run on {node}; there, first: bdqm-tune services down "
            f"(if {node} is gone: bdqm-tune services up here, and down)"
        )
    if holder(places.lock) is not None or leftovers(places.folder):
        raise BadInput("the servers are up; first: bdqm-tune services down")


def _settle(places: ServerPaths, say: Callable[[str], None], takes_over: bool = False) -> None:
    """Finish a restore that was cut off if all that it was to move is whole, else undo it.

    Args:
        takes_over: even if it began on another machine, where it may be at work if the file system's locks end there.
    """
    record = _read_record(places)
    if record is None:
        return
    if record.host != os.uname().nodename and not takes_over:
        raise BadInput(
            f"a restore of {record.file} began on {record.host} and has not ended; if it is not at work any more, this "
            f"command there settles it, or here: {record.command} --replace"
        )
    stop(leftovers(places.restoring), 30)
    if record.aside:
        _move(places, record)
        aside = f"; what was there before is in {record.aside}" if Path(record.aside).exists() else ""
        say(f"a restore of {record.file} was cut off when all was ready; it is finished now{aside}")
    else:
        say(f"a restore of {record.file} was cut off before it changed anything; it is undone; again: {record.command}")
    _forget(places)


def _move(places: ServerPaths, record: Record) -> None:
    """Put aside what is there and move in what was made; what was moved before this was cut off stays as it is."""
    inner, aside = ServerPaths(places.restoring), Path(record.aside)
    try:
        for old, new in ((places.data, inner.data), (places.artifacts, inner.artifacts)):
            if not new.exists():
                continue
            if old.is_symlink() or (old.exists() and any(old.iterdir())):
                aside.mkdir(mode=0o700, exist_ok=True)
                old.rename(aside / old.name)
            elif old.exists():
                old.rmdir()
            new.rename(old)
    except OSError as error:
        raise BdqmError(
            f"cannot move what was restored to {places.folder}: {one_line(error)}; nothing is lost: when that is "
            "settled, bdqm-tune services up resumes it"
        ) from None


def _new_folder(wanted: Path) -> Path:
    """A folder of this name, or with a number after it, that is not there yet."""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(folder for folder in chain([wanted], numbered) if not folder.exists())


def _forget(places: ServerPaths) -> None:
    """Remove what a restore leaves, its record last."""
    inner = ServerPaths(places.restoring)
    inner.release_socket()
    shutil.rmtree(inner.folder, ignore_errors=True)
    places.restore_record.unlink(missing_ok=True)


def _write_record(places: ServerPaths, record: Record) -> None:
    write_private(places.restore_record, json.dumps(asdict(record), indent=1) + "\n")


def _read_record(places: ServerPaths) -> Record | None:
    try:
        return Record(**json.loads(places.restore_record.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise BdqmError(
            f"{places.restore_record} is damaged ({one_line(error)}); what a restore made and put aside is in "
            f"{places.restoring} and {places.folder}/replaced-*; remove the file when that is in its place"
        ) from None


def _unpack(file: Path, folder: Path) -> Contents:
    """Unpack a backup and compare every file with its digest."""
    wrong = f"{file} is no whole backup of `bdqm-tune services backup`"
    try:
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter=_member)  # nosec B202  # stricter than tarfile's own filter
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise BadInput(f"{wrong}: its format is not {FORMAT}; a newer bdqm-tune may read it")
        contents = Contents(**content)
    except (OSError, EOFError, ValueError, KeyError, TypeError, tarfile.TarError, zlib.error) as error:
        raise BadInput(f"{wrong}: {one_line(error)}") from None
    for name, digest in contents.sha256.items():
        path = folder / name
        if not path.is_file() or hashlib.file_digest(path.open("rb"), "sha256").hexdigest() != digest:
            raise BadInput(f"{wrong}: {name} has changed")
    return contents


def _member(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """A file of the archive to unpack; among the others in the folder, which say where the servers are, it has none."""
    top, *below = PurePosixPath(member.name).parts
    known = (top in (SUMMARY, DUMP) and not below) or (top == ARTIFACTS and below and ".." not in below)
    if not known or not (member.isreg() or member.islnk()):
        raise ValueError(f"{printable(member.name)} is none of its files")
    return tarfile.data_filter(member, folder)


def _load(places: ServerPaths, dump: Path) -> None:
    """Make a data directory with the schemas of a dump."""
    programs = find_programs()
    make_certificates(places.tls, ["127.0.0.1"])
    places.claim_socket()
    initialise(places, programs)
    database = own_database(places, "127.0.0.1", free_port("127.0.0.1"))
    with uninterrupted():
        process = start_database(places, programs, database, "127.0.0.1")
    try:
        await_database(places, database, process)
        _run_dump(places, programs, database, dump)
    finally:
        stop([process], 30)


def _run_dump(places: ServerPaths, programs: Programs, database: Database, dump: Path) -> None:
    """Run a dump with rights on our schemas alone, by a client that runs no command which it may hold.

    A backup may come from another person, or may have been changed on its way.
    """
    client = programs.find("mariadb", "mysql")
    if "--sandbox" not in subprocess.run([client, "--no-defaults", "--help"], capture_output=True, text=True).stdout:
        raise BdqmError(
            f"{client} would run commands that a backup may hold; MariaDB's own client, of 10.5.25, 10.6.18, 10.11.8, "
            "11.4.2 or newer, can be kept from it: put it on the PATH"
        )
    password = secrets.token_urlsafe(32)
    owner = f"'{OWNER}'@'localhost'"
    with closing(database.connect()) as connection:
        execute(connection, [f"CREATE USER {owner} IDENTIFIED BY '{password}'"])
        execute(connection, [f"GRANT ALL ON `{name}`.* TO {owner}" for name in SCHEMAS])
        restricted = replace(database, admin=database.admin.set(username=OWNER, password=password))
        with client_option(places, restricted) as options, dump.open("rb") as file:
            done = subprocess.run([client, options, "--sandbox"], stdin=file, capture_output=True, text=True)
        if done.returncode:
            raise BdqmError(f"the database does not take the backup: {one_line(Exception(done.stderr))}")
        execute(connection, [f"ALTER USER {owner} ACCOUNT LOCK"])  # as whom triggers run
