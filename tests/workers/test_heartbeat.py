"""Leases by a clock of the test's own: who lives keeps its trials, who stands still loses them, once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import open_storage
from bdqm_tune.storage.retrying_storage import CLAIM_LOST, ClaimLost
from bdqm_tune.study.study import (
    LOSSES,
    RESULT,
    RUN_ID,
    add_trials,
    certainly_holds_claim,
    holds_claim,
    keep_run_id,
    next_trial,
    others_run,
    requeued_on_error,
)
from bdqm_tune.tuning.pruning import Comparisons
from bdqm_tune.workers.failure_detector import (
    BLIND_AFTER,
    DEAD_AFTER,
    HEARTBEAT_SECONDS,
    LOSSES_THAT_FAIL,
    FailureDetector,
)
from bdqm_tune.workers.heartbeat import Heartbeat
from bdqm_tune.workers.registry import DEAD, RUNNING, Worker, Workers, describe_process
from tests.places import Place


@dataclass
class Clock:
    """Stands still unless it is set."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Node:
    """A worker as its process would be on a machine of its own."""

    study: optuna.Study
    heartbeat: Heartbeat
    lost: list[tuple[Worker, str]] = field(default_factory=list)
    requeued: list[FrozenTrial] = field(default_factory=list)

    @property
    def trials(self) -> list[FrozenTrial]:
        """As they are in the database; the cache is content with old copies of those that wait."""
        return self.heartbeat._storage.get_all_trials(self.study._study_id)

    def take(self) -> optuna.Trial:
        trial = next_trial(self.study)
        assert trial is not None
        return trial

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.trials]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(place: Place, clock: Clock) -> Callable[..., Node]:
    """`node()`: one more worker on the study, which has two trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def enter(**description: str) -> Node:
        storage = open_storage(place.stores)
        study = optuna.create_study(
            storage=storage, study_name="s", load_if_exists=True, sampler=optuna.samplers.RandomSampler()
        )
        if not study.get_trials():
            add_trials(study, 2)
        entered: Any = Node(study, None)  # type: ignore[arg-type]
        entered.heartbeat = Heartbeat(
            storage.backend,
            study._study_id,
            {"host": "elsewhere", "pid": "1", **description},
            lambda worker, why: entered.lost.append((worker, why)),
            entered.requeued.append,
            clock,
        )
        return entered

    return enter


def pass_time(clock: Clock, seconds: float, *alive: Node) -> None:
    """Let the time pass in beats, at which those that are alive look."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += HEARTBEAT_SECONDS
        for one in alive:
            one.heartbeat.send()


def workers_of(node: Node, *states: str) -> list[str]:
    backend = node.heartbeat._storage
    return [worker.name for worker in Workers(backend.engine, backend.retry, node.study._study_id).all(*states)]


def test_who_lives_keeps_its_trials_however_slow_it_is(node: Callable[..., Node], clock: Clock) -> None:
    slow, other = node(), node()
    slow.take()
    for _ in range(10):  # it counts just in time
        pass_time(clock, DEAD_AFTER - HEARTBEAT_SECONDS, other)
        slow.heartbeat.send()
    assert other.states() == ["RUNNING", "WAITING"]
    assert other.lost == other.requeued == []
    assert set(workers_of(other, RUNNING)) == {slow.heartbeat.worker, other.heartbeat.worker}


def test_who_stands_still_is_lost_within_two_minutes(node: Callable[..., Node], clock: Clock) -> None:
    dead, other = node(pid="7"), node()
    trial = dead.take()
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    pass_time(clock, DEAD_AFTER - HEARTBEAT_SECONDS, other)
    assert other.states() == ["RUNNING", "WAITING"]
    pass_time(clock, 120 - (DEAD_AFTER - HEARTBEAT_SECONDS), other)
    assert other.states() == ["WAITING", "WAITING"]
    ((worker, why),) = other.lost
    assert (worker.name, worker.description["pid"], why) == (dead.heartbeat.worker, "7", "no heartbeat for 80 s")
    (back,) = other.requeued
    assert (back.number, back.state, back.user_attrs[LOSSES]) == (0, TrialState.WAITING, 1)
    again = other.take()
    assert (again.number, again.params) == (0, trial.params)
    assert other.trials[0].intermediate_values == {1: 0.5}
    assert not other.lost[1:]


def test_a_process_that_is_gone_is_lost_at_once(node: Callable[..., Node], clock: Clock) -> None:
    process = describe_process()["process"]
    dead, other = node(process=f"{process}0"), node(process=process)
    dead.take()
    other.heartbeat.send()
    assert other.states() == ["WAITING", "WAITING"]
    assert [why for _, why in other.lost] == ["its process was gone"]
    assert workers_of(other, DEAD) == [dead.heartbeat.worker]


