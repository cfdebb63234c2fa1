"""The pruner's questions about a trial, for which training does not wait where the database is away."""

from concurrent.futures import Future, ThreadPoolExecutor, wait

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from bdqm_tune.progress import check
from bdqm_tune.storage.cache import is_file
from bdqm_tune.storage.retrying_storage import CLAIM_LOST, ClaimLost

WITHIN = 5.0  # seconds that training waits for a server's answer


class Comparisons:
    """Reports a trial's values and asks whether to go on, one question after the other, in a thread of its own."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._thread = ThreadPoolExecutor(1, "pruner")
        # A file is never away, but its disk may be slow, and what comes out must not depend on that.
        self._waits = is_file(trial.storage)
        self._open: dict[int, tuple[float | None, Future[bool]]] = {}  # questions without an answer, by epoch

    def ask(self, epoch: int, value: float | None) -> None:
        """Report the value of an epoch, None if it was, and ask the pruner; where a server takes too long, come back.

        While one question waits for the server, no other one is waited for.
        """
        seconds = 0.0 if self._open and not self._waits else WITHIN
        question = self._thread.submit(is_pruned, self._trial, epoch, value)
        self._open[epoch] = value, question
        while not wait([question], seconds).done and self._waits:
            check()

    def pruned_at(self) -> int | None:
        """The epoch at which the trial was to end, as far as the pruner has answered.

        Raises:
            StorageInternalError: the database stayed away, or refused what was asked.
            ClaimLost: another worker was given the trial, and has come to its end.
        """
        for epoch, (_, answer) in list(self._open.items()):
            if not answer.done():
                break
            del self._open[epoch]
            if answer.result():
                return epoch
        return None

    def unanswered(self) -> dict[int, float]:
        """The values, by epoch, that the database may not have."""
        return {epoch: value for epoch, (value, _) in self._open.items() if value is not None}

    def close(self) -> None:
        """Ask no more; the answers that are still to come are of no use."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def is_pruned(trial: optuna.Trial, epoch: int, value: float | None) -> bool:
    """Report the value of an epoch, unless it was, and ask the pruner. Raises as `Comparisons.pruned_at` does."""
    try:
        if value is not None:
            trial.report(value, epoch)
        return trial.should_prune()
    except UpdateFinishedTrialError as error:
        raise ClaimLost(CLAIM_LOST) from error
