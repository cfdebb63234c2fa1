"""The passes by hand: the gradient is that of the loss, for networks of several depths, whatever is left out."""

import pytest
import torch

from bdqm_tune.learning.batched.layout import Layout, views
from bdqm_tune.learning.batched.passes import PART, SLOPES, VALUES, Rows, backward, forward


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("activation", list(VALUES))
def test_the_gradient_is_that_of_the_loss_with_the_same_nodes_left_out(activation: str, batchnorm: bool) -> None:
    random = torch.Generator().manual_seed(0)
    layout = Layout(3, depths=[3, 2, 2], widths=[4, 6, 2], batchnorm=batchnorm)
    start = 0.5 * torch.randn(3, layout.n_parameters, dtype=torch.float64, generator=random)
    n_atoms = torch.tensor([[[200]], [[7]], [[1]]])
    inside = (torch.arange(PART)[:, None] < n_atoms).double()
    x = torch.randn(3, PART, 3, dtype=torch.float64, generator=random)
    rows = Rows(x, inside, n_atoms.double(), n_atoms > 1)
    factor = torch.rand(PART, layout.n_nodes, dtype=torch.float64, generator=random).round() / 0.5
    factors = [None, factor, None]
    outer = torch.randn(3, PART, dtype=torch.float64, generator=random) * inside[:, :, 0]
    running = torch.rand(3, layout.n_running, dtype=torch.float64, generator=random)

    def loss(parameters: torch.Tensor) -> torch.Tensor:
        energies, _ = forward(layout, activation, parameters, views(parameters, layout), running.clone(), rows, factors)
        return (energies * outer).sum(1)

    by_layer, gradient = views(start, layout), torch.zeros_like(start)
    _, passed = forward(layout, activation, start, by_layer, running.clone(), rows, factors)
    network = layout, activation, start, by_layer
    backward(*network, rows, factors, passed, outer, gradient, views(gradient, layout))
    for slot in range(3):
        for place in torch.randperm(layout.n_parameters, generator=random)[:60].tolist():
            step = torch.zeros_like(start)
            step[slot, place] = 1e-6
            numeric = (loss(start + step) - loss(start - step)) / 2e-6
            assert float(gradient[slot, place]) == pytest.approx(float(numeric[slot]), rel=1e-5, abs=1e-6)
            assert (numeric[[other for other in range(3) if other != slot]] == 0).all()


@pytest.mark.parametrize("activation", list(VALUES))
def test_slopes_are_those_of_the_activations(activation: str) -> None:
    y = torch.linspace(-30, 30, 1001, dtype=torch.float64, requires_grad=True)
    value = VALUES[activation](y)
    (expected,) = torch.autograd.grad(value.sum(), y)
    assert SLOPES[activation](torch.ones_like(y), y, value).detach() == pytest.approx(expected, rel=1e-12)


def test_a_layout_has_a_place_for_every_number_and_none_twice() -> None:
    layout = Layout(3, depths=[3, 2], widths=[9, 6, 2], batchnorm=True)
    parameters, running = layout.places([4, 6])
    assert len(set(parameters.tolist())) == 4 * 3 + 3 * 4 + 6 * 4 + 3 * 6 + 6 + 1
    assert len(set(running.tolist())) == 2 * (4 + 6)
    assert parameters.max() < layout.n_parameters
    assert running.max() < layout.n_running
    assert layout.fits([9, 6])
    assert layout.fits([16, 8])  # widths are rounded up
    assert not layout.fits([17, 6])
