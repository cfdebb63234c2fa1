"""From a report as plain data to its two forms: one page that needs nothing else, and Markdown beside its figures."""

import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from bdqm_tune.analysis.reporting.document import Document

SCALE = 0.62  # of a figure's dots to the page's pixels: the text of both is about as large
FIGURES = "figures"  # folder beside the Markdown file


def html(document: Document, folder: Path) -> str:
    """The page: style and figures are in it, and no script.

    Args:
        folder: where the figures are, NAME.png.
    """
    template = _environment(None).get_template("report.html.j2")
    return template.render(report=document, images={one.name: _image(folder, one.name) for one in document.pictures})


def markdown(document: Document) -> str:
    """The Markdown file; its figures are in `FIGURES` beside it."""
    text = _environment(escaped).get_template("report.md.j2").render(report=document, figures=FIGURES)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def escaped(value: Any) -> Any:
    """A text of whatever letters, so that Markdown shows it as it is; what is Markdown already is left alone."""
    if hasattr(value, "__html__"):
        return value
    text = re.sub(r"\s+", " ", str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    # What makes a heading, a list or a rule at the beginning of a line.
    text = re.sub(r"^(#|[-+](?=\s)|[-=]+$)|^(\d+)(?=[.)](\s|$))", lambda m: _kept(*m.group(1, 2)), text)
    return Markup(text)  # nosec B704  # escaped by the lines above


def _kept(sign: str | None, digits: str | None) -> str:
    return f"{digits}\\" if digits else f"\\{sign}"


def code_block(lines: str) -> Markup:
    """Lines as a block of code: nothing in it means anything to Markdown."""
    fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", lines)), default=0))
    return Markup(f"{fence}\n{lines}\n{fence}")  # nosec B704  # of Markdown, within its fence


def _environment(finalize: Any) -> Environment:
    environment = Environment(
        loader=PackageLoader("bdqm_tune.analysis.reporting"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code_block"] = code_block
    return environment


def _image(folder: Path, name: str) -> Mapping[str, Any]:
    """A PNG file as the address that a page can hold, and the size at which it is shown, in pixels."""
    file = folder / f"{name}.png"
    with Image.open(file) as image:
        width, height = image.size
    data = b64encode(file.read_bytes()).decode("ascii")
    return {"src": f"data:image/png;base64,{data}", "width": round(SCALE * width), "height": round(SCALE * height)}
