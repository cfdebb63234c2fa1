"""YAML as plain values: nothing in it is run, and nothing is dropped."""

from typing import Any

import yaml

from bdqm_tune.errors import BadInput, one_line, shown


class _Loader(yaml.SafeLoader):
    """YAML's own, which would take the last value of a key that is given twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        _refuse_repeated(node)  # before the keys of `<<` come in, which may be there already
        super().flatten_mapping(node)


def parse_yaml(text: str) -> Any:
    """The content of a YAML document. Raises BadInput if it is none, or gives a key twice."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    # A text that is not what its tag says, `!!timestamp x`, or a date that is none, fails in many ways.
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"not valid YAML: {one_line(error)}") from None
    except RecursionError:
        raise BadInput("not valid YAML: nested too deeply") from None


def _refuse_repeated(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                raise BadInput(f"not valid YAML: {shown(key.value)} is given in line {first} and again in line {line}")
            lines[key.tag, key.value] = line
