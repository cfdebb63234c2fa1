"""What tests of bad input have in common: examples that are the same each time, and what a refusal is."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bdqm_tune.errors import BdqmError

LONGEST = 1500  # characters of a message: a line that lists what would be right can be long


def bounded(examples: int) -> Any:
    """Settings of hypothesis: so many examples, the same in every run, however slow the machine is."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.function_scoped_fixture,  # a folder that each example writes anew
        ],
    )


def is_one_line(message: str) -> bool:
    """Whether a message is what a user should see."""
    return 0 < len(message) <= LONGEST and len(message.splitlines()) == 1


def refused(call: Callable[[], Any], kind: type[BdqmError] = BdqmError) -> str:
    """The message with which a call is refused: one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert is_one_line(message), message[: 2 * LONGEST]
    return message


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut off somewhere, with some bytes changed, or with something put in."""
    kind = draw(st.sampled_from(["cut", "changed", "inserted"]))
    place = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:place]
    if kind == "inserted":
        return content[:place] + draw(st.binary(min_size=1, max_size=16)) + content[place:]
    changed = bytearray(content)
    for at in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=12)):
        # Digits and signs damage numbers and sizes, which other bytes leave no numbers.
        changed[at] = draw(st.integers(0, 255) | st.sampled_from(list(b"0123456789-.")))
    return bytes(changed)


# What a name from outside may be: each has broken some program.
NAMES = (
    "a'b",
    'a"b',
    "a`b",
    "a'; DROP TABLE studies; --",
    "a\\b",
    "a\\",
    "a/b",
    "../../escaped",
    "/escaped",
    "..",
    ".",
    "~",
    "$HOME",
    "$(touch escaped)",
    "`touch escaped`",
    "a; touch escaped",
    "a & touch escaped",
    "a | touch escaped",
    "a > escaped",
    "*",
    "a b  c",
    "-rf",
    "--help",
    "%s%s%s%n",
    "{}{0}{name}",
    "{{name}}",
    "a%2Fb%00",
    "_hidden",
    "$x$",
    "$\\frac{",
    "a$b",
    "<script>alert(1)</script>",
    "&lt;a&amp;",
    "[red]a[/red]",
    "[/]",
    "é ü 漢字",
    "🧪" * 5,
    "a=b,c:d@e",
    "null",
    "1e5",
    "x" * 200,
    "é" * 200,
)
