"""The user of this process, who in a container may have neither a name nor a home folder."""

import getpass
import os
from collections.abc import MutableMapping
from pathlib import Path

NO_HOME = Path("/nonexistent")  # what Debian enters for accounts without a home folder


def user_name() -> str:
    """The user's name; the number of an account that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python's before 3.13, and since
        return str(os.getuid())


def user_home() -> Path:
    """The user's home folder; `NO_HOME`, which is not there, if neither HOME nor the system names one."""
    try:
        return Path.home()
    except RuntimeError:
        return NO_HOME


def expanded(path: str) -> Path:
    """A path whose `~` is the home folder; as it is where that is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def complete_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set HOME and LOGNAME where neither they nor the system say who this is: libraries fail without them."""
    if user_home() == NO_HOME:
        environ["HOME"] = str(NO_HOME)
    if user_name() == str(os.getuid()):
        environ["LOGNAME"] = user_name()
