"""Requests to the pruner about a trial, for which training does not wait while the database is away."""

from concurrent.futures import Future, ThreadPoolExecutor, wait

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from bdqm_tune.progress import check
from bdqm_tune.storage.cache import is_file
from bdqm_tune.storage.retrying_storage import CLAIM_LOST, ClaimLost

WITHIN = 5.0  # seconds that training waits for a server's answer


class Comparisons:
    """Reports a trial's values and queries the pruner, one request after the other, in a thread of its own."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._thread = ThreadPoolExecutor(1, "pruner")
        # A file is never away, but its disk may be slow, and the result must not depend on that.
        self._waits = is_file(trial.storage)
        self._pending: dict[int, tuple[float | None, Future[bool]]] = {}  # pending requests, by epoch

    def submit(self, epoch: int, value: float | None) -> None:
        """Report the value of an epoch, unless None, and query the pruner; returns after `WITHIN` seconds at most.

        With a database in a file, it waits for the answer. While a request is pending, it does not wait for the next.
        """
        seconds = 0.0 if self._pending and not self._waits else WITHIN
        answer = self._thread.submit(is_pruned, self._trial, epoch, value)
        self._pending[epoch] = value, answer
        while not wait([answer], seconds).done and self._waits:
            check()

    def pruned_at(self) -> int | None:
        """The epoch at which the pruner stops the trial; None so far.

        Raises:
            StorageInternalError: the database stayed away, or refused a request.
            ClaimLost: another worker has claimed the trial and finished it.
        """
        for epoch, (_, answer) in list(self._pending.items()):
            if not answer.done():
                break
            del self._pending[epoch]
            if answer.result():
                return epoch
        return None

    def unanswered(self) -> dict[int, float]:
        """The values, by epoch, that the database may not have."""
        return {epoch: value for epoch, (value, _) in self._pending.items() if value is not None}

    def close(self) -> None:
        """Cancel pending requests."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def is_pruned(trial: optuna.Trial, epoch: int, value: float | None) -> bool:
    """Report the value of an epoch, unless None, and query the pruner. Raises as `Comparisons.pruned_at` does."""
    try:
        if value is not None:
            trial.report(value, epoch)
        return trial.should_prune()
    except UpdateFinishedTrialError as error:
        raise ClaimLost(CLAIM_LOST) from error
