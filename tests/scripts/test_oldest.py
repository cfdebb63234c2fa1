"""The oldest versions that are supported, as constraints."""

from pathlib import Path

import pytest

from scripts.oldest import PROJECT, oldest


def test_every_dependency_has_an_oldest_version() -> None:
    lines = oldest(Path(PROJECT / "pyproject.toml").read_text())
    assert "optuna==5.0.0" in lines
    assert "mlflow==3.17.2" in lines  # whose extras and upper bound are no part of a constraint
    assert len(lines) > 20


@pytest.mark.parametrize("dependency", ["numpy", "numpy<3", "numpy>=2,!=2.1", "numpy==2"])
def test_one_without_a_plain_lower_bound_is_told(dependency: str) -> None:
    with pytest.raises(ValueError, match="is not of the form name>=version"):
        oldest(f'[project]\ndependencies = ["{dependency}"]\n')
