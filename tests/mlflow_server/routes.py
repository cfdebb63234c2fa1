"""Every route of the application that the MLflow server runs, and whose requests it takes: `routes.txt`.

python -m tests.mlflow_server.routes > tests/mlflow_server/routes.txt
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bdqm_tune.mlflow_server.allowed import whose

TABLE = Path(__file__).with_name("routes.txt")
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}  # HEAD and OPTIONS are nobody's, whatever the path
NOBODY = "nobody"
PARAMETER = re.compile(r"<(path:)?[^>]+>|\{[^}:]+(:path)?\}")  # as Flask and as FastAPI write it


def example(path: str) -> str:
    """A path that a route takes."""
    return PARAMETER.sub(lambda found: "1/2" if found[1] or found[2] else "1", path)


def lines(routes: list[tuple[str, str]]) -> list[str]:
    """Whose, method and path of each route."""
    found = {(path, method, whose(method, example(path))) for method, path in routes}
    return [f"{who.value if who else NOBODY:8}{method:7}{path}" for path, method, who in sorted(found, key=str)]


def table() -> list[tuple[str, str, str]]:
    """The same as it was decided."""
    rows = (line.split() for line in TABLE.read_text().splitlines())
    return [(who, method, path) for who, method, path in rows]


def routes() -> list[tuple[str, str]]:
    """Method and path of every route, of Flask's and of FastAPI's, as the server has them in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        variables = {
            "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "of the tests alone",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
            "_MLFLOW_SGI_NAME": "uvicorn",  # as `mlflow server` says it
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.mlflow_server.routes", "print"],
            env=os.environ | variables,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return [(method, path) for method, path in (line.split() for line in done.stdout.splitlines())]


def _walk() -> Iterator[tuple[str, str]]:
    from fastapi.routing import iter_route_contexts
    from mlflow.server import app

    from bdqm_tune.mlflow_server.app import create_app

    application = create_app()._application
    for route in iter_route_contexts(application.routes):  # type: ignore[attr-defined]
        if not route.path:  # where Flask's begin
            continue
        for method in METHODS.intersection(route.methods or ["GET"]):
            yield method, route.path
    for rule in app.url_map.iter_rules():
        for method in METHODS.intersection(rule.methods or ()):
            yield method, rule.rule


if __name__ == "__main__":
    if sys.argv[1:] == ["print"]:
        print("\n".join(f"{method} {path}" for method, path in _walk()))
    else:
        print("\n".join(lines(routes())))
