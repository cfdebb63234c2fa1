"""What is submitted when, with a scheduler that keeps its queue in memory: nothing twice, nothing after a refusal."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.connection import Connection, connection_text
from bdqm_tune.services.jobspec import JobSpec, JobState, NoAnswer, Scheduler
from bdqm_tune.services.submission import bring_servers_up, record_successor, servers_answer, submit
from bdqm_tune.services.submissions import Submission, read_records, records_folder, this_process, write_record
from tests.services.test_schedulers import PHOENIX


class Queue(Scheduler):
    """Jobs 1, 2, …; what a test puts into `waiting` is their state."""

    name, suffix, queue = "slurm", ".sbatch", "look here"

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.waiting: list[str] = []
        self.refusal: Exception | None = None
        self.records: Path | None = None  # of the submissions, to be looked at while one is made

    def check(self) -> None: ...

    def command(self, spec: JobSpec) -> list[str]:
        return ["submit", spec.job]

    def folder(self, spec: JobSpec) -> Path:
        return spec.project

    def submit(self, spec: JobSpec) -> str:
        if self.refusal:
            raise self.refusal
        if self.records:
            assert [record.job_id for record in read_records(self.records)] == [""], "the record comes first"
        self.jobs.append(spec.job)
        self.waiting.append(str(len(self.jobs)))
        return str(len(self.jobs))

    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        return [JobState(job, "pending", reason="Priority") for job in job_ids if job in self.waiting]

    def cancel(self, job_id: str) -> None:
        self.waiting.remove(job_id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return records_folder(tmp_path)


@pytest.fixture
def spec(folder: Path) -> JobSpec:
    return JobSpec("servers", Path("/p"), PHOENIX, folder / "logs")


@pytest.fixture
def port() -> Iterator[int]:
    """One that something listens on."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


def connection(file: Path, port: int, host: str = "127.0.0.2") -> Path:
    """Its file; all of 127… is this machine, so that 127.0.0.2 does for a node."""
    storage = f"mysql+pymysql://u:p@{host}:{port}/optuna"
    file.write_text(connection_text(Connection(host, "2026-01-01", storage, f"https://{host}:{port}")))
    return file


def test_servers_that_answer_are_left_alone(spec: JobSpec, folder: Path, tmp_path: Path, port: int) -> None:
    queue = Queue()
    bring_servers_up(queue, spec, folder, connection(tmp_path / "connection.json", port), 1, lambda text: None)
    assert queue.jobs == []


def test_servers_that_no_node_reaches_are_refused(spec: JobSpec, folder: Path, tmp_path: Path, port: int) -> None:
    file = connection(tmp_path / "connection.json", port, "127.0.0.1")
    with pytest.raises(BadInput, match="listen at 127.0.0.1, where no other node reaches them"):
        bring_servers_up(Queue(), spec, folder, file, 1, lambda text: None)


def test_a_stale_connection_file_is_none(tmp_path: Path, port: int) -> None:
    file = connection(tmp_path / "connection.json", port)
    assert servers_answer(file)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
    assert not servers_answer(connection(file, unused))
    assert not servers_answer(tmp_path / "none.json")


def test_servers_are_submitted_once_and_waited_for(spec: JobSpec, folder: Path, tmp_path: Path) -> None:
    queue, said = Queue(), list[str]()
    for _ in range(2):  # the second time their job is in the queue
        with pytest.raises(BdqmError, match=r"job 1 is pending Priority after 0 min.*nothing else was submitted"):
            bring_servers_up(queue, spec, folder, tmp_path / "connection.json", 0, said.append, pause=0.01)
    assert queue.jobs == ["servers"]
    assert [line for line in said if "job 1" in line] == [
        "servers: job 1 submitted; waiting for it",
        "servers: job 1 is there already; waiting for it",
    ]


def test_servers_that_come_up_are_enough(spec: JobSpec, folder: Path, tmp_path: Path, port: int) -> None:
    def say(text: str) -> None:
        if text.startswith("servers: pending"):
            connection(tmp_path / "connection.json", port)

    bring_servers_up(Queue(), spec, folder, tmp_path / "connection.json", 1, say, pause=0.01)


