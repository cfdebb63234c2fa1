"""Python in processes of their own that need not import: each is forked from one that has imported what they use.

`python -m bdqm_tune tune` imports torch, MLflow and Optuna, which takes six seconds of processor; a fork of a process
that has them takes none. It is a real process all the same: it has its own variables, folder, output and signals.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

# Nothing that is patched or configured by variables when it is imported.
IMPORTED = [
    "mlflow",
    "optuna",
    "torch.optim",
    "pandas",
    "bdqm_tune.cli.main",
    "bdqm_tune.api",
    "bdqm_tune.mlflow_server.commands",
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(IMPORTED)


class Forked:
    """A process like one of `subprocess.Popen`, whose outputs are text pipes."""

    def __init__(
        self, arguments: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: str | Path | None = None
    ) -> None:
        """
        Args:
            arguments: of Python: `-m MODULE …`, `-c CODE …` or `FILE …`.
        """
        outputs = [_context.Pipe(duplex=False) for _ in range(2)]
        variables, folder = dict(os.environ if env is None else env), str(cwd or Path.cwd())
        given = [str(argument) for argument in arguments]
        # A daemon: what a test leaves behind ends with the process of the tests.
        self._process = _context.Process(
            target=_run, args=(given, variables, folder, *(writing for _, writing in outputs)), daemon=True
        )
        self._process.start()
        self.stdout, self.stderr = (_text(reading) for reading, _ in outputs)
        for _, writing in outputs:
            writing.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status; minus the signal's number if one ended it."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it writes to its two outputs."""
        read: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda name=name, file=file: read.update({name: file.read()}), daemon=True)
            for name, file in (("out", self.stdout), ("err", self.stderr))
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(20)  # what it started in the background may hold them open
        return read["out"], read["err"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end, as `subprocess.run` does; a process that takes longer than `timeout` is killed."""
    process = Forked(arguments, env, cwd)
    try:
        out, err = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(list(arguments), process.wait(), out, err)


def _text(reading: Connection) -> TextIO:
    file = os.fdopen(os.dup(reading.fileno()), "r", encoding="utf-8", errors="replace")
    reading.close()
    return file


def _run(arguments: list[str], variables: dict[str, str], folder: str, out: Connection, err: Connection) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    # Streams of its own: those that were forked belong to what multiprocessing does with them.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    multiprocessing.current_process()._config["daemon"] = False  # it may start processes as any other
    status = 0
    try:
        _interpret(arguments)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _interpret(arguments: list[str]) -> None:
    """What `python ARGUMENTS` does."""
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")
