"""What a served model is sent: energies, or soon an answer with status 400 that names the record."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from bdqm_tune.models.serving import ServedModel, read_records
from tests.fuzzing import bounded, is_one_line, refused
from tests.learning.test_potential import random_potential

ONE = {"positions": [[0, 0, 0]]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"numbers": [10**30], **ONE}, "numbers must be whole numbers"),
        ({"numbers": [1.5], **ONE}, "numbers must be whole numbers, got [1.5]"),
        ({"numbers": ["1"], **ONE}, "numbers must be whole numbers"),
        ({"numbers": [True], **ONE}, "numbers must be whole numbers"),
        ({"numbers": [1], **ONE, "cell": [5, 5, 5], "pbc": "yes"}, "pbc must be true or false, got 'yes'"),
        ({"numbers": [1], **ONE, "cell": [5, 5, 5], "pbc": 1}, "pbc must be true or false"),
        ({"symbols": "H999999999", **ONE}, "'H999999999' for 1 positions"),
        ({"symbols": "((H9999)9999)9999", **ONE}, "for 1 positions"),
        ({"extxyz": "999999999999\n\nH 0 0 0"}, "has 999999999999 atoms by line 1, and 1 lines for them"),
        ({"extxyz": "1\nProperties=species:S:1:pos:R:3:a:R:99999999\nH 0 0 0"}, "more than 1000 columns"),
        ({"extxyz": "/etc/passwd"}, "extxyz: ASE cannot read it"),
        ({"numbers": [1], "positions": {"a": 1}}, "is not a structure"),
    ],
)
def test_what_says_too_much_of_itself_is_refused(record: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: read_records([record]))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=8,
)
numbers = st.lists(st.sampled_from([1, 8, 29, 0, -1, 119, 10**9]), max_size=3)
vectors = st.lists(
    st.lists(st.floats(-3, 3) | st.sampled_from([1e308, -1e308, float("inf"), 1e-300]), min_size=3, max_size=3),
    max_size=3,
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A structure, or nearly one."""
    record: dict[str, Any] = {"numbers": draw(numbers), "positions": draw(vectors)}
    if draw(st.booleans()):
        record |= {"cell": draw(vectors), "pbc": draw(st.lists(st.booleans(), max_size=4))}
    for name in draw(
        st.lists(st.sampled_from(["numbers", "positions", "cell", "pbc", "symbols", "extxyz"]), max_size=2)
    ):
        record[name] = draw(plain)
    return record


def test_any_record_has_an_answer() -> None:
    model, answers = ServedModel(random_potential()), set()

    @given(record=records())
    @example(record={"numbers": [1], **ONE})
    @bounded(120)
    def check(record: dict[str, Any]) -> None:
        try:
            found = model.predict(pd.DataFrame([record]), {"forces": False})
        except MlflowException as error:
            message = str(error)
            assert error.get_http_status_code() == 400, message  # noqa: PT017
        else:
            message = "answered"
            assert all(np.isfinite(one["energy"]) for one in found)
        answers.add(message[:8])
        assert is_one_line(message)

    check()
    assert "answered" in answers
    assert len(answers) > 1
