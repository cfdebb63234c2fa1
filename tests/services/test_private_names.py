"""What this package uses of Optuna and MLflow that is not public: in one file each, and still there."""

import ast
import inspect
from pathlib import Path
from pydoc import locate

import pytest

from bdqm_tune.services import mlflow_private, optuna_private

PACKAGE = Path(optuna_private.__file__).parents[1]
ALLOWED = {Path(module.__file__) for module in (mlflow_private, optuna_private)}


def private_imports(source: str) -> list[str]:
    """The private names and modules of Optuna and MLflow that a file imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        of_libraries = (name for name in names if name.split(".")[0] in ("optuna", "mlflow"))
        found += [name for name in of_libraries if any(part.startswith("_") for part in name.split("."))]
    return found


def missing(by_name: dict[str, tuple[str, tuple[str, ...]]]) -> list[str]:
    """The names that an installed version lacks."""
    lost = []
    for name, (why, attributes) in by_name.items():
        assert why
        item = locate(name)
        if item is None:
            lost.append(name)
        lost += [f"{name}.{attribute}" for attribute in attributes if not _has(item, attribute)]
    return lost


def _has(item: object, attribute: str) -> bool:
    # What an instance is given when it is made is in the source of its class alone.
    return hasattr(item, attribute) or f"self.{attribute}" in inspect.getsource(item)  # type: ignore[arg-type]


@pytest.mark.parametrize("private", [optuna_private, mlflow_private])
def test_what_is_private_is_still_there(private: object) -> None:
    assert missing(private.BY_NAME) == [], "an upgrade has taken these away; the file says what they are for"  # type: ignore[attr-defined]


def test_the_test_names_what_is_gone() -> None:
    gone = {"optuna.Trial": ("", ("_gone",)), "optuna.gone._module": ("why", ())}
    with pytest.raises(AssertionError):
        missing(gone)
    gone["optuna.Trial"] = ("why", ("_gone",))
    assert missing(gone) == ["optuna.Trial._gone", "optuna.gone._module"]
    assert private_imports("from optuna.storages._rdb import models\nimport mlflow._spark") == [
        "optuna.storages._rdb.models",
        "mlflow._spark",
    ]


def test_no_other_file_imports_private_names() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in ALLOWED and (names := private_imports(path.read_text(encoding="utf-8")))
    }
    assert found == {}
