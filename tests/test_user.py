"""A user without an entry in the password file and without HOME, as in a container."""

import getpass
import os
from pathlib import Path

import pytest

from bdqm_tune.services.connection import find_stores, services_folder
from bdqm_tune.user import NO_HOME, complete_environment, expanded, user_home, user_name


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process belongs to such a user."""

    def unknown(*_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_name_and_a_home_has_a_number_and_none(workdir: Path) -> None:
    assert (user_name(), user_home()) == (str(os.getuid()), NO_HOME)
    assert expanded("~/a") == Path("~/a")
    assert services_folder({}) == NO_HOME / ".bdqm-tune"
    assert find_stores({}).home == workdir / ".bdqm"
    complete_environment()
    assert (getpass.getuser(), Path.home(), expanded("~/a")) == (str(os.getuid()), NO_HOME, NO_HOME / "a")


def test_what_is_known_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("LOGNAME", "me")
    environ: dict[str, str] = {}
    complete_environment(environ)
    assert environ == {}
    assert (user_name(), user_home(), expanded("~/a")) == ("me", Path("/home/me"), Path("/home/me/a"))
