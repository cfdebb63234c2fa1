"""Faults at random moments on real servers and real workers, and afterwards a check for what is lost, doubled or left.

python -m benchmarks.fault_loop [--minutes 20] [--seed 0] [--workers 3] [--folder FOLDER]

Workers train one study after the other. Meanwhile they are killed, stopped and signalled, servers killed, stopped and
restarted, the disk is filled, runs are deleted or ended by hand, clocks moved, backups made. After each study all must
be there, once, and the same in both stores; nothing may run, be half written or locked. Ends with status 1 and a list
where it is not. The same seed gives the same faults, at moments that depend on the machine. Needs MariaDB; root for a
small disk (tmpfs) and Debian's libfaketime for clocks, and reports which of them it lacks.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.config.config import load_config
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import holder, leftovers
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import opened
from bdqm_tune.study.study import EXPERIMENT, LOSSES, RUN_ID, load_study, study_id_of
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.workers.failure_detector import LOSSES_THAT_FAIL
from bdqm_tune.workers.registry import RUNNING, Workers
from benchmarks.servers import find_processes

TRIALS, EPOCHS = 8, 40  # of a study
PAUSE = 6.0  # seconds between two faults, in the mean
STUDY_SECONDS = 900.0  # in which its trials must end, and its workers when no fault comes any more
SMALL_DISK = "24m"
# A worker that trains slowly, and writes checkpoints and detects dead workers often.
WORKER = """
import threading, time
time.sleep = lambda seconds: threading.Event().wait(seconds) and None  # in libfaketime, time.sleep fails under load
from bdqm_tune.cli.main import main
from bdqm_tune.study import checkpoints
from bdqm_tune.workers import failure_detector, heartbeat
from bdqm_tune.learning.fit import Fit
epoch, checkpoints.EVERY = Fit._run, 1.0
heartbeat.HEARTBEAT_SECONDS, failure_detector.HEARTBEAT_SECONDS, failure_detector.DEAD_AFTER = 2.0, 2.0, 20.0
failure_detector.BLIND_AFTER = 8.0
Fit._run = lambda *arguments: (time.sleep(0.1), epoch(*arguments))[1]
main()
"""
ENDED = {TrialState.COMPLETE: "FINISHED", TrialState.FAIL: "FAILED"}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@dataclass
class Loop:
    """Servers, and the workers of one study at a time."""

    folder: Path
    n_workers: int
    random: random.Random
    has_small_disk: bool
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    stopped: list[psutil.Process] = field(default_factory=list)  # at some time
    deleted: set[str] = field(default_factory=set)  # runs

    @property
    def places(self) -> ServerPaths:
        return ServerPaths(self.folder / "services")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def stores(self) -> Stores:
        return Stores(self.home, connection_file=self.places.connection)

    @property
    def environ(self) -> dict[str, str]:
        variables = {"BDQM_SERVICES": str(self.places.folder), "BDQM_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        if FAKETIME is not None:
            clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.folder / "shift")}
            variables |= clock | {"FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return os.environ | variables | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(Path.cwd())}

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def services(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`bdqm-tune services …`, begun."""
        environ = {name: value for name, value in self.environ.items() if name != "LD_PRELOAD"}
        with (self.folder / "services.log").open("ab") as log:
            command = [sys.executable, "-m", "bdqm_tune", "services", *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environ)

    def bring_up(self) -> None:
        """Bring the servers up, or see that they are."""
        if self.services("up").wait(300) != 0:
            self.problems.append(f"`services up` failed: {_tail(self.folder / 'services.log')}")

    def start_worker(self, study: str) -> None:
        """Start one; however many there are and will be, the study has TRIALS trials."""
        command = [
            sys.executable,
            str(self.folder / "worker.py"),
            "tune",
            "--config",
            str(self.folder / f"{study}.yaml"),
        ]
        with (self.folder / f"{study}.log").open("ab") as log:
            environ = self.environ | {"BDQM_SUBMISSION": study}
            self.workers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=self.folder))

    def run_study(self, number: int) -> None:
        """Let workers run a study with faults, then without until it is done, and check what there is."""
        study = f"loop-{number}"
        content = {
            "study": {"name": study, "n_trials": TRIALS, "pruner": "none", "sampler": "random"},
            "training": {"epochs": EPOCHS, "early_stopping": None},
        }
        (self.folder / f"{study}.yaml").write_text(yaml.safe_dump(content))
        deadline, next_fault = time.monotonic() + STUDY_SECONDS, time.monotonic() + 20
        while not self.is_done(study):
            if time.monotonic() > deadline:
                self.problems.append(f"{study}: not done after {STUDY_SECONDS:.0f} s: {self._states(study)}")
                break
            self.workers = [worker for worker in self.workers if worker.poll() is None]
            while len(self.workers) < self.n_workers:
                self.start_worker(study)
            if time.monotonic() > next_fault:
                self._fault(study)
                next_fault = time.monotonic() + self.random.expovariate(1 / PAUSE)
            time.sleep(0.5)
        self._repair()
        self._wait_for_workers(study)
        self._check(study)

    def is_done(self, study: str) -> bool:
        """Whether all its trials have ended; False also where the database is away."""
        states = self._states(study)
        return sum(states.values()) == TRIALS and not states["WAITING"] + states["RUNNING"]

    def trials(self, study: str) -> list[FrozenTrial]:
        """Those there are; none where the database is away."""
        try:
            return load_study(self.stores, study).get_trials()
        except BdqmError:
            return []

    def _states(self, study: str) -> Counter[str]:
        return Counter(trial.state.name for trial in self.trials(study))

    # What happens to them.

    def _fault(self, study: str) -> None:
        faults: list[Callable[[str], str]] = [
            self._kill_worker, self._stop_worker, self._signal_worker, self._kill_server, self._stop_server,
            self._kill_supervisor, self._restart_servers, self._delete_run, self._end_run, self._back_up,
        ]  # fmt: skip
        faults += [self._move_clock] if FAKETIME is not None else []
        faults += [self._fill_disk] if self.has_small_disk else []
        fault = self.random.choice(faults)
        name = fault.__name__.removeprefix("_").replace("_", " ")
        try:
            done = fault(study)
        except (BdqmError, MlflowException, OSError, psutil.Error, IndexError) as error:
            self.say(f"{name}: could not be done now ({type(error).__name__})")
            return
        self.faults[name] += 1
        self.say(f"{name}: {done}")

    def _kill_worker(self, study: str) -> str:
        worker = self.random.choice(self.workers)
        worker.kill()
        return str(worker.pid)

    def _stop_worker(self, study: str) -> str:
        worker = self.random.choice(self.workers)
        return self._stop([psutil.Process(worker.pid)], self.random.uniform(1, 40))

    def _signal_worker(self, study: str) -> str:
        worker, number = self.random.choice(self.workers), self.random.choice(SIGNALS)
        worker.send_signal(number)
        return f"{number.name} to {worker.pid}"

    def _kill_server(self, study: str) -> str:
        name = self.random.choice(["database", "mlflow"])
        process = self.random.choice(find_processes(self.places)[name])
        process.kill()
        return f"{name} ({process.pid})"

    def _stop_server(self, study: str) -> str:
        name = self.random.choice(["database", "mlflow"])
        return f"{name}: {self._stop(find_processes(self.places)[name], self.random.uniform(1, 20))}"

    def _kill_supervisor(self, study: str) -> str:
        found = holder(self.places.lock)
        if found is None:
            raise IndexError
        os.kill(found.pid, signal.SIGKILL)
        time.sleep(self.random.uniform(0, 10))
        self.bring_up()
        return str(found.pid)

    def _restart_servers(self, study: str) -> str:
        pause = self.random.uniform(0, 15)
        self.services("down").wait(120)
        time.sleep(pause)
        self.bring_up()
        return f"up again after {pause:.0f} s"

    def _fill_disk(self, study: str) -> str:
        seconds, ballast = self.random.uniform(2, 15), self.home / "ballast"
        ballast.write_bytes(bytes(max(0, shutil.disk_usage(self.home).free - 4096)))
        try:
            time.sleep(seconds)
        finally:
            ballast.unlink()
        return f"for {seconds:.0f} s"

    def _delete_run(self, study: str) -> str:
        trial = self.random.choice(self.trials(study))
        run = trial.user_attrs.get(RUN_ID)
        if run is None:
            raise IndexError
        self.deleted.add(run)
        tracking_client(self.stores).delete_run(run)
        return f"of trial {trial.number}, {trial.state.name.lower()}"

    def _end_run(self, study: str) -> str:
        trial = self.random.choice(self.trials(study))
        status = self.random.choice(["FINISHED", "FAILED", "KILLED"])
        if trial.state.is_finished() or RUN_ID not in trial.user_attrs:
            raise IndexError
        tracking_client(self.stores).set_terminated(trial.user_attrs[RUN_ID], status)
        return f"of trial {trial.number} as {status}"

    def _move_clock(self, study: str) -> str:
        shift = self.random.choice(["+0", "+1h", "-1h", "+40s", "-40s"])
        (self.folder / "shift").write_text(shift)
        return shift

    def _back_up(self, study: str) -> str:
        file = self.folder / f"backup-{sum(self.faults.values())}.tar.gz"
        status = self.services("backup", "--out", str(file)).wait(300)
        if status == 0 and not file.is_file():
            self.problems.append(f"`services backup` succeeded and made no {file.name}")
        file.unlink(missing_ok=True)
        return f"status {status}"

    def _stop(self, processes: list[psutil.Process], seconds: float) -> str:
        """Stop them, and continue them after so many seconds, even if others wait for them."""
        for process in processes:
            process.send_signal(signal.SIGSTOP)
            self.stopped.append(process)
            threading.Timer(seconds, _continue, [process]).start()
        return f"{', '.join(str(process.pid) for process in processes)} for {seconds:.0f} s"

    # What must be true afterwards.

    def _repair(self) -> None:
        for process in self.stopped:
            _continue(process)
        self.stopped = []
        (self.folder / "shift").write_text("+0")
        self.bring_up()

    def _wait_for_workers(self, study: str) -> None:
        for worker in self.workers:
            try:
                worker.wait(STUDY_SECONDS)
            except subprocess.TimeoutExpired:
                self.problems.append(f"{study}: worker {worker.pid} does not end though nothing is left to do")
                worker.kill()
        self.workers = []
        # What a worker could not send before it was killed, the next command sends.
        status = [sys.executable, "-m", "bdqm_tune", "status", study]
        done = subprocess.run(status, env=self.environ, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            self.problems.append(f"{study}: `status` failed: {done.stderr.strip()}")

    def _check(self, study: str) -> None:
        found = [*self._of_trials(study), *self._of_runs(study), *self._left(study)]
        log = (self.folder / f"{study}.log").read_text(errors="replace")
        if "Traceback" in log:
            found.append(f"a traceback in {study}.log")
        self.problems += [f"{study}: {problem}" for problem in found]
        self.say(f"{study}: {dict(self._states(study))}; {'; '.join(found) or 'as it should be'}")

    def _of_trials(self, study: str) -> Iterator[str]:
        trials = self.trials(study)
        if len(trials) != TRIALS:
            yield f"{len(trials)} trials, not {TRIALS}"
        for trial in trials:
            if trial.state not in ENDED:
                yield f"trial {trial.number} is {trial.state.name}"
            if trial.state == TrialState.FAIL and trial.user_attrs.get(LOSSES, 0) < LOSSES_THAT_FAIL:
                yield f"trial {trial.number} has failed, of {trial.user_attrs.get(LOSSES, 0)} dead workers"

    def _of_runs(self, study: str) -> Iterator[str]:
        client, trials = tracking_client(self.stores), self.trials(study)
        experiment = load_study(self.stores, study).user_attrs[EXPERIMENT]
        runs: dict[str, Run] = {run.info.run_id: run for run in client.search_runs([experiment], "", ViewType.ALL)}
        there = {name for name, run in runs.items() if run.info.lifecycle_stage == "active"}
        for name in there:
            run = runs[name]
            if run.info.status == "RUNNING":
                yield f"run {run.info.run_name} ({name}) is RUNNING"
        of_trials = {name for name in there if str(runs[name].info.run_name).startswith("trial-")}
        expected = {trial.user_attrs[RUN_ID] for trial in trials if trial.user_attrs[RUN_ID] not in self.deleted}
        if of_trials - expected:
            yield f"runs of no trial: {sorted(of_trials - expected)}"
        if expected - of_trials:
            yield f"runs that are gone: {sorted(expected - of_trials)}"
        for trial in trials:
            if (name := trial.user_attrs[RUN_ID]) in of_trials:
                run = runs[name]
                if run.info.status != ENDED.get(trial.state):
                    yield f"trial {trial.number} is {trial.state.name}, its run {run.info.status}"
                if trial.state == TrialState.COMPLETE:
                    yield from _of_metrics(client, trial, name)

    def _left(self, study: str) -> Iterator[str]:
        with opened(self.stores) as storage:
            backend, study_id = storage.backend, study_id_of(storage, study)
            assert study_id is not None
            if held := backend.running(study_id):
                yield f"trials that someone has: {held}"
            if workers := Workers(backend.engine, backend.retry, study_id).all(RUNNING):
                yield f"workers that count as running: {[worker.description.get('pid') for worker in workers]}"
        for pattern in ("checkpoints/*/*", "**/*.partial", "**/*.tmp", "**/*.lock"):
            for path in self.home.glob(pattern):
                if path.is_file():
                    yield f"left: {path.relative_to(self.folder)}"
        for path in self.places.folder.rglob("*.partial"):
            yield f"left: {path.relative_to(self.folder)}"

    def check_the_end(self) -> None:
        """Stop the servers; nothing of them may be left."""
        if self.services("down").wait(120) != 0:
            self.problems.append(f"`services down` failed: {_tail(self.folder / 'services.log')}")
        for process in leftovers(self.places.folder):
            self.problems.append(f"process {process.pid} is left: {' '.join(process.cmdline())}")
        if holder(self.places.lock) is not None:
            self.problems.append("the servers' lock is held")


def _continue(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)


def _of_metrics(client: Any, trial: FrozenTrial, run: str) -> Iterator[str]:
    for metric in ("train_loss", "val_energy_mae", "lr"):
        steps = sorted(value.step for value in client.get_metric_history(run, metric))
        if steps != list(range(1, EPOCHS + 1)):
            yield f"trial {trial.number}: {metric} has steps {steps}"
    best = [value.value for value in client.get_metric_history(run, "best_val_energy_mae")]
    if best != [trial.value]:
        yield f"trial {trial.number}: best_val_energy_mae is {best}, of the trial {trial.value}"


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-3:])


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make the folder a disk of its own that is quickly full; gives whether it is one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "none", str(folder)]
    made = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3, help="at the same time")
    parser.add_argument("--folder", type=Path, help="for servers and logs, kept afterwards; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bdqm-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        with small_disk(folder / "home") as has_small_disk:
            loop = Loop(folder, options.workers, random.Random(options.seed), has_small_disk)
            (folder / "worker.py").write_text(WORKER)
            (folder / "shift").write_text("+0")
            for what, there in (("a small disk (only root may mount one)", has_small_disk), ("libfaketime", FAKETIME)):
                if not there:
                    loop.say(f"without {what}")
            loop.bring_up()
            prepare(load_config(), loop.home)
            end, number = time.monotonic() + 60 * options.minutes, 0
            while time.monotonic() < end and not loop.problems:
                loop.run_study(number)
                number += 1
            loop.check_the_end()
    print(json.dumps({"seed": options.seed, "studies": number, "faults": dict(loop.faults), "problems": loop.problems}))
    sys.exit(1 if loop.problems else 0)


if __name__ == "__main__":
    main()