def test_the_trials_of_one_that_ended_without_them_go_back(node: Callable[..., Node]) -> None:
    ended, other = node(), node()
    ended.take()
    ended.heartbeat.close()
    other.heartbeat.send()
    assert other.states() == ["WAITING", "WAITING"]
    assert other.lost == []
    assert other.trials[0].user_attrs[LOSSES] == 1


def test_two_observers_take_a_trial_back_once(node: Callable[..., Node], clock: Clock) -> None:
    dead, *others = node(), node(), node()
    dead.take()
    pass_time(clock, 120, *others)
    assert [len(other.lost) for other in others] == [1, 0]
    assert [len(other.requeued) for other in others] == [1, 0]
    assert others[0].trials[0].user_attrs[LOSSES] == 1


def test_an_observer_that_is_late_leaves_the_trial_to_who_has_it(node: Callable[..., Node], clock: Clock) -> None:
    """Both have seen who runs the trial; the second acts when it has been taken back and taken again."""
    dead, first, late = node(), node(), node()
    dead.take()
    (held,) = late.heartbeat._storage.running(late.study._study_id)
    pass_time(clock, 120, first)
    trial = first.take()
    assert not late.heartbeat._storage.requeue(held, TrialState.WAITING, {LOSSES: 5})
    assert first.trials[0].user_attrs[LOSSES] == 1
    first.study.tell(trial, 1.0)
    assert late.states() == ["COMPLETE", "WAITING"]


def test_who_was_blind_has_seen_nothing(node: Callable[..., Node], clock: Clock) -> None:
    """A worker that was suspended, or cut off from the database, finds all others where they were."""
    other, blind = node(), node()
    other.take()
    pass_time(clock, 3 * HEARTBEAT_SECONDS, blind)
    clock.now += 100 * BLIND_AFTER
    blind.heartbeat.send()
    pass_time(clock, DEAD_AFTER - HEARTBEAT_SECONDS, blind)
    assert blind.states() == ["RUNNING", "WAITING"]
    other.heartbeat.send()
    pass_time(clock, DEAD_AFTER - HEARTBEAT_SECONDS, blind)
    assert blind.lost == []
    pass_time(clock, 3 * HEARTBEAT_SECONDS, blind)
    assert len(blind.lost) == 1


def test_the_third_loss_makes_the_trial_fail(node: Callable[..., Node], clock: Clock) -> None:
    other = node()
    for losses in range(1, LOSSES_THAT_FAIL + 1):
        dead = node()
        assert dead.take().number == 0
        pass_time(clock, 120, other)
        assert other.trials[0].user_attrs[LOSSES] == losses
    assert other.states() == ["FAIL", "WAITING"]
    assert other.trials[0].user_attrs[RESULT] == {"reason": "its worker died 3 times"}
    assert [trial.state for trial in other.requeued] == [TrialState.WAITING, TrialState.WAITING, TrialState.FAIL]
    assert not others_run(other.study)


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_worker_that_wakes_up_cannot_touch_its_trial(
    node: Callable[..., Node], clock: Clock, noticed: bool, taken: bool
) -> None:
    """Whether it has noticed that it was lost or not, and whether another one has the trial by now or it waits."""
    sleeper, other = node(), node()
    trial = sleeper.take()
    assert certainly_holds_claim(trial)
    pass_time(clock, 120, other)
    if taken:
        other.take()
    if noticed:
        sleeper.heartbeat.send()
        assert not holds_claim(trial)
    assert not certainly_holds_claim(trial)
    before = other.states()
    storage = trial.storage
    for state, values in ((TrialState.WAITING, None), (TrialState.COMPLETE, [1.0]), (TrialState.FAIL, None)):
        with pytest.raises(ClaimLost):
            storage.set_trial_state_values(trial._trial_id, state, values)
    for write in (
        lambda: trial.report(1.0, 1),
        lambda: trial.set_user_attr("late", 1),
        lambda: storage.set_trial_system_attr(trial._trial_id, "late", 1),
        lambda: trial.suggest_float("late", 0.0, 1.0),
    ):
        with pytest.raises(ClaimLost):
            write()
    assert not keep_run_id(trial, "late")
    with pytest.raises(KeyboardInterrupt), requeued_on_error(trial):
        raise KeyboardInterrupt
    assert other.states() == before
    (kept, *_) = other.trials
    assert (kept.values, kept.params, kept.intermediate_values) == (None, {}, {})
    assert not {"late", RUN_ID} & {*kept.user_attrs, *kept.system_attrs}


