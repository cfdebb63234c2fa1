"""Passwords, kept out of what others may read: MLflow's parameters, tags and artifacts, and messages."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

from bdqm_tune.errors import BadInput, BdqmError

# user:password@ of a URL. To the last @, as a password that should have been encoded may have one.
URL_PASSWORD = re.compile(r"(?<=://)([^\s/:'\"]*):[^\s'\"]+@")
# host:PORT where PORT is none: a URL that lacks its end, or whose password has a / before it.
NO_PORT = re.compile(r"(?<=://)([^\s/:'\"\[]+):(?!\*\*\*@)(?!\d*(?:[^\w%]|$))[^\s'\"]+")
# ?password=… of a URL, and what comes after it, as a password that should have been encoded may have an &.
QUERY_PASSWORD = re.compile(
    r"([?&][\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential)[\w.-]*)=(?!\*\*\*)[^\s'\"]+", re.IGNORECASE
)
SHORTEST = 5  # characters of a password that is searched for without its URL; shorter ones are in too many words
URLS = ("BDQM_STORAGE", "BDQM_MYSQL_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI")
PASSWORDS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_AUTH_ADMIN_PASSWORD")
ENCODE = "in a password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, & as %26 and % as %25"


class Addresses(Protocol):
    """What may hold passwords: `services.connection.Stores`, which needs this module itself."""

    @property
    def storage_url(self) -> str: ...

    @property
    def tracking_uri(self) -> str | None: ...

    @property
    def tracking_environment(self) -> Mapping[str, str]: ...


def without_secrets(text: str, stores: Addresses | None = None) -> str:
    """The text without the passwords of URLs, and without those that the environment and `stores` have."""
    known = _known(stores)
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, known[secret])
    text = QUERY_PASSWORD.sub(r"\1=***", text)  # first, as it may have an @
    return NO_PORT.sub(r"\1:***", URL_PASSWORD.sub(r"\1:***@", text))


def has_secret(text: str) -> bool:
    """Whether a URL with a password is in the text; one whose password was taken out, as above, is none."""
    found = (not found[0].endswith(":***@") for found in URL_PASSWORD.finditer(text))
    return any(found) or QUERY_PASSWORD.search(text) is not None


def check_address(name: str, url: str) -> None:
    """See that a URL's password is written so that its end is clear.

    Args:
        name: of the variable that has it.

    Raises:
        BadInput: it is not; the message does not repeat it.
    """
    before, secret = _at_secret(url)
    scheme, _, rest = before.partition("://")
    user, colon, after = rest.partition(":")
    of_user = after if colon and "/" not in user else ""
    clear = of_user.count("@") == 1 or ("@" not in of_user and NO_PORT.search(before) is None)
    if scheme.startswith("http") and "@" in of_user:  # libraries for databases take more
        clear &= re.search(r"[][/?#\s]", of_user.partition("@")[0]) is None
    if secret:
        clear &= "@" not in secret and all("=" in part for part in secret.split("&"))
    if not clear:
        raise BadInput(f"{name}: it is unclear where the password in this URL ends; {ENCODE}")


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


def _at_secret(url: str) -> tuple[str, str]:
    """A URL divided where its query has a password: what comes before it, and NAME=PASSWORD with all that follows."""
    found = QUERY_PASSWORD.search(url)
    return (url, "") if found is None else (url[: found.start()], url[found.start() + 1 :])


def _known(stores: Addresses | None) -> dict[str, str]:
    """What passwords in the environment and in the addresses of `stores` look like, and what is shown in its place."""
    urls = [os.environ.get(name, "") for name in URLS]
    alone = [os.environ.get(name, "") for name in PASSWORDS]
    try:
        if stores is not None:
            alone.append(stores.tracking_environment.get("MLFLOW_TRACKING_PASSWORD", ""))
            urls += [stores.storage_url, stores.tracking_uri or ""]
    except BdqmError:  # the servers are down
        pass
    known = {}
    for url in urls:
        before, secret = _at_secret(url)
        if secret:
            value = secret.partition("=")[2]
            known[f"={value}"] = "=***"
            alone += [value, *re.split(r"[&#@]", value)]
        user, colon, after = (before.partition("://")[2] or before).partition(":")
        password, at, _ = after.rpartition("@")
        if not at and NO_PORT.search(before):
            password = after
        if colon and password and "/" not in user:
            known[f":{password}@"] = ":***@"
            # It, and what is left of it where a library ended it too early.
            alone += [password, *re.split(r"[][@/:?#&=\s]", password)]
    forms = {form for one in alone for form in (one, unquote(one)) if len(form) >= SHORTEST}
    known |= dict.fromkeys(forms, "***")
    # Python and JSON write quotes within quotes with a \\ before them.
    return known | {secret.replace(quote, f"\\{quote}"): shown for secret, shown in known.items() for quote in "'\""}
