"""The check of the batched trainer before it is used: it agrees here, and every fault put into it is found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched import group, passes, step, trainer, verification
from bdqm_tune.learning.batched.group import Group
from bdqm_tune.learning.batched.slots import Slots, State
from bdqm_tune.learning.batched.step import Step
from bdqm_tune.learning.batched.verdict import Case, Comparison, Verdict
from bdqm_tune.learning.batched.verification import all_cases, some_cases, verify
from tests.marks import few

CPU, FLOAT32 = torch.device("cpu"), torch.float32
FULL = Case("gelu", batchnorm=True, dropout=True, optimizer="adamw", loss="huber")
PLAIN = Case("silu", loss="mse", energy_loss="total")


def check(*cases: Case) -> Verdict:
    return verify(cases, CPU, FLOAT32)


@pytest.mark.parametrize("part", few([0, 7, 13], [i for i in range(20) if i not in {0, 7, 13}]))
def test_it_agrees_on_the_cpu(part: int) -> None:
    verdict = check(all_cases()[part], FULL)
    assert verdict.agrees, verdict.table()
    assert {each.precision for each in verdict.comparisons} == {"float64", "float32"}
    assert all(0 < each.difference < 0.1 * each.bound for each in verdict.comparisons), verdict.table()
    assert (verdict.warning, verdict.tags()["batched_trainer"]) == ("", "verified")
    assert verdict.covers(Hyperparameters(activation="gelu", batchnorm=True, dropout=True, optimizer="adam"))
    other = "tanh" if all_cases()[part].activation == "relu" else "relu"
    assert not verdict.covers(Hyperparameters(activation=other))  # type: ignore[arg-type]


def test_cases_have_every_option_and_the_first_ones_every_activation() -> None:
    cases = all_cases()
    assert len({case[:3] for case in cases}) == len(cases) == 20
    assert len({case.activation for case in cases[:5]}) == 5
    for option, n in (("optimizer", 2), ("loss", 3), ("energy_loss", 2)):
        for activation in ("tanh", "silu"):
            assert len({getattr(case, option) for case in cases if case.activation == activation}) == n, option
    assert some_cases(["tanh"], optimizers=["adam"], losses=["mae"], energy_losses=["total"]) == [
        Case("tanh", energy_loss="total")
    ]
    assert [case.optimizer for case in some_cases(["tanh"], losses=["mae"])] == ["adam", "adamw"]


def wrong_slope(patch: pytest.MonkeyPatch) -> None:
    right = passes.SLOPES["gelu"]
    patch.setitem(passes.SLOPES, "gelu", lambda *values: right(*values) * 1.01)


def wrong_adam(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "BETA2", 0.9991)


def wrong_statistics(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(passes, "MOMENTUM", 0.101)


def no_dropout(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Group, "_draw", lambda *_: None)


def one_tile_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    """A batch in several tiles, of whose gradients only the last is taken."""
    adam = Step._adam

    def forgets(self: Step, now: torch.Tensor) -> None:
        adam(self, now)
        self._slots.gradient.zero_()

    patch.setattr(Step, "_adam", forgets)


def stale_weights(patch: pytest.MonkeyPatch) -> None:
    """What a checkpoint has where weights are read before they are copied: those before the last step."""
    take, call, before = Slots.take, Step.__call__, dict[int, torch.Tensor]()

    def steps(self: Step) -> None:
        before[id(self._slots)] = self._slots.weights.clone()
        call(self)

    def takes(self: Slots, slot: int, places: Any, n_steps: int) -> State:
        found = take(self, slot, places, n_steps)
        return found._replace(weights=before[id(self)][:, slot, places[0]] * 0.999)

    patch.setattr(Step, "__call__", steps)
    patch.setattr(Slots, "take", takes)


def not_a_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "EPSILON", float("nan"))


Fault = Callable[[pytest.MonkeyPatch], None]
FAULTS: list[tuple[Fault, Case, str]] = [
    (wrong_slope, FULL, "gradient"),
    (wrong_adam, FULL, "second moments"),
    (wrong_statistics, FULL, "statistics"),
    (no_dropout, FULL, ""),
    (one_tile_of_a_batch, PLAIN, ""),
    (stale_weights, PLAIN, ""),
    (not_a_number, PLAIN, ""),
]


@pytest.mark.parametrize(("fault", "case", "quantity"), FAULTS)
def test_a_fault_is_found(fault: Fault, case: Case, quantity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    verdict = check(case)
    assert not verdict.agrees
    assert [each.agrees for each in verdict.comparisons].count(False) >= 1
    assert verdict.comparisons[0].precision == "float64"
    assert not verdict.comparisons[0].agrees
    assert quantity in ("", verdict.comparisons[0].quantity) or quantity in verdict.warning
    assert "by which this study trains instead" in verdict.warning
    assert "\n" not in verdict.warning
    assert verdict.tags()["batched_trainer"].startswith("off: ")
    assert not verdict.covers(Hyperparameters(activation=case.activation))  # type: ignore[arg-type]


def test_only_the_cases_that_a_fault_concerns_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_slope(monkeypatch)
    verdict = check(PLAIN, FULL)
    assert [each.agrees for each in verdict.comparisons] == [True, False, True, False]
    assert [row[3] for row in verdict.table()[1:]] == ["agrees", "DIFFERS", "agrees", "DIFFERS"]


def test_what_is_raised_is_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted\nsecond line")

    monkeypatch.setattr(Step, "_adam", fails)
    verdict = check(PLAIN)
    assert not verdict.agrees
    assert "RuntimeError: CUDA error: operation not permitted" in verdict.warning
    assert "\n" not in verdict.warning
    assert verdict.table()[1][3].startswith("raised RuntimeError")


def test_a_trainer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "LONGEST", 0.05)
    monkeypatch.setattr(trainer, "POLL", 0.01)
    monkeypatch.setattr(trainer, "GRACE", 0.0)
    monkeypatch.setattr(Step, "__call__", lambda self: None)
    monkeypatch.setattr(group.Slot, "at", property(lambda self: 0, lambda self, value: None), raising=False)
    verdict = check(PLAIN)
    assert "TimeoutError: no end after 0 s" in verdict.comparisons[0].error


def test_cases_that_are_not_reached_in_time_are_not_batched() -> None:
    times = iter([0.0, 0.0, 20.0, 21.0])
    verdict = verify([PLAIN, FULL, FULL], CPU, FLOAT32, clock=lambda: next(times))
    assert verdict.agrees
    assert list(verdict.unchecked) == [FULL, FULL]
    assert verdict.warning.startswith("no time to check the batched trainer for 2 kinds of trials on cpu")
    assert verdict.covers(Hyperparameters(activation="silu"))
    assert not verdict.covers(Hyperparameters(activation="gelu", batchnorm=True, dropout=True))
    assert verdict.table()[-1][3] == "unchecked, out of time"


def test_a_difference_that_is_no_number_is_no_agreement() -> None:
    assert not Comparison(PLAIN, "float32", "losses", float("nan"), 1.0).agrees
    assert not Comparison(PLAIN, "float32").agrees
    assert Comparison(PLAIN, "float32", "losses", 0.5, 1.0).agrees