def test_a_worker_that_stood_still_and_was_not_missed_has_its_trial(node: Callable[..., Node], clock: Clock) -> None:
    sleeper = node()
    trial = sleeper.take()
    clock.now += 2 * DEAD_AFTER
    statements = list[str]()
    sqlalchemy.event.listen(
        sleeper.heartbeat._storage.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    assert certainly_holds_claim(trial)
    assert statements
    sleeper.heartbeat.send()
    statements.clear()
    assert certainly_holds_claim(trial)
    assert not statements, "the database is asked only where there is doubt"


def test_a_lost_worker_goes_on_as_patient_as_before(node: Callable[..., Node]) -> None:
    lost = node()
    patience = lost.heartbeat._storage.retry.seconds
    with pytest.raises(ClaimLost), requeued_on_error(lost.take()):
        raise ClaimLost(CLAIM_LOST)
    assert lost.heartbeat._storage.retry.seconds == patience


def test_a_lost_worker_that_asks_the_pruner_has_lost_its_trial(node: Callable[..., Node], clock: Clock) -> None:
    """Another one was given it, and has ended it: there is nothing more to be trained or reported."""
    sleeper, other = node(), node()
    comparisons = Comparisons(sleeper.take())
    pass_time(clock, 120, other)
    other.study.tell(other.take(), 1.0)
    comparisons.submit(1, 2.0)
    with pytest.raises(ClaimLost):
        comparisons.pruned_at()
    comparisons.close()
    assert other.trials[0].intermediate_values == {}


def test_a_lost_worker_enters_anew_and_works_on(node: Callable[..., Node], clock: Clock) -> None:
    sleeper, other = node(), node()
    before, trial = sleeper.heartbeat.worker, sleeper.take()
    pass_time(clock, 120, other)
    sleeper.heartbeat.send()
    assert sleeper.heartbeat.worker != before
    assert set(workers_of(other, RUNNING)) == {sleeper.heartbeat.worker, other.heartbeat.worker}
    assert not holds_claim(trial)
    again = sleeper.take()
    assert again.number == trial.number
    sleeper.study.tell(again, 1.0)
    pass_time(clock, 120, sleeper, other)
    assert other.states() == ["COMPLETE", "WAITING"]
    assert len(other.lost) == 1


def test_a_worker_is_named_in_its_trials_only_once_it_is_entered(
    node: Callable[..., Node], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else others, who do not find it among the workers, would take back what it has just taken."""
    sleeper, other = node(), node()
    pass_time(clock, 120, other)
    lost = sleeper.heartbeat.worker
    monkeypatch.setattr(Workers, "add", refuse)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        sleeper.heartbeat.send()
    assert sleeper.heartbeat._storage.worker == lost


def refuse(*_: Any) -> None:
    raise sqlalchemy.exc.OperationalError("", None, Exception("away"))


def test_a_watch_of_one_that_does_not_work_takes_back_as_well(node: Callable[..., Node], clock: Clock) -> None:
    dead = node()
    dead.take()
    found: list[str] = []
    watch = FailureDetector(
        dead.heartbeat._storage,
        dead.study._study_id,
        lambda worker, why: found.append(why),
        lambda trial: found.append(trial.state.name),
        clock,
    )
    for _ in range(12):
        watch.check()
        clock.now += HEARTBEAT_SECONDS
    assert found == ["no heartbeat for 80 s", "WAITING"]


def test_the_thread_counts_until_it_is_closed(workdir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdqm_tune.workers.heartbeat.HEARTBEAT_SECONDS", 0.05)
    storage = open_storage(Stores(workdir))
    optuna.create_study(storage=storage, study_name="s")
    workers = Workers(storage.backend.engine, storage.backend.retry, 1)
    heartbeat = Heartbeat(storage.backend, 1, {})
    with monkeypatch.context() as broken:  # it outlives what happens to the database
        broken.setattr(Workers, "heartbeat", refuse)
        heartbeat.start()
        heartbeat.join(0.3)
    heartbeat.join(0.5)
    assert heartbeat.is_alive()
    assert workers.all(RUNNING)[0].heartbeats >= 2
    heartbeat.close()
    heartbeat.join(10)
    assert not heartbeat.is_alive()
    assert workers.all(RUNNING) == []


def test_told_to_end_while_it_is_closed_it_is_ended_nevertheless(workdir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(Stores(workdir))
    optuna.create_study(storage=storage, study_name="s")
    workers = Workers(storage.backend.engine, storage.backend.retry, 1)
    heartbeat, end = Heartbeat(storage.backend, 1, {}), Workers.end

    def interrupted(self: Workers, *given: Any) -> bool:
        monkeypatch.setattr(Workers, "end", end)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workers, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        heartbeat.close()
    assert workers.all(RUNNING) == []
