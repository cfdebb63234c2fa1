"""Passwords, kept out of what others may read: MLflow's parameters, tags and artifacts, and messages."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.connection import Stores

# user:password@ of a URL. To the last @, as a password that should have been encoded may have one.
URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@'\"]*):[^\s'\"]+@")
SHORTEST = 5  # characters of a password that is looked for without its URL; shorter ones are in too many words


def without_secrets(text: str, stores: Stores | None = None) -> str:
    """The text without the passwords of URLs, and without those by which `stores` are reached."""
    for password in sorted(_passwords(stores) if stores else (), key=len, reverse=True):
        text = text.replace(password, "***")
    return URL_PASSWORD.sub(r"\1:***@", text)


def has_secret(text: str) -> bool:
    """Whether a URL with a password is in the text; one whose password was taken out, as above, is none."""
    return any(not found[0].endswith(":***@") for found in URL_PASSWORD.finditer(text))


def refuse_secrets(options: Mapping[str, Any]) -> None:
    """See that no option, in whatever group, has a URL with a password, as MLflow would record it.

    Raises:
        BadInput: one has; the message names it and does not repeat it.
    """
    for name, value in _flat(options):
        if has_secret(f"{name} {value}"):
            raise BadInput(
                f"{without_secrets(name)}: holds a URL with a password, which MLflow would record for all to read; "
                "what is secret goes into BDQM_STORAGE and MLFLOW_TRACKING_PASSWORD, not into options"
            )


def _flat(options: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _flat(value, name)
    else:
        yield name, options


def _passwords(stores: Stores) -> set[str]:
    found = {os.environ.get("MLFLOW_TRACKING_PASSWORD", "")}
    try:
        found.add(stores.tracking_environment.get("MLFLOW_TRACKING_PASSWORD", ""))
        for url in (stores.storage_url, stores.tracking_uri or ""):
            password = urlsplit(url).password or ""
            found |= {password, unquote(password)}
    except (BdqmError, ValueError):  # the servers are down, or what is given is no URL
        pass
    return {password for password in found if len(password) >= SHORTEST}
