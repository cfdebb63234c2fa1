"""The MLflow server's application: MLflow's own with passwords, less what nobody here needs and what it should not
record, and with histories of many runs at once.

`mlflow server --app-name bdqm-tune` finds it through the entry point in pyproject.toml.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdqm_tune.mlflow_server.allowed import Allowed, Who

NAME = "bdqm-tune"


def create_app() -> "Allowed":
    """MLflow's application with basic authentication, for uvicorn."""
    from flask import Flask
    from mlflow.server import app
    from mlflow.server.auth import create_app as with_passwords

    from bdqm_tune.mlflow_server.allowed import Allowed
    from bdqm_tune.mlflow_server.histories import add_histories
    from bdqm_tune.mlflow_server.refusals import refuse

    application: Any = with_passwords(app)
    if isinstance(application, Flask):  # without uvicorn, and nothing can wrap it
        raise RuntimeError(f"--app-name {NAME} needs uvicorn, which `mlflow server` uses by default")
    add_histories(app)
    app.before_request(refuse)  # after MLflow's check of the account
    return Allowed(application, is_of)


def is_of(authorization: str, who: "Who") -> bool:
    """Whether the value of a header `Authorization` has the password of an account, or of an administrator."""
    from flask import Response
    from mlflow.server import app, auth

    from bdqm_tune.mlflow_server.allowed import Who

    with app.test_request_context(headers={"Authorization": authorization}) as context:
        credentials = context.request.authorization
        if credentials is None or credentials.type != "basic" or isinstance(auth.authenticate_request(), Response):
            return False
        return who is Who.ACCOUNT or bool(auth.sender_is_admin())
