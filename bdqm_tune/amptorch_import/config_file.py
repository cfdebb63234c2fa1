"""Configuration files of amptorch's nested dict: JSON, YAML, or a Python literal as in a script."""

import ast
import json
from pathlib import Path
from typing import Any

from bdqm_tune.config.yaml_files import parse_yaml
from bdqm_tune.errors import BadInput, one_line


def read_config(path: str | Path) -> dict[str, Any]:
    """The nested dict in a file. Dotted names in a Python literal, as torch.nn.Tanh, are read as text.

    Raises:
        BadInput: the file cannot be read, or holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not text; a checkpoint of amptorch is imported by its folder") from None
    content = _parsed(text, str(path))
    if not isinstance(content, dict):
        raise BadInput(f"{path}: must hold a dict with the groups model, optim, dataset, cmd")
    return content


def _parsed(text: str, path: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # Before YAML, which reads much of Python in its own way: None and 1e-3 are text to it.
    try:
        tree = _NamesAsText().visit(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        not_python = one_line(error)
    else:
        try:
            return ast.literal_eval(tree)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            _refuse_expressions(tree, path)
            not_python = one_line(error)
    try:
        return parse_yaml(text)
    except BadInput as error:
        why = str(error).removeprefix("not valid YAML: ")
        raise BadInput(f"{path}: neither JSON, nor YAML ({why}), nor a Python literal ({not_python})") from None


def _refuse_expressions(tree: ast.AST, path: str) -> None:
    """Raise BadInput for a dict of Python with a value that only Python can compute; YAML's keys have no quotes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
            for value in node.values:
                if isinstance(value, ast.Name | ast.Call | ast.BinOp | ast.ListComp):
                    raise BadInput(
                        f"{path}: line {value.lineno}: {ast.unparse(value)} must be written out as its value"
                    )


class _NamesAsText(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.copy_location(ast.Constant(ast.unparse(node)), node)
