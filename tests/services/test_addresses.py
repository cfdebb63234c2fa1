"""Addresses of stores that are none: one line, without the password, and no traceback."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdqm_tune.admin.status import all_studies
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.mlflow_server.settings import Settings, choose
from bdqm_tune.services.connection import find_stores, same_database
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.tracking.client import tracking_client
from tests.fuzzing import bounded, is_one_line, refused

PASSWORD = "verysecretpw"
BROKEN = (
    "x",
    "://",
    "mysql",
    f"mysql+pymysql://u:{PASSWORD}@127.0.0.1:abc/x",
    f"mysql+pymysql://u:{PASSWORD}@[::1/x",
    f"nosuch+driver://u:{PASSWORD}@h/x",
    f"mysql+pymysql://u:{PASSWORD}@127.0.0.1:1/x?nosuch=1",
    f"mysql+pymysql://u:{PASSWORD}@127.0.0.1:1/x?connect_timeout=abc",
    f"mysql+pymysql://u:{PASSWORD}@127.0.0.1:1/x?ssl_ca=/nowhere",
    f"mssql+pyodbc://u:{PASSWORD}@h/x",
    f"https://u:{PASSWORD}@127.0.0.1:1",
    "http://[",
    "http://a b/",
    "redis://x",
    "'; DROP TABLE studies; --",
    "sqlite:////etc/passwd",
    "\ud800",
    "x" * 3000,
)


@pytest.mark.parametrize("url", BROKEN)
def test_a_storage_that_is_none_is_told(workdir: Path, url: str) -> None:
    message = refused(lambda: all_studies(find_stores({"BDQM_STORAGE": url})))
    assert PASSWORD not in message
    assert not list(workdir.iterdir())


@pytest.mark.parametrize("url", [f"postgresql://u:{PASSWORD}@h/x", *BROKEN[3:6], f"mssql+nosuch://u:{PASSWORD}@h/x"])
def test_a_tracking_store_that_is_none_is_told(workdir: Path, url: str) -> None:
    message = refused(lambda: tracking_client(find_stores({"MLFLOW_TRACKING_URI": url})))
    assert PASSWORD not in message
    assert not list(workdir.iterdir())


@pytest.mark.parametrize(
    "url", [one for one in BROKEN if not one.startswith("mysql+pymysql://u:verysecretpw@127.0.0.1:1/")]
)
def test_a_server_that_is_none_is_told(workdir: Path, url: str) -> None:
    message = refused(lambda: choose("127.0.0.1", Settings(), {"BDQM_MYSQL_URL": url}), BadInput)
    assert message.startswith("BDQM_MYSQL_URL")
    assert PASSWORD not in message


urls = st.builds(
    "{}://{}{}:{}/{}?{}".format,
    st.sampled_from(["sqlite", "mysql", "mysql+pymysql", "mariadb", "http", "postgresql", "", "é"]),
    st.sampled_from(["", f"u:{PASSWORD}@", f":{PASSWORD}@", f"u%40:{PASSWORD}@"]),
    st.text(max_size=8),
    st.text(max_size=4),
    st.text(max_size=8),
    st.text(max_size=8),
)


@given(one=urls | st.text(max_size=40), other=urls | st.sampled_from(BROKEN))
@bounded(150)
def test_any_two_addresses_can_be_compared_and_shown(one: str, other: str) -> None:
    assert same_database(one, other) == same_database(other, one)
    assert PASSWORD not in without_secrets(one)
    try:
        stores = find_stores({"BDQM_STORAGE": one, "MLFLOW_TRACKING_URI": other})
    except BdqmError as error:
        message = str(error)
    else:
        message = repr(stores.notes)
    assert is_one_line(message.replace(one, "").replace("\n", " ") or "none")
    assert PASSWORD not in message
