"""YAML from anybody: plain values, or one line that says what is wrong."""

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.yaml_files import parse_yaml
from bdqm_tune.errors import BadInput
from tests.fuzzing import bounded, is_one_line, refused

NINE = ",".join(9 * ["*{}"])
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{NINE.format(*9 * before)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, f"search:\n  lr: *i\n{BOMB}", "search:\n" + "".join(f"  {line}\n" for line in BOMB.splitlines())],
    ids=["in the open", "before it is defined", "as the value of an option"],
)
def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    began = time.process_time()
    message = refused(lambda: load_config(tmp_path / "config.yaml"))
    assert "config.yaml: " in message
    assert time.process_time() - began < 5


def test_aliases_are_otherwise_what_they_are_in_yaml() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    "text",
    [
        "data: &a\n  train: *a\n",
        "&a [*a]\n",
        "search: &a {lr: [*a]}\n",
        "study: {seed: 99999999999999999999}\n",
        f"study: {{seed: 0x{5000 * 'f'}}}\n",
    ],
    ids=["an option in itself", "a list in itself", "a range in itself", "a large number", "a very large one"],
)
def test_values_that_no_option_has_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    refused(lambda: load_config(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("study: {name: a}\nstudy: {name: b}\n", "'study' is given in line 1 and again in line 2"),
        ("study:\n  name: a\n  seed: 1\n  name: b\n", "'name' is given in line 2 and again in line 4"),
        ("search: {lr: 1.0e-3, lr: 1.0e-2}\n", "'lr' is given in line 1 and again in line 1"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert where in refused(lambda: load_config(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    "text", ["[" * 2000 + "]" * 2000, "{a: " * 2000 + "1" + "}" * 2000, "[" * 2000], ids=["lists", "mappings", "open"]
)
def test_what_is_nested_too_deeply_is_refused(text: str) -> None:
    assert "nested too deeply" in refused(lambda: parse_yaml(text))


@pytest.mark.parametrize(
    "text",
    [
        "seed: " + "1" * 5000,
        "day: 2020-13-45",
        "day: 2001-99-14t21:59:43.10-05:00",
        "day: !!timestamp x",
        "flag: !!bool perhaps",
        "number: !!int ''",
        "number: !!float x",
        "number: !!binary a",
        "<<: 3",
        "? [a]\n: 1",
        "? {a: b}\n: 1",
        "run: !!python/object/apply:os.system [true]",
        "run: !!python/name:os.system",
        "a: 1\n---\nb: 2",
        "a: 'x\0y'",
        "a: *nowhere",
    ],
)
def test_what_is_no_plain_value_is_refused(text: str) -> None:
    assert refused(lambda: parse_yaml(text)).startswith("not valid YAML: ")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"study: {name: \x80}", b"\xef\xbb\xbfstudy: {name: a}\xff"])
def test_what_is_no_utf8_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    assert "config.yaml: not valid YAML" in refused(lambda: load_config(tmp_path / "config.yaml"))


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats()
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(value=plain_values)
@bounded(60)
def test_plain_values_are_read_as_yaml_means_them(value: Any) -> None:
    try:
        text = yaml.safe_dump(value)
    except UnicodeEncodeError:  # surrogates among the keys
        return
    assert repr(parse_yaml(text)) == repr(yaml.safe_load(text))


def _options(config: type) -> st.SearchStrategy[dict[str, Any]]:
    names = sorted(config.model_fields)  # type: ignore[attr-defined]
    return st.dictionaries(st.sampled_from(names) | st.text(max_size=5), plain_values, max_size=3)


@given(content=st.dictionaries(st.sampled_from(sorted(Config.model_fields)), plain_values, max_size=3), data=st.data())
@bounded(80)
def test_a_configuration_of_any_values_is_one_or_is_refused(content: dict[str, Any], data: st.DataObject) -> None:
    for group in content:
        annotation = Config.model_fields[group].annotation
        if hasattr(annotation, "model_fields") and data.draw(st.booleans()):
            content[group] = data.draw(_options(annotation))  # type: ignore[arg-type]
    try:
        text = yaml.safe_dump(content)
    except UnicodeEncodeError:
        return
    try:
        config = _load(text)
    except BadInput as error:
        message = str(error)
    else:
        message = "valid"
        assert Config(**config.model_dump()).model_dump() == config.model_dump()
    assert is_one_line(message)


def _load(text: str) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path)
