"""What this package uses of Optuna, MLflow and torch that is not public: in one file each, and still there."""

import ast
import inspect
from pathlib import Path
from pydoc import locate

import pytest

from bdqm_tune.learning import plain_network
from bdqm_tune.services import mlflow_private, optuna_private
from bdqm_tune.storage.cache import Cache
from bdqm_tune.storage.retrying_storage import RetryingStorage

PACKAGE = Path(optuna_private.__file__).parents[1]
LISTS = (mlflow_private, optuna_private, plain_network)
ALLOWED = {Path(module.__file__) for module in (mlflow_private, optuna_private)}
OF_TUPLES = {"_asdict", "_fields", "_replace"}  # public of a NamedTuple, whatever they look like
OURS = ("self", "cls", "super()")


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


def defined(source: str) -> set[str]:
    """The names of a file's classes: methods, and attributes of the class and of its objects."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            found |= {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
            assigned = [item for item in node.body if isinstance(item, ast.Assign | ast.AnnAssign)]
            targets = [target for item in assigned for target in getattr(item, "targets", None) or [item.target]]
            found |= {ast.unparse(target) for target in targets}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in OURS:
            found.add(node.attr)
    return found


def private_attributes(source: str, inherited: set[str]) -> list[str]:
    """The private attributes that a file reads of what is not its own.

    Args:
        inherited: those of the base classes of its classes.
    """
    own, found = defined(source) | OF_TUPLES, []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        if node.attr not in (own | inherited if ast.unparse(node.value) in OURS else own):
            found.append(ast.unparse(node))
    return found


def listed(module: object) -> set[str]:
    """The attributes that a list has."""
    return {attribute for _, attributes in module.BY_NAME.values() for attribute in attributes}  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("private", LISTS)
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


def test_the_test_sees_attributes() -> None:
    source = "class A:\n    _a = 1\n    def _b(self):\n        self._c = self._d + self._a + x._b() + x._asdict()\n"
    assert private_attributes(source, {"_d"}) == []
    assert private_attributes(source, set()) == ["self._d"]
    assert private_attributes("def _f(trial): return _f(trial._id) + trial.__class__", {"_id"}) == ["trial._id"]


def test_no_other_file_reads_private_attributes() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")) if path not in ALLOWED}
    inherited = listed(optuna_private).union(*map(defined, sources.values()))
    found = {path: set(private_attributes(source, inherited)) for path, source in sources.items()}
    assert found.pop(Path(plain_network.__file__)) == {"tensor._backward_hooks"}
    assert {str(path.relative_to(PACKAGE)): names for path, names in found.items() if names} == {}


def test_what_the_storages_replace_of_optunas_is_listed() -> None:
    replaced = set()
    for each in (Cache, RetryingStorage):
        bases = [base for base in each.__mro__ if base.__module__.startswith("optuna.")]
        ours = {name for base in each.__mro__ if base not in bases for name in vars(base) if base is not object}
        replaced |= {name for name in ours if any(name in vars(base) for base in bases)}
    private = {name for name in replaced if name.startswith("_") and not name.startswith("__")}
    assert private - {"_abc_impl"} <= listed(optuna_private)
