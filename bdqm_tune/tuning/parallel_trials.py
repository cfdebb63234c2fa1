"""Trials that train side by side in one process, on one copy of the data."""

import queue
import threading
from collections.abc import Generator

import optuna

from bdqm_tune.study.trial_result import TrialResult
from bdqm_tune.tuning.trial import TrialRunner


def trial_results(study: optuna.Study, runner: TrialRunner, at_once: int) -> Generator[TrialResult, None, None]:
    """Run the study's waiting trials and yield the result of each, until none waits.

    Where a trial ends, the next begins at once, whatever the others do. What a trial gives does not depend on them.
    Left early, by an error, an interruption or the caller, running trials are requeued.

    Args:
        at_once: trials that train at the same time, each in a thread of its own, so that a signal, which reaches the
            main thread, finds all of them between two epochs.
    """
    ended: queue.SimpleQueue[TrialResult | BaseException | None] = queue.SimpleQueue()
    threads = [threading.Thread(target=_work, args=(study, runner, ended), name=f"trials-{i}") for i in range(at_once)]
    for thread in threads:
        thread.start()
    working = at_once
    try:
        while working:
            # The main thread waits here, where a signal reaches it.
            result = ended.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                working -= 1
            else:
                yield result
    finally:
        runner.stop()
        for thread in threads:
            thread.join()


def _work(
    study: optuna.Study, runner: TrialRunner, ended: "queue.SimpleQueue[TrialResult | BaseException | None]"
) -> None:
    try:
        while (result := runner.run_next(study)) is not None:
            ended.put(result)
        ended.put(None)
    except BaseException as error:  # which the main thread raises, or does not wait for any more
        ended.put(error)
