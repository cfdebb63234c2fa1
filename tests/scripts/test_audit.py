"""The audit of dependencies: what is known fails it, what nobody was asked about does not pass for clean."""

from typing import Any

import pytest

from scripts.audit import ASGI, verdict

CLEAN: dict[str, Any] = {"name": "ase", "version": "3.29.0", "vulns": []}
BAD: dict[str, Any] = {"name": "left", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
ANSWERED: dict[str, Any] = {
    "name": "gunicorn",
    "version": "26.2.0",
    "vulns": [{"id": "PYSEC-2", "aliases": ["CVE-2026-134820"], "fix_versions": ["27.0.0"]}],
}
SKIPPED: dict[str, Any] = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("report", "status", "line"),
    [
        ([CLEAN], 0, "1 of 1 packages audited, 0 known vulnerabilities"),
        ([CLEAN, BAD], 1, "left 1.0: PYSEC-1, fixed in 1.1"),
        ([CLEAN, ANSWERED], 0, "2 of 2 packages audited, 0 known vulnerabilities and 1 that are answered"),
        ([ANSWERED], 0, f"gunicorn 26.2.0: PYSEC-2, answered: {ASGI}"),
        ([BAD, ANSWERED], 1, "left 1.0: PYSEC-1, fixed in 1.1"),
        ([BAD, SKIPPED], 1, "not audited: torch"),
        ([CLEAN, SKIPPED], 0, "not audited: torch"),
        (
            [SKIPPED, SKIPPED],
            0,
            "not audited: the advisory service knew none of the packages, so it is not the real one",
        ),
    ],
)
def test_the_verdict(report: list[dict[str, Any]], status: int, line: str) -> None:
    found, lines = verdict(report)
    assert found == status
    assert line in lines
