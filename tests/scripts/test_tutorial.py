"""The tutorial: its page is what its notebook gives, and its notebook runs."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111
from nbformat import NotebookNode

import bdqm_tune as bt
from scripts.tutorial import NOTEBOOK, execute, page, tidied

DOCS = NOTEBOOK.parent
LARGEST = 80_000  # bytes of a figure


@pytest.fixture(scope="module")
def notebook() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: NotebookNode) -> list[str]:
    """What a cell put out: `text`, or the form of a figure or value, each once."""
    return sorted({next(iter(one.get("data", {"text": ""}))) for one in cell.outputs})


def test_the_page_is_what_the_notebook_gives(notebook: NotebookNode) -> None:
    text, figures = page(notebook, NOTEBOOK.stem)
    assert NOTEBOOK.with_suffix(".md").read_text() == text
    there = {f"tutorial_files/{path.name}": path.read_bytes() for path in (DOCS / "tutorial_files").iterdir()}
    assert there == figures
    assert len(figures) >= 5
    assert set(re.findall(r"\]\((tutorial_files/[^)]+)\)", text)) == set(figures)
    shown = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    for cell in code_of(notebook):
        assert cell.source.strip() in shown


def test_the_notebook_was_run_in_one_go_and_holds_nothing_of_a_machine(notebook: NotebookNode) -> None:
    code = code_of(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = NOTEBOOK.read_text()
    assert not re.search(r"/(home|tmp|work|root|Users)/", text)
    assert tidied(notebook) == notebook
    assert max(path.stat().st_size for path in (DOCS / "tutorial_files").iterdir()) < LARGEST


def test_the_files_that_the_tutorial_names_are_there(notebook: NotebookNode) -> None:
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(((?!http)[^)]+)\)", prose)
    assert "migration.md" in links
    for link in links:
        assert (DOCS / link).exists(), link


@pytest.mark.endurance
@pytest.mark.timeout(1800)
def test_the_notebook_runs_in_an_empty_folder(
    notebook: NotebookNode, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    ran = execute(notebook, workdir)
    assert [kinds(cell) for cell in code_of(tidied(ran))] == [kinds(cell) for cell in code_of(notebook)]

    results = bt.load_results("tutorial")  # of the stores that it left in this folder
    assert len(results.trials) == 20
    assert set(results.trials["state"]) <= {"complete", "pruned"}
    evaluation = bt.evaluate("tutorial")
    assert evaluation.repeated  # the notebook has opened the test split, once
    assert evaluation.metrics["test_energy_mae"] < evaluation.metrics["baseline_reference_energy_mae"]

    atoms = fcc111("Cu", size=(2, 2, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.3, "hcp")
    atoms.pbc = True
    atoms.calc = bt.load_calculator("models:/tutorial@champion")
    assert atoms.calc.trained_on_forces
    assert np.isfinite(atoms.get_potential_energy())
    assert np.isfinite(atoms.get_forces()).all()
