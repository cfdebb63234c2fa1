"""Which requests reach MLflow, and whose: all that model training needs. Anything else is not found.

MLflow's server can do far more: its assistant runs commands, its gateway and webhooks send requests to wherever an
account says. This wraps the whole application, as some of MLflow's routes lie in FastAPI, where Flask's hooks
do not see them, and checks the password itself, as MLflow answers some routes without.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum
from typing import Any

from anyio.to_thread import run_sync
from mlflow.exceptions import MlflowException
from starlette.responses import PlainTextResponse

from bdqm_tune.errors import one_line
from bdqm_tune.services.histories import PATH

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Who(Enum):
    """Whose request a route takes. What an account may then read and change is MLflow's to say."""

    ANYONE = "anyone"  # without a password
    ACCOUNT = "account"
    ADMIN = "admin"


PART = r"(?!\.\.?(?:/|$))[^/\\\x00-\x1f\x7f]+"  # of a path; never one that leads out of its folder
MODEL = r"[A-Za-z0-9-]+"  # the id of a logged model
FILE = rf"{PART}(?:/{PART})*"
API = "/(?:ajax-)?api"  # of clients, and of the page
MLFLOW, MLFLOW_3, FILES = rf"{API}/2\.0/mlflow", rf"{API}/3\.0/mlflow", rf"{API}/2\.0/mlflow-artifacts"
PAGE = r"/ajax-api/2\.0/mlflow"

