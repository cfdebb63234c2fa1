"""What our MLflow server refuses: arguments that can be read in two ways, a URL with a password, and a place for
artifacts that is not its own."""

import json
import re
from typing import TYPE_CHECKING, Any

from bdqm_tune.errors import BadInput
from bdqm_tune.services.secrets import refuse_secrets

if TYPE_CHECKING:
    from flask import Response

# Where a model version may come from: a run, a logged model or another version, whose files this server keeps.
SOURCE = re.compile(r"(?:runs|models|mlflow-artifacts):/.+")
ARGUMENTS = re.compile("/(?:ajax-)?api/[^/]+/mlflow/.*")  # whose requests have arguments; others have files or queries
# Without any of these there is no password, neither written out nor escaped: no need to parse.
SUSPICIOUS = re.compile(rb"[@\\]|passw|passphrase|pwd|secret|token|credential", re.IGNORECASE)


def refuse() -> "Response | None":
    """Answer a request whose content is not to be recorded; others pass."""
    from flask import jsonify, make_response, request

    writes = request.method != "GET"
    try:
        if writes and SUSPICIOUS.search(request.get_data()):
            refuse_secrets({"request": _unpacked(_content())})
        if ARGUMENTS.fullmatch(request.path):
            _refuse_ambiguous()
        if writes:
            _refuse_locations(request.path, _content())
    except BadInput as error:
        return make_response(jsonify(error_code="INVALID_PARAMETER_VALUE", message=str(error)), 400)
    return None


def _refuse_ambiguous() -> None:
    """See that MLflow's handler finds the arguments that the check of rights has read.

    The one takes them from the query or the body, by the method and the type of the content, by one name; the other
    from the body whatever its type, by the names of protobuf's JSON too, which has `runId` for `run_id`.

    Raises:
        BadInput: they are in another place than where MLflow's clients put them, or under another name.
    """
    from flask import request

    data = request.get_data()
    if request.method == "GET":
        if data:
            raise BadInput("arguments of GET are in the query, with no body")
        return
    if request.args:
        raise BadInput(f"arguments of {request.method} are in the body, as JSON, with no query")
    if not data:
        return
    if request.mimetype != "application/json":
        raise BadInput(f"arguments of {request.method} are JSON: Content-Type is to be application/json")
    try:
        content = json.loads(data, object_pairs_hook=_plain_names)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"arguments of {request.method} are JSON, which this is not: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"arguments of {request.method} are one JSON object")


def _plain_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose names are in small letters, and there once."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names) or any(name != name.lower() for name in names):
        raise BadInput("each argument is there once, in small letters: run_id, not runId")
    return dict(pairs)


def _content() -> Any:
    """The request's JSON, or else its text."""
    from flask import request

    content = request.get_json(force=True, silent=True)
    return request.get_data(as_text=True) if content is None else content


def _unpacked(content: Any) -> Any:
    """The content, where texts that are JSON themselves are taken apart."""
    if isinstance(content, dict):
        return {name: _unpacked(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_unpacked(value) for value in content]
    if isinstance(content, str):
        try:
            return [content, _unpacked(json.loads(content))]
        except (ValueError, RecursionError):
            return content
    return content


def _refuse_locations(path: str, content: Any) -> None:
    """See that artifacts lie where this server puts them: it reads and writes them as its owner.

    Raises:
        BadInput: a request names another place.
    """
    if not isinstance(content, dict):
        return
    if path.endswith("/experiments/create"):
        if content.get("artifact_location"):
            raise BadInput("artifact_location: all artifacts lie in the server's own folder; create it without one")
    elif path.endswith("/model-versions/create") and not SOURCE.fullmatch(str(content.get("source", ""))):
        raise BadInput(
            "source: a model version is made of what this server has: runs:/RUN_ID/PATH, models:/MODEL_ID or "
            "mlflow-artifacts:/PATH"
        )
