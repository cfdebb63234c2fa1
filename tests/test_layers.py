"""The package is a stack: a layer imports only from those before it, and science knows nothing of services."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bdqm_tune"

# What each folder or module of the package may import from, apart from itself.
SEARCHED = ["yaml_files", "hyperparameters", "descriptor_options", "spaces", "descriptor_search"]
BASE = ["errors", "files", "units", *SEARCHED, "config", "process", "progress", "threads", "compiled"]
CLI = ["amptorch", "jobs", "models", "report", "results", "shared", "studies"]
SCIENCE = ["structures", "descriptors", "learning", "backends"]
ALLOWED: dict[str, list[str]] = {
    "errors": [],
    "files": ["errors"],
    "units": [],
    **{module: ["errors", *SEARCHED[:position]] for position, module in enumerate(SEARCHED)},
    "config": ["errors", "units", *SEARCHED],
    "process": [],
    "progress": [],
    "interruption": ["progress"],
    "threads": [],
    "compiled": [],
    **{layer: BASE + SCIENCE[:position] for position, layer in enumerate(SCIENCE)},
    "amptorch_import": [*BASE, *SCIENCE],
    "services": ["errors", "files", "config"],
    "experiment": [*BASE, *SCIENCE, "services"],
    "api": [*BASE, *SCIENCE, "amptorch_import", "services", "experiment"],
    "cli_amptorch": ["errors", "files", "config", "amptorch_import"],
    "cli_shared": ["errors", "services", "experiment"],
    "cli_jobs": ["errors", "config", "services", "experiment", "cli_shared"],
    "cli_models": ["errors", "config", "services", "experiment", "cli_shared"],
    "cli_report": ["cli_shared"],
    "cli_results": ["errors", "config", "progress", "services", "experiment", "cli_shared"],
    "cli_studies": ["errors", "services", "experiment", "cli_shared"],
    "cli": [*BASE, "interruption", *SCIENCE, "services", "experiment", "api", *(f"cli_{part}" for part in CLI)],
    # the package's public names, and `python -m`
    "__init__": ["api"],
    "__main__": ["cli", "interruption"],
}
# Who may use what stands beside the package.
OUTSIDE = {"mlflow_server": {"cli", "cli_studies"}, "analysis": {"cli_report"}}
SERVERS = {"errors", "files", "process", "progress", "units", "services"}  # what mlflow_server/ may use of the package
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
        if (layer in SCIENCE and name[0] in SERVICES) or layer not in OUTSIDE.get(name[0], {layer}):
            found.append(f"line {line}: {layer} imports {name[0]}")
    return found


def servers_violations(source: str) -> list[str]:
    """The same for a file of mlflow_server, which stands beside the package's services."""
    names = [(line, name) for line, name in imports(source, ["mlflow_server", "module"]) if name[0] == "bdqm_tune"]
    return [f"line {line}: {'.'.join(name)}" for line, name in names if len(name) < 2 or name[1] not in SERVERS]


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


def test_the_servers_know_nothing_of_experiments() -> None:
    files = sorted((PACKAGE.parent / "mlflow_server").glob("*.py"))
    assert len(files) > 10
    found = {path.name: servers_violations(path.read_text(encoding="utf-8")) for path in files}
    assert {file: lines for file, lines in found.items() if lines} == {}
    assert len(servers_violations("from bdqm_tune.experiment import study\nimport bdqm_tune")) == 2


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
        ("experiment", "import bdqm_tune.mlflow_server.places"),
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
        ("experiment", "import mlflow, optuna\nfrom ..services import connection"),
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
