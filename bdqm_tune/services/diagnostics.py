"""What `bdqm-tune doctor` finds: one check, and what to do about it."""

from dataclasses import dataclass

OK, FIXED, WARNING, ERROR = "ok", "fixed", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str  # what: packages, gpu, servers, …
    state: str  # ok; fixed: it was not; warning: it works, and could do better; error: somebody must do something
    message: str
    help: str = ""  # the command that helps
