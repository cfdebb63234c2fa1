"""The folder of the servers, and that of the database's socket, which lies where others may write."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.mlflow_server.backup import make_backup
from bdqm_tune.mlflow_server.database import own_database
from bdqm_tune.mlflow_server.paths import ServerPaths


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerPaths]:
    """Of servers that never ran, on a node with a temporary folder of its own, whose path is short."""
    places = ServerPaths(tmp_path / "services")
    places.make()
    with tempfile.TemporaryDirectory(prefix="bdqm", dir="/tmp") as node:
        monkeypatch.setattr(tempfile, "tempdir", node)
        yield places


def test_the_sockets_folder_is_new_private_and_used_again(places: ServerPaths) -> None:
    places.claim_socket()
    first = places.socket
    assert first.parent.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    places.claim_socket()
    assert places.socket == first
    other = ServerPaths(places.folder.with_name("other"))
    other.make()
    other.claim_socket()
    assert other.socket.parent != first.parent


def test_a_socket_that_no_server_uses_leaves_nothing_on_the_node(places: ServerPaths) -> None:
    places.release_socket()  # none was claimed yet
    places.claim_socket()
    places.socket.touch()
    places.release_socket()
    assert not list(Path(tempfile.gettempdir()).iterdir())
    places.claim_socket()
    places.socket.parent.chmod(0o755)
    places.release_socket()
    assert places.socket.parent.exists(), "one that is not private may be somebody else's"


def test_the_sockets_path_is_the_servers_to_say(places: ServerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    places.claim_socket()
    first = places.socket
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert ServerPaths(places.folder).socket == first
    database = own_database(places, "127.0.0.1", 3306)
    assert database.admin.query["unix_socket"] == str(first)


def test_a_sockets_folder_that_is_not_private_any_more_is_not_used(places: ServerPaths, tmp_path: Path) -> None:
    """Whoever emptied the temporary folder may have left a link, or a folder that others look into."""
    places.claim_socket()
    first, theirs = places.socket.parent, tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "new-file").touch()
    first.rmdir()
    first.symlink_to(theirs)
    places.claim_socket()
    second = places.socket.parent
    assert second != first
    second.chmod(0o755)
    places.claim_socket()
    assert places.socket.parent != second
    assert [path.name for path in theirs.iterdir()] == ["new-file"]
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755


def test_a_copy_of_the_folder_has_a_socket_of_its_own(places: ServerPaths) -> None:
    places.claim_socket()
    copy = ServerPaths(places.folder.with_name("copy"))
    places.folder.rename(copy.folder)
    with pytest.raises(BdqmError, match="does not say where the database's socket is"):
        _ = copy.socket
    copy.claim_socket()


def test_a_long_temporary_folder_is_no_obstacle(places: ServerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = places.folder / ("a" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    places.claim_socket()
    assert len(bytes(places.socket)) <= 107
    places.socket.parent.rmdir()


def test_a_folder_into_which_others_could_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "services"
    folder.mkdir()
    (folder / "passwords.json").write_text("{}")
    folder.chmod(0o777)
    with pytest.raises(BadInput, match="others may have written what is in it.*BDQM_SERVICES=FOLDER"):
        ServerPaths(folder).make()


def test_a_backup_goes_through_no_link_that_others_laid(
    places: ServerPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdqm_tune.mlflow_server.backup._dump", lambda places, database, out: out.write_text("schemas"))
    places.claim_socket()
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.write_text("own")
    file = shared / "backup.tar.gz"
    for name in (".backup.tar.gz.partial", "backup.tar.gz.partial", "backup.tar.gz"):
        (shared / name).symlink_to(tmp_path / "nowhere" if name == file.name else own)
    make_backup(places, own_database(places, "127.0.0.1", 3306), file, {})
    assert own.read_text() == "own"
    assert not file.is_symlink()
    assert not (tmp_path / "nowhere").exists()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_uid == os.getuid()
