"""What all tests share: an environment of their own, and what they may need from the machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "shared": ((SHARED / "data").is_dir, f"no reference data: {SHARED} is not there"),
}
REQUIRED = {name for name in os.environ.get("BDQM_REQUIRE", "").split(",") if name}


def pytest_configure() -> None:
    unknown = REQUIRED - NEEDS.keys()
    if unknown:
        raise pytest.UsageError(f"BDQM_REQUIRE: unknown {', '.join(sorted(unknown))}; there are: {', '.join(NEEDS)}")
    for name in list(os.environ):
        if name.startswith(("BDQM_", "MLFLOW_")):
            del os.environ[name]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(autouse=True)
def _environment_restored() -> Iterator[None]:
    """MLflow sets variables as it runs; none reaches the next test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """`require(name)` skips a test where `name` is not to be had, and fails it where BDQM_REQUIRE lists the name."""

    def check(name: str) -> None:
        available, reason = NEEDS[name]
        if available():
            return
        if name in REQUIRED:
            pytest.fail(f"{reason} (and BDQM_REQUIRE={','.join(sorted(REQUIRED))})", pytrace=False)
        pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def shared(require: Callable[[str], None]) -> Path:
    """The folder with reference data, beside the repository."""
    require("shared")
    return SHARED


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
