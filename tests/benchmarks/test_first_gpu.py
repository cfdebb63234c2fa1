"""The script of the first GPU, here: the check alone, and the timing of a few small epochs on the CPU."""

import json
from pathlib import Path

import pytest
import torch

from bdqm_tune.learning.batched import Case
from benchmarks import first_gpu, gpu_search

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so_and_checks_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_gpu, "all_cases", lambda: [Case("tanh")])
    assert first_gpu.main(["--minutes", "1", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "first_gpu.json").read_text())
    assert found["check"]["agrees"] is True
    assert "epochs" not in found
    page = (tmp_path / "first_gpu.md").read_text()
    assert "No GPU is here: the check ran on the CPU, and nothing was timed." in page
    assert "the batched trainer agrees with torch's operations" in page


def test_epochs_and_the_search_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_gpu, "AT_ONCE", (1, 2))
    monkeypatch.setattr(first_gpu, "SEARCH", {"images": 20, "trials": 4, "epochs": 20})
    monkeypatch.setattr(first_gpu, "ATOMS", 3)
    monkeypatch.setattr(first_gpu, "number_at_once", lambda *_: 2)
    splits = [gpu_search.random_split(n, 3, CPU, torch.float32) for n in (20, 4)]
    report = first_gpu.Report(tmp_path)
    first_gpu.time_epochs(splits, CPU, lambda: False, report)
    first_gpu.search(CPU, 0.1, report)
    found = json.loads((tmp_path / "first_gpu.json").read_text())
    assert [(row["network"], row["trainer"], row["at_once"]) for row in found["epochs"]] == [
        (network, trainer, at_once)
        for network in ("plain network", "batchnorm", "dropout")
        for trainer, at_once in (("torch", 1), ("batched", 1), ("batched", 2))
    ]
    assert all(row["ms"] > 0 for row in found["epochs"])
    assert found["search"]["hours_of_the_whole"] > 0
    page = (tmp_path / "first_gpu.md").read_text()
    assert "| dropout | batched | 2 |" in page
    assert "2 trials at once, " in page
