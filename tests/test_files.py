"""What another user of the machine has laid in the way: nothing is written through it, and nothing of ours changed."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput
from bdqm_tune.files import open_no_link, private_folder, write_whole, written_whole

STRANGER = 65534


@pytest.fixture
def others() -> Callable[[Path], None]:
    """`others(path)` makes a file, folder or link another user's; the test is skipped where that cannot be."""

    def give(path: Path) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can give a file to another user")
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)

    return give


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A file of ours, to which links lead; it is as it was after the test."""
    path = tmp_path / "own"
    path.write_text("own")
    path.chmod(0o640)
    yield path
    assert path.read_text() == "own"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, own: Path) -> None:
    path = tmp_path / "out.csv"
    for target in (own, tmp_path / "nowhere"):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        write_whole(path, "new")
        assert not path.is_symlink()
        assert path.read_text() == "new"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.csv", "own"]


def test_a_second_name_of_our_file_is_left_alone(tmp_path: Path, own: Path) -> None:
    path = tmp_path / "out.csv"
    path.hardlink_to(own)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path, own: Path) -> None:
    with pytest.raises(ZeroDivisionError), written_whole(own) as file:
        file.write(b"half")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == [own]


def test_permissions_are_those_asked_for_less_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", "")
        with written_whole(tmp_path / "private", 0o600):
            assert [stat.S_IMODE(one.stat().st_mode) for one in tmp_path.glob("private.*")] == [0o600]
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_the_terminal_is_written_to_and_not_replaced() -> None:
    write_whole(Path("/dev/null"), "text")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_a_locks_file_that_is_a_link_is_refused(tmp_path: Path, own: Path) -> None:
    lock = tmp_path / "lock"
    for target in (own, tmp_path / "nowhere"):
        lock.unlink(missing_ok=True)
        lock.symlink_to(target)
        with pytest.raises(OSError, match="it is a symbolic link, through which nothing is written"):
            open_no_link(lock, os.O_RDWR | os.O_CREAT)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_anothers_or_by_anothers_link_is_refused(tmp_path: Path, others: Callable[[Path], None]) -> None:
    target, link, folder = tmp_path / "target", tmp_path / "link", tmp_path / "folder"
    for made in (target, folder):
        made.mkdir(mode=0o755)
    link.symlink_to(target)
    others(link)
    others(folder)
    with pytest.raises(BadInput, match="link is a link that belongs to another user"):
        private_folder(link)
    with pytest.raises(BadInput, match="folder belongs to another user"):
        private_folder(folder)
    assert {stat.S_IMODE(one.stat().st_mode) for one in (target, folder)} == {0o755}


def test_a_link_of_ones_own_leads_to_a_private_folder(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir(mode=0o755)
    link.symlink_to(target)
    private_folder(link)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_what_others_may_have_laid_into_a_folder_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "empty: nobody has"
    (folder / "passwords.json").write_text("{}")
    folder.chmod(0o777)
    with pytest.raises(BadInput, match="others may have written what is in it; if not, chmod -R go="):
        private_folder(folder)
