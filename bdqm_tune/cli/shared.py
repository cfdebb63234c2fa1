"""What several commands of the command line have in common."""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bdqm_tune.errors import BadInput

if TYPE_CHECKING:
    from bdqm_tune.services.connection import Stores

StudyName = Annotated[str, typer.Option("--study", metavar="NAME", help="Name of the study.")]
PickedTrial = Annotated[
    str,
    typer.Option("--trial", metavar="N", help="This trial; with several objectives, one of the Pareto front."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Out = Annotated[
    str,
    typer.Option(
        metavar="FOLDER", help="Also write tables and figures; into `figures/`, to a folder of the study's own there."
    ),
]
Train = Annotated[str, typer.Option(metavar="FILE", help="The training file, if it has moved since.")]
AllowUnknown = Annotated[
    bool,
    typer.Option(
        "--allow-unknown-elements", help="Predict elements that the model was not trained on, with a warning."
    ),
]
Number = TypeVar("Number", int, float)


def stores_here(wait: bool = True) -> "Stores":
    """Where to read and write; what the user should know is printed.

    Args:
        wait: for servers that are not up.
    """
    from bdqm_tune.services.connection import find_stores

    stores = find_stores(wait=wait)
    for note in stores.notes:
        print(f"warning: {note}", file=sys.stderr, flush=True)
    return stores


@contextmanager
def unknown_elements_shown() -> Iterator[None]:
    """Print warnings of elements that a model was not trained on as other warnings of a command, each once."""
    from bdqm_tune.learning.known_elements import UnknownElement

    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UnknownElement):
                print(f"warning: {message}", file=sys.stderr, flush=True)
            else:
                others(message, category, *where, **more)

        warnings.simplefilter("once", UnknownElement)
        warnings.showwarning = show
        yield


def files_folder(name: str, out: str) -> Path | None:
    """Where `--out` puts a study's files; None if it is not given. Raises BadInput if nothing can be written there."""
    if not out:
        return None
    from bdqm_tune.analysis.folders import output_folder

    return output_folder(name, out)


def print_record(record: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values, one a line or as JSON."""
    if as_json:
        print(json.dumps(record))
        return
    width = max(len(key) for key in record)
    for key, value in record.items():
        print(f"{key:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")


def number(option: str, text: str, kind: type[Number], default: Number) -> Number:
    """The number that an option gives, or its default where it is empty."""
    try:
        return kind(text) if text else default
    except ValueError:
        raise BadInput(f"{option} must be a number, as {default}; got {text!r}") from None


def trial_number(text: str) -> int | None:
    """The number of a trial that an option gives; None where it is empty."""
    if text and not text.isdecimal():
        raise BadInput(f"--trial must be the number of a trial, as 7; got {text!r}")
    return int(text) if text else None


# Where each parameter of `tune` is in the configuration: group ("": the top level) and option.
PLACES = {
    "train": ("data", "train"),
    "test": ("data", "test"),
    "validation": ("data", "validation_file"),
    "study": ("study", "name"),
    "n_trials": ("study", "n_trials"),
    "objectives": ("study", "objectives"),
    "sampler": ("study", "sampler"),
    "pruner": ("study", "pruner"),
    "seed": ("study", "seed"),
    "epochs": ("training", "epochs"),
    "backend": ("", "backend"),
    "device": ("", "device"),
    "cohort": ("", "cohort"),
    "patience": ("", "patience"),
}

SETTABLE = ("data", "target", "training")  # groups whose options `--set` takes as well, as target.scaling
VALIDATION = "data.validation."  # those of a group within a group


def tune_overrides(parameters: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Parameters of `tune` as options over the configuration file, which `config` names; empty ones are not given.

    Raises:
        BadInput: one is not known, or `set` is not what it should be.
    """
    unknown = parameters.keys() - {*PLACES, "set", "config"}
    if unknown:
        known = ", ".join(name.replace("_", "-") for name in (*PLACES, "set", "config"))
        raise BadInput(f"no option --{sorted(unknown)[0].replace('_', '-')}; `tune` has: {known}")
    overrides: dict[str, dict[str, Any]] = {"search": {}}
    validation: dict[str, str] = {}
    for name, value in assignments(parameters.get("set", "")).items():
        group, dot, option = name.partition(".")
        if name.startswith(VALIDATION):
            validation[name.removeprefix(VALIDATION)] = value
            continue
        place = (group, option) if dot and group in SETTABLE else ("" if name == "search" else "search", name)
        overrides.setdefault(place[0], {})[place[1]] = value
    if validation:
        overrides.setdefault("data", {}).setdefault("validation", validation)
    for name, (group, option) in PLACES.items():
        if parameters.get(name):
            overrides.setdefault(group, {})[option] = parameters[name]
    return overrides


def assignments(text: str) -> dict[str, str]:
    """`lr=1e-3,activation=tanh` as a dictionary."""
    pairs = [part.partition("=") for part in _parts(text) if part.strip()]
    for name, equals, value in pairs:
        if not (name.strip() and equals and value.strip()):
            raise BadInput(
                f"--set takes NAME=VALUE pairs separated by commas, as lr=1e-3,activation=tanh; got {text!r}"
            )
    names = [name.strip() for name, _, _ in pairs]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BadInput(f"--set gives {twice[0]} {names.count(twice[0])} times")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _parts(text: str) -> list[str]:
    """The parts between the commas, but for commas within brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def refuse_unless_new(target: Path) -> None:
    """Raise BadInput if something is there already, so that a command overwrites nothing."""
    if target.exists():
        raise BadInput(f"{target} exists; choose another place with --out")
