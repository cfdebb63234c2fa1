"""The process that starts the two servers, restarts one that ends, and stops both: what `services up` leaves behind.

`python -m bdqm_tune.mlflow_server.supervisor FOLDER BIND` is it in the background; `services up --foreground` runs it
in place.
"""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
from sqlalchemy import URL

from bdqm_tune.backoff import pauses
from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.mlflow_server import tracking
from bdqm_tune.mlflow_server.backup import backup_name, make_backup
from bdqm_tune.mlflow_server.certificates import expires, make_certificates
from bdqm_tune.mlflow_server.data_lock import data_shared
from bdqm_tune.mlflow_server.database import (
    Database,
    await_database,
    given_database,
    initialise,
    own_database,
    start_database,
)
from bdqm_tune.mlflow_server.node import elsewhere
from bdqm_tune.mlflow_server.passwords import Passwords, load_passwords
from bdqm_tune.mlflow_server.paths import ServerPaths, state_of, write_private
from bdqm_tune.mlflow_server.processes import family, free_port, held, leftovers, marked, stop, uninterrupted, wait_for
from bdqm_tune.mlflow_server.programs import Programs, find_programs
from bdqm_tune.mlflow_server.restore import settle
from bdqm_tune.mlflow_server.schemas import OPTUNA, SCHEMAS, account, prepare_schemas
from bdqm_tune.mlflow_server.settings import Choices, Settings, choose, installed, load_settings, save_settings
from bdqm_tune.progress import check, told_to_end
from bdqm_tune.services.connection import Connection, connection_text

TRACKING_PORTS = range(5000, 5020)
STOP_SECONDS = {"mlflow": 8.0, "database": 18.0}  # together under the 30 s that a scheduler gives at the end of a job
STOPPING = (signal.SIGTERM, signal.SIGINT)  # what ends the process that runs the servers
ADDRESS_TAKEN = os.strerror(errno.EADDRINUSE).lower()  # as the servers' logs have it, in one case or another
PORTS_TRIED = 5  # that others take before ours starts; each start takes seconds
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds between two attempts to start again what ended
PACKAGES = {"optuna": "optuna", "mlflow": "mlflow", "mlflow_auth": "mlflow"}


class AlreadyRunning(BdqmError):
    """Another process runs the servers of this folder."""


