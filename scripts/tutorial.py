"""Run docs/tutorial.ipynb from beginning to end, and make the page docs/tutorial.md and its figures of it.

python scripts/tutorial.py           # after a change of text or code: run all of it, some minutes
python scripts/tutorial.py --page    # only the page, of what the notebook holds
"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
COLORS = 64  # of a figure; few are enough, and keep it small
CELL_SECONDS = 1800  # at most for one cell


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with the outputs of its cells, run in a folder, on no servers.

    Raises:
        CellExecutionError: a cell failed; the message has its traceback.
    """
    ran = nbformat.from_dict(notebook)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(ran, timeout=CELL_SECONDS, record_timing=False, resources=resources)
    others = {key: value for key, value in os.environ.items() if not key.startswith(("BDQM_", "MLFLOW_"))}
    own = {"BDQM_SERVICES": str(folder / "no-servers"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    client.execute(env=others | own)
    return ran


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The same with nothing in it that belongs to a machine or makes it large: no messages, small figures."""
    tidy = nbformat.from_dict(notebook)
    for cell in tidy.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata = {}
        cell.outputs = _joined([one for one in cell.outputs if one.get("name") != "stderr"])
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop("text/html", None)  # the tables are in the text as well
            if "image/png" in data:
                data.pop("text/plain", None)
                data["image/png"] = _small(data["image/png"])
    tidy.metadata.get("language_info", {}).pop("version", None)
    return tidy


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs with printed text in one, which a slow machine sends in several."""
    found: list[NotebookNode] = []
    for one in outputs:
        if found and one.get("name") == found[-1].get("name") == "stdout":
            found[-1]["text"] += one["text"]
        else:
            found.append(one)
    return found


def _small(picture: str) -> str:
    """A PNG, as base64, in few colours; one that is small already stays as it is."""
    image, written = Image.open(io.BytesIO(base64.b64decode(picture))), io.BytesIO()
    if image.mode == "P":
        return picture
    image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(written, format="PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def page(notebook: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and the figures by their paths beside it.

    Args:
        name: of the page, without suffix; its figures lie in the folder NAME_files.
    """
    config = Config()
    config.NbConvertBase.display_data_priority = ["image/png", "text/markdown", "text/plain"]
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, made = MarkdownExporter(config=config).from_notebook_node(notebook, resources)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # every second one is a frame of code
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    return "".join(parts).strip() + "\n", {path: bytes(content) for path, content in made["outputs"].items()}


def write_page(notebook: NotebookNode, source: Path) -> None:
    """Write the page and its figures beside the notebook; figures of before are removed."""
    text, figures = page(notebook, source.stem)
    for old in source.parent.glob(f"{source.stem}_files/*.png"):
        old.unlink()
    for path, content in figures.items():
        (source.parent / path).parent.mkdir(exist_ok=True)
        (source.parent / path).write_bytes(content)
    source.with_suffix(".md").write_text(text, encoding="utf-8")


def main(only_page: bool) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if not only_page:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            notebook = tidied(execute(notebook, Path(folder)))
        nbformat.write(notebook, NOTEBOOK)
    write_page(notebook, NOTEBOOK)


if __name__ == "__main__":
    main("--page" in sys.argv[1:])
