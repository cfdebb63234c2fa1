"""Who holds the lock of a folder's servers."""

import errno
import fcntl
import os
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server.processes import (
    Holder,
    held,
    holder,
    leftovers,
    marked,
    start,
    stop,
    tail,
    tail_of_start,
)
from bdqm_tune.process import machine
from tests.waiting import eventually


def taken() -> BdqmError:
    return BdqmError("it is taken")


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_nobody_holds_a_lock_that_is_not_there_or_that_nobody_took(tmp_path: Path, ended: int) -> None:
    lock = tmp_path / "lock"
    assert holder(lock) is None
    lock.write_text(f"{os.uname().nodename} {ended}\n")
    assert holder(lock) is None, "who held it has ended"


def test_the_holder_is_told_and_no_other_gets_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock, taken):
        assert holder(lock) == Holder(os.uname().nodename, os.getpid(), machine())
        for shared in (False, True):
            with pytest.raises(BdqmError, match="it is taken"), held(lock, taken, shared):
                pass
    assert holder(lock) is None


def test_who_shares_a_lock_keeps_out_whoever_wants_it_alone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock, taken, shared=True), held(lock, taken, shared=True):
        assert holder(lock) is None
        with pytest.raises(BdqmError, match="it is taken"), held(lock, taken):
            pass


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(BdqmError, match="no locks on this file system.*BDQM_SERVICES"), held(tmp_path / "lock", taken):
        pass


def test_whoever_has_just_taken_the_lock_is_told_not_the_one_before(tmp_path: Path, ended: int) -> None:
    """Between taking the lock and writing its name a process may be kept waiting; what stands there is old."""
    lock = tmp_path / "lock"
    lock.write_text(f"{os.uname().nodename} {ended}\n")
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found: list[Holder | None] = []
        asks = threading.Thread(target=lambda: found.append(holder(lock)))
        asks.start()
        time.sleep(0.1)
        assert found == []
        file.write(f"{os.uname().nodename} {os.getpid()}\n")
        file.flush()
        asks.join(10)
    assert found == [Holder(os.uname().nodename, os.getpid())]


def test_a_host_that_was_renamed_is_the_same_host(tmp_path: Path) -> None:
    assert Holder("the name before", 1, machine()).here
    assert not Holder("the name before", 1, "another").here
    assert not Holder("the name before", 1).here
    lock = tmp_path / "lock"
    with held(lock, taken):
        host, rest = lock.read_text().split(" ", 1)
        lock.write_text(f"before-{host} {rest}")
        found = holder(lock)
        assert found is not None
        assert (found.host, found.pid, found.here) == (f"before-{host}", os.getpid(), True)


def test_servers_are_found_by_every_path_to_their_folder(tmp_path: Path) -> None:
    """By a link to it, restore once saw no servers, and moved the data away under them."""
    folder, link, other = tmp_path / "services", tmp_path / "link", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    link.symlink_to(folder)

    def has(server: psutil.Popen, path: Path) -> bool:
        return leftovers(path) == [server]

    for started in (folder, link):
        server = psutil.Popen(["sleep", "60"], env=marked(os.environ, started))
        try:
            eventually(partial(has, server, started))  # as it begins it has no variables
            for path in (folder, link, tmp_path / "other" / ".." / "services"):
                assert leftovers(path) == [server], (started, path)
            assert leftovers(other) == leftovers(tmp_path / "none") == []
        finally:
            stop([server], 5)


def test_what_a_log_says_of_the_last_start_is_told_from_what_was_before(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    for said in ("first", "second"):
        start(["echo", said], tmp_path, log, os.environ).wait()
    assert tail_of_start(log, 40) == ["second"]
    start(["true"], tmp_path, log, os.environ).wait()
    assert tail_of_start(log, 40) == []
    assert tail(log, 4).splitlines()[0] == "first"
    assert tail_of_start(tmp_path / "none.log", 40) == []
