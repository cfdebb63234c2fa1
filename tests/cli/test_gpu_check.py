"""`doctor --gpu`: the table of all that the batched trainer knows, and an exit status."""

import json

import pytest
import torch

from bdqm_tune.cli import gpu_check
from bdqm_tune.learning.batched import Case, Verdict, passes, verification
from bdqm_tune.learning.batched.verdict import Comparison
from tests.commands import Call

CASES = [Case("tanh"), Case("silu", batchnorm=True, dropout=True)]


@pytest.fixture(autouse=True)
def _few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "all_cases", lambda: CASES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_checks_on_the_cpu_and_says_so(call: Call) -> None:
    code, out, _ = call("doctor", "--gpu")
    assert code == 0, out
    header, *rows = out.split("\n\n")[0].splitlines()
    assert header.split("  ")[0] == "options"
    assert len(rows) == 4
    assert all(row.endswith("  agrees") for row in rows)
    assert rows[1].startswith("silu, batchnorm, dropout, adam, mae, per_atom  float64")
    assert "no GPU is here: the batched trainer was checked on the CPU" in out
    assert out.splitlines()[-1] == "the batched trainer agrees with torch's operations"


def test_where_it_differs_the_exit_status_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    right = passes.SLOPES["tanh"]
    monkeypatch.setitem(passes.SLOPES, "tanh", lambda *values: 1.1 * right(*values))
    code, out, _ = call("doctor", "--gpu", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["agrees"] is False
    assert [each["case"][0] for each in found["comparisons"]] == ["tanh", "silu"] * 2
    assert [each["difference"] > each["bound"] for each in found["comparisons"]] == [True, False] * 2


def test_the_table_says_what_it_means() -> None:
    differs = Verdict("H", "torch 2", [Comparison(CASES[0], "float32", "losses", 0.5, 1e-3)], CASES[1:], 3.0)
    lines = gpu_check.lines(differs, on_gpu=True)
    assert lines[1].startswith("tanh, adam, mae, per_atom")
    assert lines[1].endswith("losses 5.0e-01 (bound 1.0e-03)  DIFFERS")
    assert lines[-2:] == ["H; torch 2; 3.0 s", "1 of 1 comparisons differ: such studies do without it"]
    unchecked = Verdict("H", "torch 2", [], CASES, 3.0)
    assert gpu_check.lines(unchecked, on_gpu=True)[-1] == "2 cases were not reached in 120 s; all others agree"
