"""What our MLflow server does not record: a URL with a password, and a place for artifacts that is not its own."""

import json
import re
from typing import TYPE_CHECKING, Any

from bdqm_tune.errors import BadInput
from bdqm_tune.services.secrets import refuse_secrets

if TYPE_CHECKING:
    from flask import Response

# Where a model version may come from: a run, a logged model or another version, whose files this server keeps.
SOURCE = re.compile(r"(?:runs|models|mlflow-artifacts):/.+")


def refuse() -> "Response | None":
    """Answer a request whose content is not to be recorded; others go on."""
    from flask import jsonify, make_response, request

    if request.method == "GET":  # records nothing
        return None
    content, data = _content(), request.get_data()
    try:
        if b"@" in data or b"\\" in data:  # none that is written out, and none that is escaped: no need to look closer
            refuse_secrets({"request": content})
        _refuse_locations(request.path, content)
    except BadInput as error:
        return make_response(jsonify(error_code="INVALID_PARAMETER_VALUE", message=str(error)), 400)
    return None


def _content() -> Any:
    """The request's JSON as MLflow reads it: twice, where a text came out, as old clients write it."""
    from flask import request

    content = request.get_json(force=True, silent=True)
    if isinstance(content, str):
        try:
            return json.loads(content)
        except ValueError:
            return content
    return request.get_data(as_text=True) if content is None else content


def _refuse_locations(path: str, content: Any) -> None:
    """See that artifacts lie where this server puts them: it reads and writes them as its owner.

    Raises:
        BadInput: a request names another place.
    """
    if not isinstance(content, dict):
        return
    if path.endswith("/experiments/create"):
        if content.get("artifact_location") or content.get("artifactLocation"):
            raise BadInput("artifact_location: all artifacts lie in the server's own folder; create it without one")
    elif path.endswith("/model-versions/create") and not SOURCE.fullmatch(str(content.get("source", ""))):
        raise BadInput(
            "source: a model version is made of what this server has: runs:/RUN_ID/PATH, models:/MODEL_ID or "
            "mlflow-artifacts:/PATH"
        )