# Methods, path (a regular expression) and whose.
ROUTES: tuple[tuple[str, str, Who], ...] = (
    ("GET", "/health", Who.ANYONE),
    # The page, and what it and clients query about the server.
    ("GET", "/", Who.ACCOUNT),
    ("GET", f"/static-files/{FILE}", Who.ACCOUNT),
    ("GET", "/version", Who.ACCOUNT),
    ("GET", f"{MLFLOW_3}/server-info", Who.ACCOUNT),
    ("POST", "/graphql", Who.ACCOUNT),
    ("GET", f"{PAGE}/gateway-proxy", Who.ACCOUNT),  # queried by the list of runs; says that there is no gateway
    # Experiments, runs and their metrics.
    ("POST", f"{MLFLOW}/experiments/(?:create|update|delete|restore)", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/experiments/(?:set|delete)-experiment-tag", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/experiments/get(?:-by-name)?", Who.ACCOUNT),
    ("GET POST", f"{MLFLOW}/experiments/search", Who.ACCOUNT),
    ("POST", f"{PAGE}/experiments/search-datasets", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/runs/(?:create|update|delete|restore|search)", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/runs/log-(?:batch|inputs|metric|model|parameter)", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/runs/(?:outputs|set-tag|delete-tag)", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/runs/get", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/metrics/get-history", Who.ACCOUNT),
    ("GET", f"{PAGE}/metrics/get-history-bulk", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/metrics/get-history-bulk-interval", Who.ACCOUNT),
    ("POST", re.escape(PATH), Who.ACCOUNT),  # ours
    # Models.
    ("POST", f"{MLFLOW}/logged-models(?:/search)?", Who.ACCOUNT),
    ("GET PATCH DELETE", f"{MLFLOW}/logged-models/{MODEL}", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/logged-models/{MODEL}/params", Who.ACCOUNT),
    ("PATCH", f"{MLFLOW}/logged-models/{MODEL}/tags", Who.ACCOUNT),
    ("DELETE", f"{MLFLOW}/logged-models/{MODEL}/tags/{PART}", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/logged-models/{MODEL}/artifacts/directories", Who.ACCOUNT),
    ("GET", f"{PAGE}/logged-models/{MODEL}/artifacts/files", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/registered-models/(?:create|rename|set-tag)", Who.ACCOUNT),
    ("PATCH", f"{MLFLOW}/registered-models/update", Who.ACCOUNT),
    ("DELETE", f"{MLFLOW}/registered-models/delete(?:-tag)?", Who.ACCOUNT),
    ("GET POST DELETE", f"{MLFLOW}/registered-models/alias", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/registered-models/(?:get|search)", Who.ACCOUNT),
    ("GET POST", f"{MLFLOW}/registered-models/get-latest-versions", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/model-versions/(?:create|set-tag|transition-stage)", Who.ACCOUNT),
    ("PATCH", f"{MLFLOW}/model-versions/update", Who.ACCOUNT),
    ("DELETE", f"{MLFLOW}/model-versions/delete(?:-tag)?", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/model-versions/(?:get|get-download-uri|search)", Who.ACCOUNT),
    # Artifacts: of a run or a model for the page, by their path for clients.
    ("GET", "(?:/model-versions)?/get-artifact", Who.ACCOUNT),
    ("GET", f"{MLFLOW}/artifacts/list", Who.ACCOUNT),
    ("GET", f"{FILES}/artifacts", Who.ACCOUNT),
    ("GET PUT", f"{FILES}/artifacts/{FILE}", Who.ACCOUNT),
    ("DELETE", f"{FILES}/artifacts/{FILE}/?", Who.ACCOUNT),  # of a whole folder, clients send a slash
    ("POST", f"{FILES}/mpu/(?:create|complete|abort)/{FILE}", Who.ACCOUNT),
    ("GET", f"{FILES}/presigned/{FILE}", Who.ACCOUNT),
    # Accounts: one's own, and those of others.
    ("GET", f"{MLFLOW}/users/current", Who.ACCOUNT),
    ("GET", f"{MLFLOW_3}/users/current/permissions", Who.ACCOUNT),
    ("GET", f"{MLFLOW_3}/users/roles/list", Who.ACCOUNT),
    ("PATCH", f"{MLFLOW}/users/update-password", Who.ACCOUNT),
    ("POST", f"{MLFLOW}/users/create", Who.ADMIN),
    ("GET", f"{MLFLOW}/users/(?:get|list)", Who.ADMIN),
    ("PATCH", f"{MLFLOW}/users/update-admin", Who.ADMIN),
    ("DELETE", f"{MLFLOW}/users/delete", Who.ADMIN),
    ("POST", f"{MLFLOW_3}/users/permissions/(?:grant|revoke)", Who.ADMIN),
    ("GET", f"{MLFLOW_3}/users/permissions/(?:get|list)", Who.ADMIN),
    ("GET", f"{MLFLOW_3}/roles/(?:users/|permissions/)?list", Who.ADMIN),
    ("POST", f"{MLFLOW_3}/roles/(?:create|assign|permissions/add)", Who.ADMIN),
    ("GET", f"{MLFLOW_3}/roles/get", Who.ADMIN),
    ("PATCH", f"{MLFLOW_3}/roles/(?:update|permissions/update)", Who.ADMIN),
    ("DELETE", f"{MLFLOW_3}/roles/(?:delete|unassign|permissions/remove)", Who.ADMIN),
)
COMPILED = [(frozenset(methods.split()), re.compile(path), who) for methods, path, who in ROUTES]


def whose(method: str, path: str) -> Who | None:
    """Whose request of this method and decoded path is answered; None: nobody's."""
    return next((who for methods, pattern, who in COMPILED if method in methods and pattern.fullmatch(path)), None)


class Allowed:
    """An ASGI application that lets through to another what `ROUTES` allows.

    Args:
        is_of: whether the value of a request's header `Authorization` has the password of any account, or of an
            administrator.
    """

    def __init__(self, application: Application, is_of: Callable[[str, Who], bool]) -> None:
        self._application, self._is_of = application, is_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and (refusal := await self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        # With a root path the application would use another path than this.
        known = scope["type"] == "http" and not scope.get("root_path")
        who = whose(scope["method"], scope["path"]) if known else None
        if who is None:
            return PlainTextResponse("not found: this server has no such page\n", 404)
        if who is Who.ANYONE:
            return None
        headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        try:
            # Of two headers the application might read the other one.
            if len(headers) != 1 or not await run_sync(self._is_of, headers[0], Who.ACCOUNT):
                return PlainTextResponse(
                    "user and password, please\n", 401, {"WWW-Authenticate": 'Basic realm="mlflow"'}
                )
            if who is Who.ADMIN and not await run_sync(self._is_of, headers[0], who):
                return PlainTextResponse("only an administrator may do this\n", 403)
        except MlflowException as error:  # the database does not answer; clients retry
            return PlainTextResponse(f"accounts cannot be looked up: {one_line(error)}\n", 503)
        return None
