"""Optimizers and schedules: what they do to weights and learning rates, by the formulas."""

import pytest
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.optimisation import make_optimizer, make_schedule


def weight(value: float = 2.0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))


def rates(epochs: int, objectives: list[float] | None = None, **options: object) -> list[float]:
    """The learning rate of each epoch."""
    hyperparameters = Hyperparameters(**options)  # type: ignore[arg-type]
    optimizer = make_optimizer([weight()], hyperparameters)
    scheduler, seen = make_schedule(optimizer, hyperparameters, epochs), []
    for epoch in range(epochs):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step(lambda: torch.zeros(()))  # type: ignore[arg-type, return-value]
        if objectives is None:
            scheduler.step()
        else:
            scheduler.step(objectives[epoch])  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lbfgs"])
def test_every_optimizer_finds_the_minimum_of_a_parabola(optimizer: str) -> None:
    parameter = weight()
    made = make_optimizer([parameter], Hyperparameters(optimizer=optimizer, lr=0.1, weight_decay=0.0))  # type: ignore[arg-type]

    def closure() -> torch.Tensor:
        made.zero_grad()
        loss = ((parameter - 0.5) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(100):
        made.step(closure)  # type: ignore[arg-type]
    assert float(parameter.detach()) == pytest.approx(0.5, abs=0.02)


def test_lbfgs_needs_one_step_where_the_loss_is_a_parabola_in_many_dimensions() -> None:
    parameter = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    curvature = torch.arange(1.0, 7.0, dtype=torch.float64)
    made = make_optimizer([parameter], Hyperparameters(optimizer="lbfgs", lr=1.0))

    def closure() -> torch.Tensor:
        made.zero_grad()
        loss = (curvature * parameter**2).sum()
        loss.backward()
        return loss

    made.step(closure)  # type: ignore[arg-type]
    assert float(parameter.detach().abs().max()) < 1e-3


def test_adamw_takes_its_share_of_the_weights_away() -> None:
    parameter = weight(3.0)
    made = make_optimizer([parameter], Hyperparameters(optimizer="adamw", lr=0.1, weight_decay=0.2))
    parameter.grad = torch.zeros_like(parameter)
    made.step()
    assert float(parameter.detach()) == pytest.approx(3.0 * (1 - 0.1 * 0.2))


def test_one_cycle_rises_to_the_rate_given_and_falls_to_almost_nothing() -> None:
    seen = rates(50, scheduler="one_cycle", lr=0.01)
    top = seen.index(max(seen))
    assert max(seen) == pytest.approx(0.01, rel=1e-2)
    assert 10 < top < 20
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert seen[0] == pytest.approx(0.01 / 25)
    assert seen[-1] < 1e-4


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lbfgs"])
@pytest.mark.parametrize("scheduler", ["step", "cosine", "one_cycle", "none"])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_schedules_last_for_the_epochs_there_are(optimizer: str, scheduler: str, epochs: int) -> None:
    assert all(rate > 0 for rate in rates(epochs, optimizer=optimizer, scheduler=scheduler))


def test_a_plateau_of_step_size_epochs_brings_the_factor() -> None:
    objectives = [5.0, 4.0, 4.0, 4.1, 4.0, 3.0, 3.5, 3.4, 3.3, 3.2, 3.1]
    seen = rates(11, objectives, scheduler="plateau", lr=0.1, gamma=0.5, step_size=3)
    assert seen == pytest.approx([0.1] * 5 + [0.05] * 4 + [0.025] * 2)
