"""The example of one page is right, short, and of the package's public parts."""

import ast
import runpy
from pathlib import Path

import numpy as np
import pytest

from bdqm_tune.learning.targets import fit_reference_energies
from bdqm_tune.structures import builtin_structures

MINIMAL = Path(__file__).parents[1] / "examples" / "minimal.py"


def test_the_minimal_example_beats_the_reference_energies(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = builtin_structures("train"), builtin_structures("test")
    of_elements = fit_reference_energies(train.atoms, train.energies).of(test.atoms)
    error = runpy.run_path(str(MINIMAL))["main"]()
    baseline = np.mean(np.abs(of_elements - test.energies) / test.n_atoms)
    assert error < 0.75 * baseline
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:-1] == [
        f"reference energies alone: {1000 * baseline:.1f} meV/atom",
        f"test: {1000 * error:.1f} meV/atom",
    ]
    assert lines[-1].startswith("force on the first atom: [")


def test_it_is_one_page_and_uses_no_private_name() -> None:
    source = MINIMAL.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 80
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert not [name for name in names if name.startswith("_")]
