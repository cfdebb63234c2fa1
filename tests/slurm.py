"""A Slurm of a test's own: munged, slurmctld and slurmd on this machine, one node of two CPUs with a GPU on paper."""

import getpass
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bdqm_tune.mlflow_server.processes import free_port

PATH = f"{os.environ['PATH']}:/usr/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "qsub")
HOST = os.uname().nodename.partition(".")[0]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={munge}/munge.sock,cred_expire=5
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=5,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
KillWait=25
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 Gres=gpu:V100:{cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def is_installed() -> bool:
    """Whether all programs are there."""
    return all(shutil.which(program, path=PATH) for program in PROGRAMS)


class Slurm:
    """A cluster of one node in a folder; more CPUs than there are, as nothing confines a job to them."""

    def __init__(self, folder: Path, cpus: int = 8) -> None:
        self.folder, self.cpus = folder, cpus
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which a user's commands find this Slurm."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}

    def start(self) -> None:
        """Start it, and wait until its node is idle."""
        munge = self.folder / "munge"
        for folder in (munge, self.folder / "state", self.folder / "spool"):
            folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        munge.chmod(0o755)
        key = munge / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        account = "munge" if os.getuid() == 0 else getpass.getuser()  # which will not run as root
        for path in (munge, key):
            shutil.chown(path, account)
        ports = [free_port("127.0.0.1"), free_port("127.0.0.1")]
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=HOST, user=getpass.getuser(), controller=ports[0], daemon=ports[1], munge=munge,
                folder=self.folder, cpus=self.cpus,
            )
        )  # fmt: skip
        for number in range(self.cpus):
            (self.folder / f"gpu{number}").touch()
        devices = f"{self.folder}/gpu[0-{self.cpus - 1}]"
        (self.folder / "gres.conf").write_text(f"Name=gpu Type=V100 File={devices}\n")
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge}/munge.{suffix}" for option, suffix in files.items()]
        self._start(["munged", "--foreground", "--force", *options], user=account)
        self._until(lambda: (munge / "munge.sock").exists(), "munged")
        self._start(["slurmctld", "-D", "-c"])
        self._start(["slurmd", "-D", "-N", HOST])
        self._until(
            lambda: self.run("sinfo", "--noheader", "--format=%T", status=None).stdout.strip() == "idle", "node"
        )

    def stop(self) -> None:
        """End all jobs and the three daemons."""
        self.run("scancel", "--user", getpass.getuser(), status=None)
        deadline = time.monotonic() + 40
        while self.run("squeue", "--noheader", status=None).stdout.strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def run(self, *command: str, status: int | None = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as its user would, and see that it ends with `status` (None: any)."""
        done = subprocess.run(command, env=self.environ | variables, capture_output=True, text=True, timeout=300)
        if status is not None:
            assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def wait(self, job_id: str, seconds: float = 300) -> None:
        """Wait until a job, or all of an array, has left the queue or failed to leave it in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.state(job_id):
                return
            time.sleep(0.2)
        pytest.fail(f"job {job_id} is still {self.state(job_id)}")

    def state(self, job_id: str) -> str:
        """State of a job, one a task, in capitals; empty once it has ended."""
        done = self.run("squeue", "--noheader", "--array", "--format=%T", f"--jobs={job_id}", status=None)
        return " ".join(done.stdout.split())

    def _start(self, command: list[str], user: str | None = None) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            self.started.append(
                subprocess.Popen(
                    [shutil.which(command[0], path=PATH) or command[0], *command[1:]],
                    env=self.environ,
                    stdout=output,
                    stderr=output,
                    user=user if os.getuid() == 0 else None,
                    start_new_session=True,
                )
            )

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))
                pytest.fail(f"{what} does not come up\n{logs}")
            time.sleep(0.1)