def test_servers_whose_job_ends_are_an_error_and_come_anew(spec: JobSpec, folder: Path, tmp_path: Path) -> None:
    queue = Queue()

    def say(text: str) -> None:
        queue.waiting.clear()

    for _ in range(2):
        with pytest.raises(BdqmError, match=rf"has ended; its output is in {folder}/logs"):
            bring_servers_up(queue, spec, folder, tmp_path / "connection.json", 1, say, pause=0.01)
    assert queue.jobs == ["servers", "servers"]


def test_a_refused_submission_leaves_no_record(spec: JobSpec, folder: Path) -> None:
    queue = Queue()
    queue.refusal = BdqmError("sbatch failed: invalid account")
    with pytest.raises(BdqmError, match="invalid account"):
        submit(queue, spec, folder)
    assert read_records(folder) == []


def test_a_record_is_written_before_the_submission_and_completed_after_it(spec: JobSpec, folder: Path) -> None:
    queue = Queue()
    queue.records = folder
    made = submit(queue, spec, folder)
    assert [record.job_id for record in read_records(folder)] == [made.job_id] == ["1"]


@pytest.mark.parametrize("cut", [NoAnswer("no id in 'hello'"), KeyboardInterrupt()])
def test_what_may_be_in_the_queue_is_not_submitted_twice(spec: JobSpec, folder: Path, cut: BaseException) -> None:
    queue = Queue()
    queue.refusal = cut  # type: ignore[assignment]
    with pytest.raises(type(cut)) as error:
        submit(queue, spec, folder)
    (record,) = read_records(folder)
    if isinstance(cut, NoAnswer):
        assert "no id in 'hello'. A submission of " in str(error.value)
        assert str(folder / record.file) in str(error.value)
    queue.refusal = None
    with pytest.raises(BadInput, match=r"may be in the queue: if `look here` shows its job, write its id as job_id"):
        submit(queue, spec, folder)
    assert queue.jobs == []
    submit(queue, replace(spec, job="tune"), folder, "another")
    (folder / record.file).unlink()
    assert submit(queue, spec, folder).job_id == "2"


def test_what_another_process_submits_at_this_moment_is_waited_for(spec: JobSpec, folder: Path) -> None:
    record = Submission("", "slurm", "servers", "2026-01-01T00:00:00", process=this_process())
    write_record(folder, record)
    with pytest.raises(BadInput, match=rf"process {os.getpid()}@.* is submitting servers at this moment: wait until"):
        submit(Queue(), spec, folder)
    write_record(folder, replace(record, process=f"{this_process()}1"))  # another one had this number
    with pytest.raises(BadInput, match="may be in the queue"):
        submit(Queue(), spec, folder)


def test_a_successor_is_recorded_as_its_predecessor_was(spec: JobSpec, folder: Path) -> None:
    """PBS requeues nothing: a job submits its successor itself, and `jobs` and `cancel` must know that one."""
    array = Submission("4[].server", "pbs", "tune", "2026-01-01T00:00:00", "a b", 2, "qsub", "/logs")
    write_record(folder, array)
    record_successor(folder, "4[2].server", "Hello\n5.server\n")
    record_successor(folder, "5.server", "6.server\n")
    record_successor(folder, "99.server", "100.server\n")  # by hand
    first, second, third = read_records(folder)
    assert first == array
    assert second == replace(array, job_id="5.server", workers=1, made=second.made)
    assert third == replace(second, job_id="6.server", made=third.made)
    with pytest.raises(NoAnswer):
        record_successor(folder, "6.server", "Hello\n")


def test_records_are_read_in_the_order_in_which_they_were_made(spec: JobSpec, folder: Path) -> None:
    queue = Queue()
    made = [submit(queue, spec, folder, study) for study in ("b", "a", "c")]
    assert read_records(folder) == made
    assert [record.study for record in made] == ["b", "a", "c"]
    assert json.loads(next(folder.glob("*.json")).read_text())["command"] == "submit servers"


def test_a_record_that_is_none_is_named(folder: Path) -> None:
    (folder / "x.json").write_text("{}")
    with pytest.raises(BadInput, match=r"x.json is no record of a submission"):
        read_records(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(BadInput, match="cannot keep records there .* set BDQM_HOME"):
        records_folder(tmp_path)
