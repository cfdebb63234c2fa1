"""Compiled files are those of the code as it is: kept by its digest, taken again elsewhere, and removed with it."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bdqm_tune.compilation import cache as compiling

PY = f"py{sys.version_info.major}{sys.version_info.minor}"
KERNELS = "from bdqm_tune.compiled import compiled\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A tree with a folder in which something is compiled, and one without."""
    files = {
        "compiled.py": "import numba\n",
        "kernels/loops.py": KERNELS,
        "kernels/lanes.py": "WIDTH = 8\n",
        "other/text.py": "a = 1\n",
    }
    folder = tmp_path / "package"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_digest_is_that_of_all_code_that_may_be_compiled_in(package: Path) -> None:
    names = [str(path.relative_to(package)) for path in compiling.sources(package)]
    assert names == ["compiled.py", "kernels/lanes.py", "kernels/loops.py"]
    before = compiling.digest(package)
    (package / "other" / "text.py").write_text("a = 2\n")
    assert compiling.digest(package) == before
    (package / "kernels" / "lanes.py").write_text("WIDTH = 4\n")
    assert compiling.digest(package) != before


def test_the_package_has_such_code() -> None:
    names = {str(path.relative_to(compiling.PACKAGE)) for path in compiling.sources()}
    assert names >= {
        "compiled.py",
        "descriptors/simd.py",
        "learning/compiled/kernel.py",
        "learning/batched/epoch_schedule.py",
    }


def test_what_was_compiled_is_taken_by_another_tree(package: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other"
    made = package / "kernels" / "__pycache__" / f"loops.f-1.{PY}.nbi"
    made.parent.mkdir()
    made.write_bytes(b"compiled")
    (made.parent / "loops.cpython-311.pyc").touch()
    assert not compiling.take("key", other, cache)
    compiling.keep("key", package, cache)
    compiling.keep("key", package, cache)  # as another process that was at it too
    assert compiling.take("key", other, cache)
    assert [path.name for path in other.rglob("*.*")] == [made.name]
    assert (other / "kernels" / "__pycache__" / made.name).read_bytes() == b"compiled"
    for number in range(compiling.MAX_DIGESTS):  # the oldest goes
        compiling.keep(f"later-{number}", package, cache)
    assert sorted(path.name for path in cache.iterdir()) == [f"later-{n}" for n in range(compiling.MAX_DIGESTS)]


def test_what_is_of_other_code_is_removed(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = package / "kernels" / "__pycache__" / f"loops.f-1.{PY}.nbc"
    stale.parent.mkdir()
    stale.write_bytes(b"stale")
    calls: list[str] = []

    def compile_all() -> None:
        calls.append("compiled")
        stale.write_bytes(b"new")

    monkeypatch.setattr(compiling, "compile_all", compile_all)
    where = {"package": package, "cache": tmp_path / "cache"}
    compiling.bring(**where)
    assert (calls, stale.read_bytes()) == (["compiled"], b"new")
    compiling.bring(**where)
    assert calls == ["compiled"]
    stale.unlink()
    (package / "__pycache__" / f"compiled.{sys.implementation.cache_tag}.digest").unlink()
    compiling.bring(**where)
    assert (calls, stale.read_bytes()) == (["compiled"], b"new")


def test_code_that_changes_while_it_is_compiled_is_compiled_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, calls = package / "kernels" / "__pycache__" / f"loops.f-1.{PY}.nbc", list[int]()
    made.parent.mkdir()

    def compile_all() -> None:
        calls.append(1)
        made.write_bytes(b"of the first" if len(calls) == 1 else b"of the second")
        if len(calls) == 1:
            (package / "kernels" / "lanes.py").write_text("WIDTH = 4\n")

    monkeypatch.setattr(compiling, "compile_all", compile_all)
    cache = tmp_path / "cache"
    compiling.bring(package, cache)
    assert (len(calls), made.read_bytes()) == (2, b"of the second")
    assert [path.name for path in cache.iterdir()] == [compiling.digest(package)]


def test_an_interrupted_compilation_is_begun_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back at the code that was compiled before, nothing of the interrupted one is taken for it."""
    monkeypatch.setattr(compiling, "compile_all", lambda: None)
    compiling.bring(package, tmp_path / "cache")

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compiling, "compile_all", interrupted)
    (package / "kernels" / "lanes.py").write_text("WIDTH = 4\n")
    with pytest.raises(KeyboardInterrupt):
        compiling.bring(package, tmp_path / "cache")
    (package / "kernels" / "lanes.py").write_text("WIDTH = 8\n")
    calls: list[int] = []
    monkeypatch.setattr(compiling, "compile_all", lambda: calls.append(1))
    compiling.bring(package, tmp_path / "cache")
    assert calls == [1]


def test_where_nothing_can_be_kept_it_is_said(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = package / "kernels" / f"loops.f-1.{PY}.nbc"
    (tmp_path / "file").touch()
    compiling.keep("key", package, tmp_path / "file" / "cache")  # there is nothing to keep
    assert capsys.readouterr().err == ""
    made.touch()
    compiling.keep("key", package, tmp_path / "file" / "cache")
    assert "are not cached for other clones" in capsys.readouterr().err


def test_of_two_at_once_one_compiles_and_the_other_says_that_it_waits(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two workers do that begin at the same moment."""
    begun, go_on, calls, said = threading.Event(), threading.Event(), list[int](), list[str]()

    def compile_all() -> None:
        calls.append(1)
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(compiling, "compile_all", compile_all)
    cache = tmp_path / "cache"
    first = threading.Thread(target=compiling.bring, args=(package, cache, lambda line: None))
    first.start()
    assert begun.wait(60)

    def say(line: str) -> None:
        said.append(line)
        go_on.set()

    compiling.bring(package, cache, say)
    first.join()
    assert (calls, said) == ([1], [compiling.WAITING])


def test_a_failure_keeps_nobody_from_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(say: object) -> None:
        raise subprocess.CalledProcessError(-9, ["python"])

    monkeypatch.setattr(compiling, "bring", fail)
    compiling.compile_ahead.__wrapped__()
    assert capsys.readouterr().err.startswith("bdqm-tune: loops are compiled when they are called, as ")


def test_a_package_that_cannot_be_written_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").touch()
    compiling.bring(tmp_path, tmp_path / "cache")


def test_the_folders_of_the_package_keep_their_permissions(package: Path, tmp_path: Path) -> None:
    """Else an installation that others use could be read by nobody else from then on."""
    made = package / "kernels" / "__pycache__" / f"loops.f-1.{PY}.nbi"
    made.parent.mkdir()
    made.write_bytes(b"compiled")
    compiling.keep("key", package, tmp_path / "cache")
    other = tmp_path / "other"
    other.mkdir()
    other.chmod(0o755)
    assert compiling.take("key", other, tmp_path / "cache")
    assert other.stat().st_mode & 0o777 == 0o755
