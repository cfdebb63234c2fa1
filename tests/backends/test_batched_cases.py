"""What is checked before a study: all that its space has, and nothing if it cannot be batched."""

from collections.abc import Callable
from typing import Any

import pytest

from bdqm_tune.backends.batched_cases import cases_of
from bdqm_tune.config.config import Config

Configure = Callable[..., Config]


def test_a_study_has_the_cases_of_its_space(configure: Configure) -> None:
    search = {"activation": {"choice": ["tanh", "relu"]}, "batchnorm": {"choice": [True, False]}, "dropout": True}
    cases = cases_of(configure(search=search, training={"loss": "huber", "energy_loss": "total"}).decided(False, False))
    assert {case[:3] for case in cases} == {(a, b, True) for a in ("tanh", "relu") for b in (True, False)}
    assert {case[3:] for case in cases} == {("adam", "huber", "total")}


def test_the_default_space_has_three(configure: Configure) -> None:
    cases = cases_of(configure(search={"num_layers": 2}).decided(False, False))
    assert {(case.activation, case.batchnorm, case.dropout) for case in cases} == {
        (activation, False, False) for activation in ("tanh", "gelu", "silu")
    }


@pytest.mark.parametrize(
    "groups",
    [
        {"training": {"forces": True}},
        {"search": {"network": "per_element"}},
        {"search": {"optimizer": "lbfgs"}},
    ],
)
def test_what_cannot_be_batched_is_not_checked(configure: Configure, groups: dict[str, Any]) -> None:
    config = configure(**groups)
    assert cases_of(config.decided(bool(config.training.forces), False)) == []
