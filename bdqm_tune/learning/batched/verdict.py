"""The verdict on the batched trainer: what was compared with torch's operations, how far apart it was, and where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bdqm_tune.config.hyperparameters import Hyperparameters


class Case(NamedTuple):
    """The options of a trial that the batched trainer computes by formulas of its own."""

    activation: str
    batchnorm: bool = False
    dropout: bool = False
    optimizer: str = "adam"
    loss: str = "mae"
    energy_loss: str = "per_atom"

    @property
    def name(self) -> str:
        on = [option for option in ("batchnorm", "dropout") if getattr(self, option)]
        return ", ".join([self.activation, *on, self.optimizer, self.loss, self.energy_loss])


@dataclass(frozen=True)
class Comparison:
    """A case trained by both in one precision; of what was compared, the quantity that is worst beside its bound."""

    case: Case
    precision: str  # of the numbers: float32, float64
    quantity: str = ""  # losses, gradient, weights, …
    difference: float = math.inf  # the greatest, relative to the largest value of the quantity
    bound: float = 0.0  # of differences by rounding
    error: str = ""  # what was raised instead

    @property
    def agrees(self) -> bool:
        return not self.error and self.difference <= self.bound

    @property
    def reason(self) -> str:
        """Why it does not agree."""
        if self.error:
            return f"{self.case.name} ({self.precision}): {self.error}"
        differ = f"{self.quantity} differ by {self.difference:.1e}, by rounding at most {self.bound:.1e}"
        return f"{self.case.name} ({self.precision}): {differ}"


@dataclass(frozen=True)
class Verdict:
    """Whether a study may train by the batched trainer on a device."""

    device: str  # its name
    versions: str  # of torch and CUDA
    comparisons: Sequence[Comparison]
    unchecked: Sequence[Case] = ()  # for which there was no time
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        return all(comparison.agrees for comparison in self.comparisons)

    def covers(self, hyperparameters: Hyperparameters) -> bool:
        """Whether trials with these hyperparameters may be batched: all agrees, and a case like them was compared."""
        known = {comparison.case[:3] for comparison in self.comparisons}
        options = hyperparameters.activation, hyperparameters.batchnorm, hyperparameters.dropout
        return self.agrees and options in known

    @property
    def warning(self) -> str:
        """What a user should know, in one line; empty: all agrees."""
        wrong = [comparison for comparison in self.comparisons if not comparison.agrees]
        if wrong:
            more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            return (
                f"the batched trainer does not agree with torch's operations on {self.device}, by which this study "
                f"trains instead: {wrong[0].reason}{more}; `bdqm-tune doctor --gpu` shows all"
            )
        if self.unchecked:
            return (
                f"no time to check the batched trainer for {len(self.unchecked)} kinds of trials on {self.device}, "
                f"which train by torch's operations instead: {self.unchecked[0].name}, …"
            )
        return ""

    def tags(self) -> dict[str, str]:
        """What MLflow's runs record of it."""
        if not self.agrees:
            state = f"off: {self.warning}"
        elif self.unchecked:
            state = f"verified for {len(self.comparisons)} comparisons, {len(self.unchecked)} cases unchecked"
        else:
            state = "verified"
        return {
            "batched_trainer": state[:500],
            "batched_trainer.device": self.device,
            "batched_trainer.versions": self.versions,
            "batched_trainer.seconds": f"{self.seconds:.1f}",
        }

    def table(self) -> list[tuple[str, str, str, str]]:
        """Rows of option, precision, greatest difference with its bound, and verdict; the header first."""
        rows = [("options", "precision", "greatest difference", "verdict")]
        for each in self.comparisons:
            difference = "-" if each.error else f"{each.quantity} {each.difference:.1e} (bound {each.bound:.1e})"
            verdict = "agrees" if each.agrees else f"raised {each.error}" if each.error else "DIFFERS"
            rows.append((each.case.name, each.precision, difference, verdict))
        return [*rows, *((case.name, "", "-", "unchecked, out of time") for case in self.unchecked)]
