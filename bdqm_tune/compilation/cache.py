"""Cache of compiled loops, by a digest of the code: the first process compiles them for all machines of a kind.

Numba itself compiles a function at its first call, a minute in all, in every clone and in each of several workers that
begin at the same moment; and it does not notice when a function that is compiled into another one changes in another
file.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bdqm_tune.errors import one_line
from bdqm_tune.files import lock_file
from bdqm_tune.progress import note
from bdqm_tune.user import user_home

PACKAGE = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or user_home() / ".cache") / "bdqm-tune" / "compiled"
COMPILING = "compiling loops: a minute, once for this code on this kind of machine"
WAITING = "another process compiles loops; waiting for it, a minute at most"
MAX_DIGESTS = 5  # in the cache, the latest used; 7 MB each
SUFFIXES = (".nbi", ".nbc")
UNFINISHED = "new-"  # begins the name of a folder that is being filled


def sources(package: Path = PACKAGE) -> list[Path]:
    """All files of the folders in which something is compiled: one may be compiled into another."""
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    folders = {path.parent for path, text in texts.items() if "\nfrom bdqm_tune.compiled import" in f"\n{text}"}
    return sorted(path for path in texts if path.parent in folders or path == package / "compiled.py")


def digest(package: Path = PACKAGE) -> str:
    """Digest of the sources, and of what compiles them for which processor."""
    import llvmlite
    import numba
    import numpy
    from llvmlite import binding

    versions = [sys.version, numba.__version__, llvmlite.__version__, numpy.__version__, binding.get_host_cpu_name()]
    whole = hashlib.sha256(repr(versions).encode())
    for path in sources(package):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(package)} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:32]


def compiled_files(package: Path = PACKAGE) -> list[Path]:
    """Numba's files in a tree, of this version of Python."""
    version = f".py{sys.version_info.major}{sys.version_info.minor}."
    return [path for path in package.rglob("*.nb?") if path.suffix in SUFFIXES and version in path.name]


def take(key: str, package: Path = PACKAGE, cache: Path = CACHE) -> bool:
    """Copy the compiled files of this digest into the tree; False if there are none."""
    folder = cache / key
    if not folder.is_dir():
        return False
    folder.touch()  # used now
    _copy(compiled_files(folder), folder, package)
    return True


def _copy(files: Sequence[Path], source: Path, target: Path) -> None:
    """Copy files to another tree, whose folders keep their permissions: a cache is the user's own."""
    for path in files:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


def keep(key: str, package: Path = PACKAGE, cache: Path = CACHE) -> None:
    """Copy the compiled files of the tree into the cache, whole or not at all, and garbage-collect the oldest.

    Nothing is done if there are none (numba is configured to write them elsewhere), or if the cache cannot be written.
    """
    files = compiled_files(package)
    if not files:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=cache))
        _copy(files, package, made)
        if (cache / key).exists():  # another process was faster
            shutil.rmtree(made)
        else:
            made.rename(cache / key)
        made_before = [folder for folder in cache.iterdir() if not folder.name.startswith(UNFINISHED)]
        for old in sorted(made_before, key=lambda folder: folder.stat().st_mtime)[:-MAX_DIGESTS]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        print(f"Compiled files are not cached for other clones: {error}", file=sys.stderr)


def compile_all() -> None:
    """Compile, in a process of its own, what is not compiled yet. Raises CalledProcessError if that fails."""
    subprocess.run([sys.executable, "-m", "bdqm_tune.compilation.exercise"], check=True)


@functools.cache  # once a process is enough
def compile_ahead() -> None:
    """`bring`, for a process that trains afterwards; if it fails, functions are compiled when they are called."""
    try:
        bring(say=lambda line: note(f"bdqm-tune: {line}"))
    except (OSError, subprocess.CalledProcessError) as error:
        note(f"bdqm-tune: loops are compiled when they are called, as they cannot be before: {one_line(error)}")


def bring(
    package: Path = PACKAGE, cache: Path = CACHE, say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> None:
    """Make sure that the tree has compiled files of the current code, and no others.

    If the package cannot be written to, nothing is done: numba compiles what is called, and caches it elsewhere.

    Args:
        say: called with a line of text before a step that takes long.

    Raises:
        CalledProcessError: the compilation failed.
    """
    folder = package / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "compiled.lock").open("w")
    except OSError:
        return
    with lock:  # of two at once, one compiles
        try:
            lock_file(lock.fileno(), wait=False)
        except BlockingIOError:
            say(WAITING)
            lock_file(lock.fileno())
        made = folder / f"compiled.{sys.implementation.cache_tag}.digest"
        while not (made.exists() and made.read_text() == digest(package)):
            key = digest(package)
            made.unlink(missing_ok=True)
            for path in compiled_files(package):  # of other code
                path.unlink()
            if not take(key, package, cache):
                say(COMPILING)
                compile_all()
                if digest(package) != key:  # changed meanwhile
                    continue
                keep(key, package, cache)
            unfinished = made.with_suffix(".unfinished")
            unfinished.write_text(key)
            unfinished.replace(made)
