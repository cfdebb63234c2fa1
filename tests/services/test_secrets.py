"""Passwords are found in what would be recorded or shown, and taken out or refused."""

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import sqlalchemy
from hypothesis import assume, given
from hypothesis import strategies as st

from bdqm_tune.admin.status import all_studies
from bdqm_tune.errors import BadInput
from bdqm_tune.mlflow_server.settings import Settings, choose
from bdqm_tune.services.connection import Connection, Stores, connection_text, find_stores
from bdqm_tune.services.secrets import has_secret, refuse_secrets, without_secrets
from bdqm_tune.storage import database as opening
from bdqm_tune.tracking.client import tracking_client
from tests.fuzzing import bounded


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql+pymysql://me:pw@h/d failed", "mysql+pymysql://me:***@h/d failed"),
        ("http://me:p@ss:w/rd@h", "http://me:***@h"),
        ("https://:token@git.example/x.git", "https://:***@git.example/x.git"),
        ("mysql://me@server:pw@h/d", "mysql://me@server:***@h/d"),
        ("mysql+pymysql://me@h/d?charset=utf8mb4&password=pw", "mysql+pymysql://me@h/d?charset=utf8mb4&password=***"),
        (
            "postgresql://h/d?sslmode=x&sslPassword=p@w/1&x=2 failed",
            "postgresql://h/d?sslmode=x&sslPassword=*** failed",
        ),
        ("mysql://h/d?ssl_key_passphrase=pw", "mysql://h/d?ssl_key_passphrase=***"),
        ("mysql://h/d?passwd=pw", "mysql://h/d?passwd=***"),
    ],
)
def test_the_passwords_of_urls_are_taken_out(text: str, shown: str) -> None:
    assert has_secret(text)
    assert without_secrets(text) == shown
    assert not has_secret(shown)


def test_a_url_that_lacks_its_end_is_hidden() -> None:
    assert without_secrets("mysql://u:sesame/d failed") == "mysql://u:*** failed"


@pytest.mark.parametrize(
    "text",
    [
        "http://[::1]:5000",
        "http://h:5000/#/x",
        "http://h:5000, which",
        "http://h:5000",
        "https://me@h/x",
        "train.traj",
        "a@b.c",
        "sqlite:////x@y.db",
    ],
)
def test_what_has_none_stays(text: str) -> None:
    assert not has_secret(text)
    assert without_secrets(text) == text


def test_the_passwords_of_the_stores_are_taken_out_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "connection.json"
    connection = Connection("h", "now", "mysql://u:d%40tabase@h/optuna", "http://h", "bdqm", "tr4cking")
    file.write_text(connection_text(connection))
    stores = Stores(tmp_path, connection_file=file)
    assert without_secrets("denied: d@tabase, d%40tabase, tr4cking", stores) == "denied: ***, ***, ***"
    file.unlink()
    assert without_secrets("servers are down", stores) == "servers are down"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"data": {"train": "mysql://u:pw@h/d"}}, "data.train"),
        ({"study": {"enqueue": [{"activation": "http://u:pw@h"}]}}, "study.enqueue.activation"),
        ({"search": {"http://u:pw@h": 1}}, r"search.http://u:\*\*\*@h"),
        ({"config": "http://u:pw@h"}, "config"),
    ],
)
def test_an_option_that_holds_one_is_refused_by_name(options: dict[str, object], name: str) -> None:
    with pytest.raises(BadInput, match=rf"^{name}: holds a URL with a password.*BDQM_STORAGE") as raised:
        refuse_secrets(options)
    assert "pw" not in str(raised.value)
    refuse_secrets({"data": {"train": "train.traj", "test": None}, "study": {"seed": 0}})


# Letters that no message has, so that a part of a password is seen wherever it stands.
PARTS = st.text("QXZJÆÞ", min_size=1, max_size=6)
SPECIAL = st.text("@/:?#%&=+;,.~!$*()[]{} '\"", max_size=3)
passwords = st.builds("".join, st.lists(st.builds("{}{}".format, PARTS, SPECIAL), min_size=1, max_size=4))
forms = st.sampled_from(
    [
        "mysql+pymysql://u:{}@127.0.0.1:9/db",
        "mysql+pymysql://u:{}@127.0.0.1:9/db?charset=utf8mb4",
        "mysql+pymysql://u@127.0.0.1:9/db?password={}",
        "mysql+pymysql://127.0.0.1:9/db?charset=utf8mb4&passwd={}&connect_timeout=1",
        "postgresql://u:{}@127.0.0.1:9/db",
        "http://u:{}@127.0.0.1:9",
        "mysql+pymysql://u:pw{}",
        "mysql:u:{}@127.0.0.1:9/db",
    ]
)
LONG_ENOUGH = 3  # characters in a row that are a part of a password


