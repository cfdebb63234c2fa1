"""What several commands of the command line have in common."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bdqm_tune.errors import BadInput

if TYPE_CHECKING:
    from bdqm_tune.services.connection import Stores

StudyName = Annotated[str, typer.Option("--study", metavar="NAME", help="Name of the study.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Number = TypeVar("Number", int, float)


def stores_here() -> "Stores":
    """Where to read and write; what the user should know about it goes to standard error."""
    from bdqm_tune.services.connection import find_stores

    stores = find_stores()
    for note in stores.notes:
        print(f"warning: {note}", file=sys.stderr, flush=True)
    return stores


def print_record(record: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values, one a line or as JSON."""
    if as_json:
        print(json.dumps(record))
        return
    width = max(len(key) for key in record)
    for key, value in record.items():
        print(f"{key:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")


def number(option: str, text: str, kind: type[Number], default: Number) -> Number:
    """The number that an option gives, or its default where it is empty."""
    try:
        return kind(text) if text else default
    except ValueError:
        raise BadInput(f"{option} must be a number, as {default}; got {text!r}") from None
