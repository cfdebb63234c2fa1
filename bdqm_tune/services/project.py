"""The folder that jobs are submitted from: `MLproject` and `jobs/`, laid there from what travels with the package."""

import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bdqm_tune.errors import BadInput

SITE = "jobs/site.toml"
NAMES = ("MLproject", "jobs")


@dataclass(frozen=True)
class Laid:
    """What became of the files of a project, by their names in its folder."""

    written: list[str]
    same: list[str]
    kept: list[str]  # that were there, and differ


def find_project() -> Path:
    """The project's folder: this one, or the checkout that the package lies in.

    Raises:
        BadInput: neither is one.
    """
    for folder in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (folder / "MLproject").exists() and (folder / "jobs").is_dir():
            return folder
    raise BadInput(f"{Path.cwd()} has no MLproject and no jobs/; `bdqm-tune init` puts them there")


def lay_project(folder: Path, replace: bool = False) -> Laid:
    """Lay MLproject and the job scripts into a folder.

    Args:
        replace: write files that are there and differ again; never `jobs/site.toml`, which is the user's.

    Raises:
        BadInput: the folder cannot be made or written to.
    """
    laid = Laid([], [], [])
    try:
        for name, text in project_files().items():
            path = folder / name
            if path.exists() and path.read_text(encoding="utf-8") == text:
                laid.same.append(name)
            elif path.exists() and (name == SITE or not replace):
                laid.kept.append(name)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                laid.written.append(name)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot write the project's files to {folder}: {error}") from None
    return laid


def project_files() -> dict[str, str]:
    """The texts of a project's files by their names, for the environment that this process runs in."""
    source = files("bdqm_tune.project")
    texts = {"MLproject": (source / "MLproject").read_text(encoding="utf-8")}
    for script in sorted((source / "jobs").iterdir(), key=lambda script: script.name):
        texts[f"jobs/{script.name}"] = script.read_text(encoding="utf-8")
    # MLflow builds an environment of the repository's own from this file; here the package is installed already.
    texts["MLproject"] = re.sub(r"^python_env:.*\n\n?", "", texts["MLproject"], flags=re.MULTILINE)
    environment = f'environment = "{sys.prefix}"'
    texts[SITE] = re.sub(r'^environment = "\.venv"', lambda _: environment, texts[SITE], flags=re.MULTILINE)
    return texts
