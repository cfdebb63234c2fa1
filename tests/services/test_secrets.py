"""Passwords are found in what would be recorded or shown, and taken out or refused."""

from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput
from bdqm_tune.services.connection import Connection, Stores, connection_text
from bdqm_tune.services.secrets import has_secret, refuse_secrets, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql+pymysql://me:pw@h/d failed", "mysql+pymysql://me:***@h/d failed"),
        ("http://me:p@ss:w/rd@h", "http://me:***@h"),
        ("https://:token@git.example/x.git", "https://:***@git.example/x.git"),
    ],
)
def test_the_passwords_of_urls_are_taken_out(text: str, shown: str) -> None:
    assert has_secret(text)
    assert without_secrets(text) == shown
    assert not has_secret(shown)


@pytest.mark.parametrize("text", ["", "http://h:5000/x", "https://me@h/x", "train.traj", "a@b.c", "sqlite:////x@y.db"])
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
