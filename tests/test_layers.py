"""The package is a stack of rooms: each imports only from those below it, and science knows nothing of services."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import rooms

PACKAGE = Path(__file__).resolve().parents[1] / "bdqm_tune"

# What each room may import from, apart from itself, from the ground up.
GROUND = ["backoff", "errors", "files", "plugins", "units", "process", "progress", "threads", "compiled", "user"]
SCIENCE = ["structures", "descriptors", "learning", "backends"]
STORES = ["services", "storage", "tracking"]
ALLOWED: dict[str, list[str]] = {
    **{module: ["errors"] for module in GROUND},
    "errors": [],
    "project": [],
    "config": GROUND,
    **{room: [*GROUND, "config", *SCIENCE[:position]] for position, room in enumerate(SCIENCE)},
    "testing": [*GROUND, "descriptors", "learning"],
    "compilation": [*GROUND, "config", *SCIENCE],
    "amptorch_import": [*GROUND, "config", *SCIENCE],
    "n2p2": [*GROUND, "config", *SCIENCE],
    "services": ["errors", "files", "plugins", "user", "config"],
    "mlflow_server": ["backoff", "errors", "files", "process", "progress", "units", "user", "services"],
    "storage": [*GROUND, "services"],
    "tracking": [*GROUND, "services", "storage", "learning"],
    "study": [*GROUND, "config", *SCIENCE, *STORES],
    "workers": [*GROUND, *STORES, "learning", "study"],
    "models": [*GROUND, "config", *SCIENCE, *STORES, "study"],
    "tuning": [*GROUND, "config", *SCIENCE, *STORES, "study", "workers"],
    "evaluation": [*GROUND, *SCIENCE, *STORES, "study", "models"],
    "confirmation": [*GROUND, "config", *SCIENCE, *STORES, "study", "models", "tuning"],
    "admin": [*GROUND, "config", *SCIENCE, *STORES, "study", "workers", "confirmation"],
    "experiment": ["models"],
}
ALLOWED["analysis"] = [*GROUND, "learning", *STORES, "study", "evaluation", "confirmation", "admin"]
ALLOWED["api"] = [*ALLOWED, "config"]
ALLOWED["cli"] = [room for room in ALLOWED if room != "experiment"]
ALLOWED["__init__"] = ["api"]
ALLOWED["__main__"] = ["cli", "user"]
SERVICES = {"mlflow", "optuna", "sqlalchemy"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> list[str]:
    """The dotted name of a file as parts: bdqm_tune, descriptors, gmp; a package ends with __init__."""
    return list(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def imports(source: str, module: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Line and dotted name, as parts, of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield node.lineno, [*base, alias.name]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            yield node.lineno, str(name.value).split(".") if isinstance(name, ast.Constant) else ["a name computed"]


def violations(source: str, module: list[str]) -> list[str]:
    """What a file imports against the rule, one line each."""
    layer = module[1]
    found = []
    for line, name in imports(source, module):
        # `from bdqm_tune import x` is a layer or, where x is none, one of the package's lazy names
        target = name[1] if name[0] == "bdqm_tune" and len(name) > 1 else None
        if target is not None and target != layer and target not in ALLOWED[layer]:
            found.append(f"line {line}: {layer} imports {'.'.join(name)}")
        if (layer in SCIENCE and name[0] in SERVICES) or name[0] in ("analysis", "mlflow_server", "scripts", "tests"):
            found.append(f"line {line}: {layer} imports {name[0]}")
    return found


def test_every_part_of_the_package_is_a_layer() -> None:
    parts = {module_name(path)[1] for path in FILES}
    assert parts <= ALLOWED.keys(), f"say in ALLOWED what these may import: {sorted(parts - ALLOWED.keys())}"


def test_every_folder_is_a_package() -> None:
    """A folder without __init__.py would be left out of what users install."""
    assert [str(path.parent) for path in FILES if not (path.parent / "__init__.py").exists()] == []


def test_imports_follow_the_layers() -> None:
    assert len(FILES) > 100
    found = {
        str(path.relative_to(PACKAGE)): violations(path.read_text(encoding="utf-8"), module_name(path))
        for path in FILES
    }
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_no_rooms_import_one_another() -> None:
    graph = rooms.arrows()
    order = rooms.in_order(graph)
    assert order[0] == rooms.GROUND
    assert len(order) == len(graph) > 15
    graph["config"]["study"] = {"bdqm_tune.config.config"}
    with pytest.raises(SystemExit, match=r"study imports config: .*bdqm_tune\.study\.(.|\n)*"):
        rooms.in_order(graph)


def test_no_modules_import_one_another() -> None:
    """Not for type checkers either: what is shared belongs into a module of its own, or is a protocol."""
    for folder in (PACKAGE, PACKAGE.parent / "benchmarks"):
        graph = rooms.modules(folder)
        assert rooms.circles(graph) == {}
        assert sum(map(len, graph.values())) > 10
    graph = rooms.modules()
    graph["bdqm_tune.errors"].add("bdqm_tune.api")
    assert {"bdqm_tune.errors", "bdqm_tune.api", "bdqm_tune.tuning.tune"} <= rooms.circles(graph).keys()
    assert "bdqm_tune.cli.main" not in rooms.circles(graph)


def test_contributing_shows_the_rooms_as_they_are() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert rooms.markdown(rooms.arrows()) in text, "python scripts/rooms.py --markdown prints the table"


def test_every_room_says_what_it_is_for() -> None:
    for room in PACKAGE.iterdir():
        if (room / "__init__.py").exists():
            text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
            words = " ".join(text.split())
            assert 3 <= len(text.splitlines()) <= 10, room
            assert all(word in words for word in ("In:", "Out:", "Called by:")), room


def test_a_room_is_called_by_those_that_it_names() -> None:
    """Where a room names its callers one by one, it names all, and none that imports nothing of it."""
    graph = rooms.arrows()
    for room in (PACKAGE / name for name in graph if (PACKAGE / name).is_dir()):
        text = " ".join(
            (ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or "").split()
        )
        said = f"{text} ".partition("Called by:")[2].partition(". ")[0]
        named = graph.keys() & set(re.findall(r"`(\w+)[.`]", said))
        callers = {other for other in graph if room.name in graph[other]}
        assert "rooms" in said or named >= callers, room.name
        assert named <= callers | {"__main__", "cli"}, room.name


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("structures", "import bdqm_tune.learning"),
        ("structures", "from bdqm_tune import descriptors"),
        ("descriptors", "def f():\n    from bdqm_tune.learning.fit import fit"),
        ("descriptors", "from ..learning import fit"),
        ("learning", "from bdqm_tune import tune"),
        ("backends", "import optuna.storages"),
        ("learning", "if True:\n    from mlflow.entities import Metric"),
        ("services", "from bdqm_tune.structures import read"),
        ("experiment", "import bdqm_tune.mlflow_server.paths"),
        ("experiment", "from bdqm_tune.analysis.figures import style"),
        ("experiment", "import importlib\nimportlib.import_module('bdqm_tune.cli.main')"),
    ],
)
def test_the_check_sees(layer: str, source: str) -> None:
    assert len(violations(source, ["bdqm_tune", layer, "module"])) == 1


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("learning", "from bdqm_tune.descriptors import GMP\nfrom .fit import fit\nimport torch"),
        ("services", "from bdqm_tune.errors import BadInput\nimport sqlalchemy"),
        ("storage", "import mlflow, optuna\nfrom ..services import connection"),
    ],
)
def test_the_check_lets_pass(layer: str, source: str) -> None:
    assert violations(source, ["bdqm_tune", layer, "module"]) == []


def test_help_imports_nothing_heavy() -> None:
    """`bdqm-tune --help` answers at once: what takes seconds to import is imported by the command that needs it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bdqm_tune", "--help"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "tune" in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "bdqm_tune.cli.main" in imported
    assert imported.isdisjoint({"ase", "mlflow", "numba", "optuna", "pandas", "sqlalchemy", "torch"})
