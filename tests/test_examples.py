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
    assert error < 0.75 * np.abs(of_elements - test.energies).mean()
    assert f"test: {error:.4f} eV; force on the first atom: [" in capsys.readouterr().out


def test_it_is_one_page_and_uses_no_private_name() -> None:
    source = MINIMAL.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 80
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert not [name for name in names if name.startswith("_")]