class Servers:
    """The servers of one folder, run by this process."""

    def __init__(self, places: ServerPaths, choices: Choices, say: Callable[[str], None]) -> None:
        self.places, self.choices, self.say = places, choices, say
        self.settings: Settings = load_settings(places.settings)
        self.processes: dict[str, psutil.Popen] = {}
        self._made: list[tuple[int, int] | None] = []  # what the servers were started with
        self._published: tuple[int, int] | None = None
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._programs: Programs | None = None

    def start(self) -> Connection:
        """Bring everything up that is not; what an earlier attempt left half-made is finished or made again.

        Raises:
            BdqmError: a step failed; the message says which and what to do.
        """
        places, choices = self.places, self.choices
        if remains := leftovers(places.folder):
            self.say("stopping servers that were left without their supervisor")
            stop(remains, STOP_SECONDS["database"])
        places.connection.unlink(missing_ok=True)
        self.passwords: Passwords = load_passwords(places.passwords)
        make_certificates(places.tls, choices.names)
        self._made, made = [], self._states()
        self._start_database()
        self._bring_schemas()
        if choices.tracking is None:
            self._start_tracking_first()
        self._made = made
        return self._publish()

    def watch(self) -> None:
        """Start again whatever ends, for ever."""
        waits = pauses(FIRST_WAIT, LONGEST_WAIT)
        while True:
            time.sleep(1.0)
            check()
            exited = [name for name, process in self.processes.items() if process.poll() is not None]
            outdated = self._outdated()
            if not exited and not outdated:
                self._publish_again()
                continue
            for name in exited:
                self.say(f"the {name} server ended with status {self.processes[name].returncode}; starting it again")
            try:
                if outdated:
                    load_passwords(self.places.passwords)  # a file that is damaged ends no server
                    self.say("starting both servers again, with new passwords or certificates")
                    self._stop()
                    self.start()
                else:
                    self._restart(exited)
                waits = pauses(FIRST_WAIT, LONGEST_WAIT)
            except (BdqmError, OSError) as error:
                wait = next(waits)
                self.say(f"{error}; again in {wait:.0f} s")
                self._pause(wait)

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until another server ends."""
        running = [process for process in self.processes.values() if process.poll() is None]
        wait_for(lambda: False, running, seconds)

    def stop(self) -> None:
        """Shut both down cleanly, first what uses the other, and what was being started."""
        self._stop()
        stop(leftovers(self.places.folder), STOP_SECONDS["database"])
        self.places.release_socket()
        self.say("down")

    def _stop(self) -> None:
        self.places.connection.unlink(missing_ok=True)
        for name in ("mlflow", "database"):
            if process := self.processes.pop(name, None):
                self.say(f"stopping the {name} server")
                stop([process], STOP_SECONDS[name])

    def _states(self) -> list[tuple[int, int] | None]:
        """Of what is made at the start if it is not there; `control.renew` removes it."""
        return [state_of(self.places.passwords), state_of(self.places.authority)]

    def _outdated(self) -> bool:
        """Whether the servers should have other passwords or certificates than they were started with."""
        try:
            states = self._states()
            return None in states or states != self._made or expires(self.places.tls)
        except OSError:  # the folder's disk does not answer, which is no reason to end servers that do
            return False

    def _restart(self, exited: Collection[str]) -> None:
        self._stop_orphans()
        if "database" in exited:
            self._start_database()
        if "mlflow" in exited:
            self._start_tracking()
        self._publish()

    def _stop_orphans(self) -> None:
        """Stop what a server that was killed had started: it would keep its port."""
        ours = {member for process in self.processes.values() for member in family(process)}
        stop([process for process in leftovers(self.places.folder) if process not in ours], STOP_SECONDS["mlflow"])

    def _start_database(self) -> None:
        places, choices = self.places, self.choices
        if choices.mysql is not None:
            self.database = given_database(choices.mysql)
            return
        if self._programs is None:
            self._programs = find_programs()
            self.say(f"database: {self._programs.version}")
        places.claim_socket()
        if not places.data.exists():
            self.say("database: making the data directory")
            initialise(places, self._programs)
        programs, last = self._programs, self.settings.database_port

        def start(port: int) -> psutil.Popen:
            self.database = own_database(places, choices.host, port)
            self.say(f"database: starting on port {port}")
            with uninterrupted():
                process = start_database(places, programs, self.database, choices.bind)
                self.processes["database"] = process
            await_database(places, self.database, process)
            return process

        port, _ = self._on_a_free_port([last] if last else [], start)
        self._remember(replace(self.settings, database_port=port))

    def _bring_schemas(self) -> None:
        prepare_schemas(self.database, self.passwords)
        self.say("schemas: making or checking the tables")
        found = self._migrate(upgrade=False)
        for name, state in found.items():
            package = PACKAGES[name]
            if state == "newer":
                raise BdqmError(
                    f"the schema {name} was written by a newer {package} than {installed()[package]}, the one that is "
                    f"installed: pip install --upgrade {package}"
                )
            if state == "broken":
                backups = [shlex.quote(str(file)) for file in sorted(self.places.backups.glob("before-upgrade-*"))]
                raise BdqmError(
                    f"an upgrade of the schema {name} was cut off; what was there before it comes back with: "
                    f"bdqm-tune services restore {backups[-1] if backups else 'FILE'} --replace"
                )
        if "older" in found.values():
            before = self.settings.versions
            file = self.places.backups / backup_name("before-upgrade")
            self.say(f"schemas: an older version; first a backup: {file}")
            make_backup(self.places, self.database, file, before)
            self._migrate(upgrade=True)
            pins = " ".join(f"{name}=={number}" for name, number in before.items())
            undo = f"bdqm-tune services down; bdqm-tune services restore {shlex.quote(str(file))} --replace"
            self.say(f"schemas: upgraded; to undo it: {f'pip install {pins}; ' if pins else ''}{undo}")
        self._remember(replace(self.settings, versions=installed()))

    def _migrate(self, upgrade: bool) -> dict[str, str]:
        """State of each schema, found or made in a process of its own, whose imports are large and slow."""
        needed = SCHEMAS if self.choices.tracking is None else (OPTUNA,)
        urls = {name: self.database.admin.set(database=self.database.schema(name)) for name in needed}
        request = {
            "urls": {name: url.render_as_string(hide_password=False) for name, url in urls.items()},
            "admin_password": self.passwords.tracking_admin,
            "user_password": self.passwords.tracking_user,
            "upgrade": upgrade,
        }
        log = self.places.log("schemas")
        done = subprocess.run(
            [sys.executable, "-m", "bdqm_tune.mlflow_server.migrate"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=marked(os.environ, self.places.folder),
        )
        write_private(log, done.stderr)
        try:
            answer = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            answer = {"error": f"no answer, status {done.returncode}"}
        if "error" in answer:
            raise BdqmError(f"cannot make the tables: {answer['error']} (log: {log})")
        return {schema["name"]: schema["state"] for schema in answer}

    def _start_tracking(self) -> None:
        choices, last = self.choices, self.settings.tracking_port

        def start(port: int) -> psutil.Popen:
            self.address = tracking.Address(choices.bind, choices.host, port)
            self.say(f"MLflow: starting at {self.address.uri}")
            with uninterrupted():
                process = tracking.start_tracking(
                    self.places, self.database, self.passwords, self.address, choices.names, choices.processes
                )
                self.processes["mlflow"] = process
            needed = [one for name, one in self.processes.items() if name != "mlflow"]
            tracking.await_tracking(self.places, self.address, process, needed)
            return process

        preferred = [last, *TRACKING_PORTS] if last else TRACKING_PORTS
        port, _ = self._on_a_free_port(preferred, start)
        self._remember(replace(self.settings, tracking_port=port).with_tracking(self.address.uri))

    def _start_tracking_first(self) -> None:
        """Start MLflow's server for the first time; if the database ends meanwhile, that comes first once more."""
        try:
            self._start_tracking()
        except BdqmError as error:
            database = self.processes.get("database")
            if database is None or database.poll() is None:
                raise
            self.say(f"{error}; starting both again")
            self._start_database()
            self._start_tracking()

    def _on_a_free_port(
        self, preferred: Sequence[int], start: Callable[[int], psutil.Popen]
    ) -> tuple[int, psutil.Popen]:
        """Start a server on a free port; on another one if a program took it between the check and the start.

        Raises:
            BdqmError: it does not start, and not for its port.
        """
        for _ in range(PORTS_TRIED):
            port = free_port(self.choices.bind, preferred)
            try:
                return port, start(port)
            except BdqmError as error:
                # What took the port may have given it back by now.
                if ADDRESS_TAKEN not in str(error).lower() and free_port(self.choices.bind, [port]) == port:
                    raise
                problem = error
        raise problem

    def _publish(self) -> Connection:
        """Write the connection file, by which clients find the servers."""
        database, own = self.database, self.choices.tracking is None
        url = database.public.set(database=database.schema(OPTUNA))
        if database.own:
            url = url.set(username=account(OPTUNA), password=self.passwords.optuna)
        connection = Connection(
            host=self.choices.host if self.choices.public else os.uname().nodename,
            since=self._since,
            storage_url=url.render_as_string(hide_password=False),
            tracking_uri=self.address.uri if own else str(self.choices.tracking),
            tracking_username=tracking.USER if own else "",
            tracking_password=self.passwords.tracking_user if own else "",
            tracking_ca=str(self.places.ca) if own else "",
            earlier_tracking_uris=self.settings.tracking_uris[1:] if own else (),
        )
        write_private(self.places.connection, connection_text(connection))
        self._published = state_of(self.places.connection)
        return connection

    def _publish_again(self) -> None:
        """Write the connection file again if it is gone or another one, as without it nobody finds the servers."""
        try:
            if state_of(self.places.connection) != self._published:
                self.say(f"{self.places.connection} was changed or removed; writing it again")
                self._publish()
        except OSError as error:  # the next round tries again
            self.say(f"cannot write {self.places.connection}: {one_line(error)}")

    def _remember(self, settings: Settings) -> None:
        self.settings = settings
        save_settings(self.places.settings, settings)


