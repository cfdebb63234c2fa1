"""The command line with what is not for it: one line and exit status 2, and nothing is made."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdqm_tune.cli.shared import assignments, tune_overrides
from bdqm_tune.config.config import load_config
from bdqm_tune.errors import BadInput, printable, shown
from tests.commands import Call
from tests.fuzzing import NAMES, bounded, is_one_line
from tests.learning.test_potential import random_potential

MISSING = ("a\nb.traj", "a\x1b[2Jb.traj", "é 🧪\u2028.traj", "\udcff.traj", "x" * 300, "a" * 5000, "", " ")


def is_refused(answer: tuple[int, str, str]) -> bool:
    code, out, err = answer
    assert (code, out) == (2, ""), (code, out, err)
    assert err.endswith("\n")
    assert is_one_line(err.removesuffix("\n")) or len(err) > 4000  # a name of thousands of characters is shown whole
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    return True


@pytest.mark.parametrize("name", MISSING[:-2])
def test_a_file_that_is_not_there(call: Call, name: str) -> None:
    for arguments in (
        ["prepare", "--train", name],
        ["tune", "--train", name, "--study", "s"],
        ["tune", "--config", name],
    ):
        assert is_refused(call(*arguments))
    assert is_refused(call("predict", name, name))
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("--help", "~", ".", "..")])
def test_names_of_what_is_not_there(call: Call, name: str) -> None:
    assert is_refused(call("status", "--", name))
    assert is_refused(call("delete-study", "--yes", "--", name))
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "lr"],
        ["--set", "=3"],
        ["--set", "lr=1e-3,lr"],
        ["--set", "lr=1e999"],
        ["--set", "lr=nan"],
        ["--set", "num_layers=99999999999999999999"],
        ["--set", "num_layers=" + "9" * 5000],
        ["--set", "descriptor.sigmas=[" + "[" * 200],
        ["--set", "descriptor.sigmas=[1e999]"],
        ["--set", "descriptor.groups={&a a: *a}"],
        ["--set", "__class__=1"],
        ["--set", "nosuch='; DROP TABLE studies; --"],
        ["--epochs", "9" * 30],
        ["--seed", "-1"],
        ["--n-trials", "1e400"],
        ["--patience", "inf"],
        ["--patience", "1e300"],
        ["--device", "cuda:99999999999999999999"],
        ["--study", "a\nb"],
        ["--study", " a"],
        ["--study", "x" * 300],
        ["--study", "\x1b[31mred"],
    ],
)
def test_options_that_cannot_be(call: Call, arguments: list[str]) -> None:
    assert is_refused(call("tune", *arguments))
    assert not list(Path().iterdir())


def test_a_place_that_cannot_be_written(call: Call) -> None:
    random_potential().save(Path("model"))
    Path("water.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.8\n")
    for out in ("model", "nowhere/out.xyz"):
        assert is_refused(call("predict", "model", "water.xyz", "--out", out))
    assert {path.name for path in Path().iterdir()} == {"model", "water.xyz"}


@given(
    text=st.text(max_size=40)
    | st.lists(st.sampled_from(["lr", "=", "1e-3", ",", "[", "]", "{", " ", "'"])).map("".join)
)
@bounded(150)
def test_what_is_set_is_pairs_or_is_refused(text: str) -> None:
    try:
        found = assignments(text)
        load_config(None, tune_overrides({"set": text}))
    except BadInput as error:
        assert is_one_line(printable(str(error)))  # noqa: PT017
    else:
        assert all(name and value for name, value in found.items())


@given(
    value=st.recursive(
        st.text() | st.integers() | st.binary(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
@bounded(80)
def test_what_is_shown_is_short(value: object) -> None:
    assert is_one_line(printable(shown(value)))
    assert len(shown(value)) <= 301
