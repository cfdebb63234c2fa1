"""The servers' processes: started apart from the terminal, found again by a variable of their environment, stopped."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil

from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.files import open_no_link
from bdqm_tune.process import machine
from bdqm_tune.progress import check

FOLDER_VARIABLE = "BDQM_SERVERS_OF"  # variable of every server's environment: the folder that it belongs to
GLANCE = 2.0  # seconds; a check of who holds the lock takes it for a moment
STARTED = "=== started"  # a line of a server's log begins so, whenever it is
LOG_BYTES = 20_000_000  # a log that is longer is put aside at the next start


@dataclass(frozen=True)
class Holder:
    """The process that runs the servers of a folder."""

    host: str
    pid: int
    machine: str = ""  # the host since its boot; "" in a file of earlier code

    @property
    def here(self) -> bool:
        """Whether it is on this host, even if that has been renamed; others may share the folder."""
        return self.host == os.uname().nodename or self.machine == machine()

    def terminate(self, lock: Path) -> None:
        """Send it SIGTERM, if its number is not that of the one before it, which may be another process now."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if any(Path(file.path) == lock.resolve() for file in process.open_files()):
                process.terminate()


@contextmanager
def held(lock: Path, refused: Callable[[], BdqmError], shared: bool = False) -> Iterator[None]:
    """Hold a lock in the folder of the servers; the operating system lets go of it when this process ends, however.

    Args:
        refused: the error to raise where another process has it.
        shared: others may hold it as well, if they share it; who they are is not recorded.

    Raises:
        BdqmError: `refused()`, or the file system has no locks.
    """
    with os.fdopen(open_no_link(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        deadline = time.monotonic() + GLANCE
        while not _lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise refused()
            time.sleep(0.05)
        if not shared:
            file.truncate(0)
            file.write(f"{os.uname().nodename} {os.getpid()} {machine()}\n")
            file.flush()
        yield


def holder(lock: Path) -> Holder | None:
    """The process that holds the lock alone, whatever the host; None: nobody does."""
    deadline = time.monotonic() + GLANCE
    while True:
        try:
            with lock.open("r+", encoding="utf-8") as file:
                if _lock(file, fcntl.LOCK_SH):
                    return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            raise BadInput(f"{lock.parent} is another user's; BDQM_SERVICES names a folder of your own") from None
        found = last_holder(lock) or Holder("", 0)
        if not found.here or psutil.pid_exists(found.pid) or time.monotonic() > deadline:
            return found
        time.sleep(0.01)  # who has just taken the lock has not written yet: this is the one before, which has ended


def last_holder(lock: Path) -> Holder | None:
    """The process that held the lock alone last, whether it still does or not; None: nobody did."""
    try:
        host, pid, where, *_ = [*lock.read_text(encoding="utf-8").strip().split(" ", 2), "", ""]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Holder(host, int(pid), where) if pid.isdecimal() else None


def _lock(file: IO[str], kind: int) -> bool:
    """Take the lock, unless another process has it. On NFS, Linux lets it hold on all machines."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise BdqmError(
            f"{file.name}: no locks on this file system ({one_line(error)}); "
            "choose a folder on another one: BDQM_SERVICES"
        ) from None
    return True


def start(command: Sequence[str | Path], folder: Path, log: Path, environment: Mapping[str, str]) -> psutil.Popen:
    """Start a server in a session of its own, so that the terminal's Ctrl-C is the caller's alone.

    A caller in `uninterrupted` gets the process even if a signal comes meanwhile.

    Args:
        folder: the folder that it belongs to.
        log: file to which its output goes.
        environment: its variables, in place of this process's.
    """
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with open_log(log) as output:
        output.write(f"{STARTED} {datetime.now().isoformat(sep=' ', timespec='seconds')}\n")
        output.flush()
        return psutil.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=marked(environment, folder),
            cwd=folder,
            start_new_session=True,
        )


def marked(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Variables by which a process is found to belong to a folder."""
    return {**environment, FOLDER_VARIABLE: str(folder)}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off SIGTERM and SIGINT until the block is over, so that the caller knows of every process to stop.

    For the main thread, which alone gets them.
    """
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for each in handlers:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])


def open_log(log: Path) -> IO[str]:
    """A log, to append to; only its owner may read it."""
    return os.fdopen(open_no_link(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")


def leftovers(folder: Path) -> list[psutil.Process]:
    """The servers of a folder that run on this host, whichever process started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and _same(process.environ().get(FOLDER_VARIABLE, ""), folder):
                found.append(process)
        except psutil.Error:  # it ended, or may not be read
            continue
    return found


def _same(name: str, folder: Path) -> bool:
    """Whether a name is that of a folder, or another path to it."""
    if not name or name == str(folder):
        return bool(name)
    try:
        return folder.samefile(name)
    except OSError:  # one is not there, or may not be read
        return False


def stop(processes: Sequence[psutil.Process], timeout: float) -> None:
    """End processes and what they started: SIGTERM, and SIGKILL to those still alive after `timeout` seconds."""
    everyone = {child for process in processes for child in family(process)}
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(list(everyone), timeout=timeout)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started, and they; empty once it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def free_port(host: str, preferred: Sequence[int] = ()) -> int:
    """A port that nothing listens on: the first free one of `preferred`, else any."""
    for port in (*preferred, 0):
        with socket.socket() as probe:
            # As servers do, so that a port is free again right after the one that had it has ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BdqmError(f"no free port on {host}; is it an address of this machine?")


def listens(process: psutil.Popen, port: int) -> bool:
    """Whether a process, or one that it started, listens on a port: another program may have taken it first."""
    for one in family(process):
        try:
            found = one.net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError):  # a system that does not say: whatever answers is taken for ours
            return True
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found):
            return True
    return False


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 400 * lines))
            return "\n".join(file.read().decode("utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def tail_of_start(log: Path, lines: int) -> list[str]:
    """Those of the last lines of a log that came since its server was started last."""
    found = tail(log, lines).splitlines()
    starts = [number for number, line in enumerate(found, 1) if line.startswith(STARTED)]
    return found[starts[-1] :] if starts else found


def wait_for(ready: Callable[[], bool], processes: Sequence[psutil.Popen], seconds: float) -> bool:
    """Call `ready` until it is true; False if one of the processes ended or the time is over first.

    Raises:
        KeyboardInterrupt: this process got a signal to end.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        if any(process.poll() is not None for process in processes):
            return False
        if ready():
            return True
        time.sleep(0.1)
    return False
