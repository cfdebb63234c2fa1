"""YAML as plain values: nothing in it is run, nothing is dropped, and a small file stays small in memory."""

from typing import Any

import yaml

from bdqm_tune.errors import BadInput, one_line, shown

MOST_VALUES = 100_000  # in a file, those that aliases repeat counted each time
DEEPEST = 50  # lists and mappings within each other
LARGEST_INTEGER = 2**63


class _Loader(yaml.SafeLoader):
    def construct_integer(self, node: yaml.ScalarNode) -> int:
        value = int(self.construct_yaml_int(node))
        if abs(value) >= LARGEST_INTEGER:
            raise ValueError(
                f"a number of {len(node.value)} characters in line {node.start_mark.line + 1} is too large"
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def parse_yaml(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        BadInput: it is none, gives a key twice, is nested too deeply, or its aliases come to too many values.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _extent(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    # A text that is not what its tag says, `!!timestamp x`, or a date that is none, fails in many ways.
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"not valid YAML: {one_line(error)}") from None
    except RecursionError:
        raise BadInput(f"not valid YAML: nested more than {DEEPEST} deep") from None


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """How many values a node comes to, and how deep they are nested.

    Args:
        known: the same of nodes that were looked at, by their `id`; (0, 0) while one is.

    Raises:
        BadInput: a key is there twice, a node is in itself, or there is too much of it.
    """
    line = node.start_mark.line + 1
    if id(node) in known:
        if known[id(node)] == (0, 0):
            raise BadInput(f"not valid YAML: what begins in line {line} contains itself")
        return known[id(node)]
    known[id(node)] = 0, 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated(node)
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    # Aliases nest as well, without being nested in the text.
    parts = [_extent(child, known, depth + 1) for child in children] if depth < DEEPEST else [(0, DEEPEST)]
    size, height = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
    if size > MOST_VALUES:
        raise BadInput(f"not valid YAML: what begins in line {line} comes to more than {MOST_VALUES} values")
    if height > DEEPEST:
        raise BadInput(f"not valid YAML: what begins in line {line} is nested more than {DEEPEST} deep")
    known[id(node)] = size, height
    return size, height


def _refuse_repeated(node: yaml.MappingNode) -> None:
    """Raise BadInput for a key that is there twice, of which YAML would take the last."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                raise BadInput(f"not valid YAML: {shown(key.value)} is given in line {first} and again in line {line}")
            lines[key.tag, key.value] = line