def run(places: ServerPaths, choices: Choices, say: Callable[[str], None], ready: Callable[[Connection], None]) -> None:
    """Start the servers and restart those that end, until this process gets SIGTERM or SIGINT; then stop them.

    Where both are the user's own, it returns as soon as their schemas are made.

    Args:
        ready: called when the servers are up.

    Raises:
        AlreadyRunning: another process does this.
        BadInput: a restore is at work in the folder.
        BdqmError: they do not start.
        KeyboardInterrupt: one of the signals came before they were up; nothing of them is left.
    """
    for number in STOPPING:
        signal.signal(number, _interrupt)
    places.make()
    with held(places.lock, lambda: AlreadyRunning(f"another process runs the servers of {places.folder}")):
        settle(places, say)
        with data_shared(places):
            _start_and_watch(Servers(places, choices, say), ready)


def _start_and_watch(servers: Servers, ready: Callable[[Connection], None]) -> None:
    are_up = False
    try:
        connection = servers.start()
        are_up = True
        ready(connection)
        if servers.processes:
            servers.watch()
    except BaseException as error:
        _heed_no_more()
        servers.stop()
        if not (are_up and isinstance(error, KeyboardInterrupt)):
            raise


def running_database(places: ServerPaths, storage: URL, environ: Mapping[str, str] = os.environ) -> Database:
    """The database that runs now, for its administrator.

    Args:
        storage: of Optuna, as the connection file says.

    Raises:
        BadInput: it is ours and runs on another node, whose socket alone lets its administrator in.
        BdqmError: nothing says where its socket is.
    """
    mysql = choose("127.0.0.1", load_settings(places.settings), environ).mysql
    if mysql is not None:
        return given_database(mysql)
    if (node := elsewhere(places)) is not None:
        raise BadInput(
            f"the servers run on {node}: there, the same command "
            f"(if {node} is gone: bdqm-tune services up brings them up here)"
        )
    return own_database(places, str(storage.host), storage.port or 0)


def _interrupt(*_: object) -> None:
    _heed_no_more()
    told_to_end.set()  # for `check`, should the exception be lost in a callback
    raise KeyboardInterrupt


def _heed_no_more() -> None:
    """Let no second signal leave a server behind. Python complains where SIG_IGN meets one that has just come."""
    for number in STOPPING:
        signal.signal(number, lambda *_: None)


def say(text: str) -> None:
    """A line of the supervisor's log."""
    print(f"{datetime.now().isoformat(sep=' ', timespec='seconds')} {text}", flush=True)


def main() -> None:
    places, bind = ServerPaths(Path(sys.argv[1])), sys.argv[2]
    try:
        choices = choose(bind, load_settings(places.settings))
        run(places, choices, say, lambda connection: say(f"up: {connection.tracking_uri}"))
    except AlreadyRunning as error:
        say(f"{error}; waiting for it")
    except BdqmError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("error: interrupted before the servers were up; none is left")
        sys.exit(130)
    except Exception as error:  # a defect of ours; those who wait for the servers must learn of it
        traceback.print_exc()
        say(f"error: {type(error).__name__}: {one_line(error)} (traceback: {places.log('services')})")
        sys.exit(1)


if __name__ == "__main__":
    main()
