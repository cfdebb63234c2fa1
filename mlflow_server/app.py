"""The MLflow server's application: MLflow's own with passwords, which also refuses to record a password, and answers
with histories of many runs at once.

`mlflow server --app-name bdqm-tune` finds it through the entry point in pyproject.toml.
"""

from typing import TYPE_CHECKING, Any

from bdqm_tune.services.secrets import has_secret
from mlflow_server.histories import add_histories

if TYPE_CHECKING:
    from flask import Response

NAME = "bdqm-tune"
# Whatever of a run is text: `mlflow run` records parameters before it calls us, so that we could only refuse them late.
RECORDING = ("/mlflow/runs/", "/mlflow/experiments/")


def create_app() -> Any:
    """MLflow's application with basic authentication."""
    from mlflow.server import app
    from mlflow.server.auth import create_app as with_passwords

    application = with_passwords(app)
    add_histories(app)
    app.before_request(refuse_secrets)  # after who asks was looked at
    return application


def refuse_secrets() -> "Response | None":
    """Answer a request that would record a URL with a password; others go on."""
    from flask import jsonify, make_response, request

    if request.method != "POST" or not any(part in request.path for part in RECORDING):
        return None
    if not has_secret(request.get_data(as_text=True)):
        return None
    message = "a parameter or tag holds a URL with a password, which would be recorded for all to read"
    return make_response(jsonify(error_code="INVALID_PARAMETER_VALUE", message=message), 400)
