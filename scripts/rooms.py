"""Print the rooms of the package from the ground up: lines, what each imports from the others, and what it is for.

python scripts/rooms.py            a table
python scripts/rooms.py --markdown the same for CONTRIBUTING.md

Ends with status 1 if rooms or modules import one another in a circle, naming the modules that do.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "bdqm_tune"
GROUND = "ground"  # the single files that all may use, shown as one room
FACES = ("__init__", "__main__", "api")  # single files that are none of them


def room_of(module: str) -> str:
    """The room that a module of the package, as `bdqm_tune.study.study`, is in."""
    name = [*module.split("."), "__init__"][1]
    return name if (PACKAGE / name).is_dir() or name in FACES else GROUND


def imported(path: Path, package: str = PACKAGE.name) -> Iterator[str]:
    """The modules of the package that a file imports, inside functions too, and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise SystemExit(f"{path}:{node.lineno}: a relative import, which hides the room")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> dict[str, dict[str, set[str]]]:
    """By room, the other rooms that it imports from, and its modules that do."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[room_of(module)]  # one that imports nothing is there, too
        for name in imported(path):
            if room_of(name) != room_of(module):
                found[room_of(module)][room_of(name)].add(module)
    return found


def modules(folder: Path = PACKAGE) -> dict[str, set[str]]:
    """By module of a package, or of a folder that is imported as one, the others that it imports."""
    paths = {".".join(path.relative_to(folder.parent).with_suffix("").parts): path for path in folder.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = {next(filter(paths.__contains__, _from(name)), module) for name in imported(path, folder.name)}
        found[module] = names - {module}
    return found


def _from(name: str) -> tuple[str, ...]:
    """What an imported name may be, in the order in which Python looks: a module, a package, or a name in either."""
    parent = name.rpartition(".")[0]
    return name, f"{name}.__init__", parent, f"{parent}.__init__"


def circles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Of modules and what they import, those that come back to themselves, and by which others."""
    left = dict(graph)
    while True:
        inner = {name: others & left.keys() for name, others in left.items()}
        wanted = set().union(*inner.values())
        left = {name: others for name, others in inner.items() if others and name in wanted}
        if left.keys() == inner.keys():
            return left


def in_order(graph: dict[str, dict[str, set[str]]]) -> list[str]:
    """The rooms from the ground up, each after all that it imports from.

    Raises:
        SystemExit: there is a circle.
    """
    order: list[str] = []
    while left := sorted(graph.keys() - set(order)):
        free = [room for room in left if graph[room].keys() <= set(order)]
        if not free:
            lines = (
                f"{room} imports {other}: {', '.join(sorted(graph[room][other]))}"
                for room in left
                for other in sorted(graph[room].keys() & set(left))
            )
            raise SystemExit("\n".join(["rooms that import one another:", *lines]))
        order += free
    return order


def lines_of(room: str) -> int:
    """Lines of code in a room."""
    if room == GROUND:
        files = [path for path in PACKAGE.glob("*.py") if path.stem not in FACES]
    else:
        files = [PACKAGE / f"{room}.py"] if room in FACES else sorted((PACKAGE / room).rglob("*.py"))
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def purpose(room: str) -> str:
    """The first line of a room's docstring."""
    if room == GROUND:
        return ", ".join(sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in FACES))
    path = PACKAGE / (f"{room}.py" if room in FACES else f"{room}/__init__.py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def markdown(graph: dict[str, dict[str, set[str]]]) -> str:
    """The table of CONTRIBUTING.md: each room below those that may use it, without what changes every day."""
    order = in_order(graph)
    rows = ["| room | imports from | what it is for |", "|---|---|---|"]
    for room in order:
        others = ", ".join(other for other in order if other in graph[room])
        rows.append(f"| `{room}` | {others} | {purpose(room)} |")
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    """Print the table."""
    graph = arrows()
    if found := circles(modules()):
        lines = (f"{module} imports {', '.join(sorted(others))}" for module, others in sorted(found.items()))
        raise SystemExit("\n".join(["modules that import one another:", *lines]))
    if "--markdown" in arguments:
        print(markdown(graph))
        return
    rows = [("room", "lines", "imports from", "what it is for")]
    for room in in_order(graph):
        others = ", ".join(other for other in in_order(graph) if other in graph[room])
        rows.append((room, str(lines_of(room)), others, purpose(room)))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for room, lines, others, what in rows:
        print(f"{room:<{widths[0]}}  {lines:>{widths[1]}}  {what}")
        if others and room != "room":
            print(f"{'':<{widths[0]}}  {'':>{widths[1]}}  ← {others}")


if __name__ == "__main__":
    main(sys.argv[1:])
