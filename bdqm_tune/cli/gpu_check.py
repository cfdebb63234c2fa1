"""`bdqm-tune doctor --gpu`: compare the batched trainer with torch's operations, and print the table."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bdqm_tune.learning.batched import Verdict

SECONDS = 120.0  # as the user waits for it, much longer than at the start of a study


def check_gpu(as_json: bool) -> None:
    """Check all that the batched trainer knows. Exit status 1 if anything differs."""
    import torch

    from bdqm_tune.backends.native import DTYPES, pick_device
    from bdqm_tune.learning.batched.verification import all_cases, verify

    device = pick_device("auto")
    if device.type == "cpu":
        torch.set_num_threads(1)  # its small steps would wait for other threads
    verdict = verify(all_cases(), device, DTYPES["float32"], SECONDS)
    if as_json:
        print(json.dumps(asdict(verdict) | {"agrees": verdict.agrees}))
    else:
        print("\n".join(lines(verdict, on_gpu=device.type == "cuda")))
    raise typer.Exit(0 if verdict.agrees else 1)


def lines(verdict: "Verdict", on_gpu: bool) -> list[str]:
    """The table of a verdict, with columns of equal width, and what it means."""
    rows = verdict.table()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    found = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    found.append("")
    found.append(f"{verdict.device}; {verdict.versions}; {verdict.seconds:.1f} s")
    if not on_gpu:
        found.append("no GPU is here: the batched trainer was checked on the CPU, without streams and captured steps")
    n_wrong = sum(not comparison.agrees for comparison in verdict.comparisons)
    if n_wrong:
        found.append(f"{n_wrong} of {len(verdict.comparisons)} comparisons differ: such studies do without it")
    elif verdict.unchecked:
        found.append(f"{len(verdict.unchecked)} cases were not reached in {SECONDS:.0f} s; all others agree")
    else:
        found.append("the batched trainer agrees with torch's operations")
    return found