def shown_parts(password: str, message: str) -> list[str]:
    """The parts of the password that are in the message."""
    runs = re.findall(f"[QXZJÆÞ]{{{LONG_ENOUGH},}}", password)
    parts = {run[i : i + LONG_ENOUGH] for run in runs for i in range(len(run) - LONG_ENOUGH + 1)}
    return [part for part in parts if part in message]


def messages(url: str) -> Iterator[str]:
    """What is said of a URL that does not work: by us, and by the libraries, with all that Python prints of it."""
    attempts: list[Callable[[], object]] = [
        lambda: all_studies(find_stores()),
        lambda: choose("127.0.0.1", Settings(), {"BDQM_MYSQL_URL": url}),
    ]
    if url.startswith("http"):  # with databases MLflow tries for minutes
        attempts.append(lambda: tracking_client(Stores(Path("home"), None, url)).search_experiments())
    ours = len(attempts)
    try:
        find_stores()  # what is refused there reaches no library
        is_http = url.startswith("http")
        attempts.append(lambda: requests.get(url, timeout=5) if is_http else sqlalchemy.create_engine(url).connect())
    except BadInput:
        pass
    for number, attempt in enumerate(attempts):
        try:
            attempt()
        except Exception as error:
            yield str(error) if number < ours else without_secrets("".join(traceback.format_exception(error)))


@given(form=forms, password=passwords)
@bounded(80)
def test_no_part_of_a_password_is_shown_whatever_is_in_it(workdir: Path, form: str, password: str) -> None:
    # What comes after these is a host, and another option, as far as anyone can tell.
    assume(not ("@" in password and form.endswith(":pw{}")))
    assume(not (re.search("&.*=", password) and "?" in form))
    url = form.format(password)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "OTHER_TIMEOUT", 0.0)
        patch.setenv("BDQM_STORAGE", url)
        patch.setenv("BDQM_SERVICES", str(workdir / "none"))
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        for message in [url, f"failed: {url} (again)", *messages(url)]:
            message = without_secrets(message)
            assert shown_parts(password, message) == [], message


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://u:seCreT1@tail9W@127.0.0.1:9/db",
        "mysql+pymysql://u:a@tail9W/x%y@127.0.0.1:9/db",
        "mysql+pymysql://u:12@tail9W@127.0.0.1:9/db",
        "mysql+pymysql://u:tail9W",
        "http://u:a/tail9W@127.0.0.1:9",
        "mysql+pymysql://u@127.0.0.1:9/db?password=a&tail9W",
    ],
)
@pytest.mark.parametrize("name", ["BDQM_STORAGE", "MLFLOW_TRACKING_URI"])
def test_where_the_end_of_a_password_cannot_be_told_the_hint_says_how_to_write_it(name: str, url: str) -> None:
    with pytest.raises(BadInput, match=f"^{name}: .*write @ as %40, / as %2F") as raised:
        find_stores({name: url, "BDQM_SERVICES": "/none"})
    assert "tail9W" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://u:a%40b@h/d?ssl_ca=/x/ca.pem",
        "mysql+pymysql://me@server:a/b:c@h/d",
        "sqlite:////home/a:b@c/optuna.db",
        "mysql+pymysql://u@h/d?password=a%26b&charset=utf8mb4",
    ],
)
def test_what_is_written_as_urls_are_is_taken(url: str) -> None:
    assert find_stores({"BDQM_STORAGE": url, "BDQM_SERVICES": "/none"}).storage == url


def test_a_traceback_has_no_password(workdir: Path) -> None:
    """Of an error that nobody expected, in whatever command."""
    code = (
        "import sys; from bdqm_tune.cli import main, studies\n"
        "def fail(): raise RuntimeError('no mysql://u:sesame77@h/d, nor sesame77')\n"
        "main.stores_here = studies.stores_here = fail\n"
        "sys.argv = ['bdqm-tune', 'studies']; main.main()"
    )
    variables = {**os.environ, "BDQM_STORAGE": "mysql://u:sesame77@h/d"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: no mysql://u:***@h/d, nor ***" in done.stderr
    assert "sesame77" not in done.stderr
