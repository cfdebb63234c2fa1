"""The commands that bring work along from amptorch, and export it again. Heavy imports happen inside them."""

import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.cli.shared import Json, refuse_unless_new
from bdqm_tune.errors import BadInput, argument
from bdqm_tune.files import write_whole

if TYPE_CHECKING:
    from bdqm_tune.amptorch_import.record import Unsupported

IMPORT_EXAMPLE = "`bdqm-tune import-amptorch config.yaml`, `bdqm-tune import-amptorch checkpoints/2022-run`"
EXPORT_EXAMPLE = "`bdqm-tune export-amptorch config.yaml --out amptorch.json`"


def import_amptorch(
    path: Annotated[
        Path, typer.Argument(help="A configuration (JSON, YAML or a Python dict), or a checkpoint folder.")
    ],
    out: Annotated[
        str, typer.Option(metavar="PATH", help="Default: amptorch_import.yaml, or the folder amptorch_import.")
    ] = "",
    pseudodensities: Annotated[
        str, typer.Option(metavar="FOLDER", help="Of the .g files that a checkpoint was trained with.")
    ] = "",
    exact_forces: Annotated[
        bool, typer.Option("--exact-forces", help="A checkpoint's forces as its energy has them, small ones too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring an amptorch configuration or checkpoint along; amptorch need not be installed."""
    if path.is_dir():
        _import_checkpoint(path, Path(out or "amptorch_import"), pseudodensities or None, exact_forces, as_json)
    else:
        _import_config(path, Path(out or "amptorch_import.yaml"), as_json)


def export_amptorch(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Configuration file (YAML).")],
    out: Annotated[str, typer.Option(metavar="FILE", help="To write: .json or .yaml.")] = "amptorch_export.json",
    as_json: Json = False,
) -> None:
    """Write a configuration as amptorch's nested dict, with the names of classes in the place of classes."""
    import yaml

    from bdqm_tune.amptorch_import import export_config
    from bdqm_tune.config.config import load_config

    target = Path(out)
    if target.suffix not in (".json", ".yaml", ".yml"):
        raise BadInput(f"--out must end in .json or .yaml, got {out}")
    refuse_unless_new(target)
    exported, unsupported = export_config(load_config(config))
    if target.suffix == ".json":
        text = json.dumps(exported, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(exported, sort_keys=False, allow_unicode=True)
    _write(target, text)
    if as_json:
        print(json.dumps({"out": out, "unsupported": [entry._asdict() for entry in unsupported]}))
        return
    _print_unsupported(unsupported)
    print(f"{out}: the configuration for amptorch, whose AtomsTrainer wants classes in the place of their names")


def _import_checkpoint(
    path: Path, target: Path, pseudodensities: str | None, exact_forces: bool, as_json: bool
) -> None:
    from bdqm_tune.amptorch_import import load_amptorch_checkpoint

    refuse_unless_new(target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        potential = load_amptorch_checkpoint(path, pseudodensities, exact_forces)
    try:
        potential.save(target)
    except OSError as error:
        raise BadInput(f"{target}: cannot be written ({error.strerror})") from None
    remarks = [str(warning.message) for warning in caught]
    _print_warnings(remarks)
    if as_json:
        record = {"out": str(target), "n_parameters": potential.n_parameters, "warnings": remarks}
        print(json.dumps(record))
        return
    print(f"{target}: the model; `bdqm-tune predict {argument(str(target))} FILE` predicts with it")


def _import_config(path: Path, target: Path, as_json: bool) -> None:
    import yaml

    from bdqm_tune.amptorch_import import read_config, translate

    refuse_unless_new(target)
    content = read_config(path)
    try:
        translation = translate(content)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    _write(target, yaml.safe_dump(translation.options, sort_keys=False, allow_unicode=True))
    _print_warnings(translation.warnings)
    if as_json:
        unsupported = [entry._asdict() for entry in translation.unsupported]
        record = {"out": str(target), "mapped": dict(translation.mapped), "unsupported": unsupported}
        print(json.dumps({**record, "warnings": translation.warnings}))
        return
    for theirs, ours in translation.mapped:
        print(f"{theirs:<50}  {ours}")
    _print_unsupported(translation.unsupported)
    data = "" if "train" in translation.options.get("data", {}) else " --train FILE"
    print(f"{target}: the configuration; `bdqm-tune tune --config {shlex.quote(str(target))}{data}` runs it")


def _print_warnings(remarks: Sequence[str]) -> None:
    for remark in remarks:
        print(f"warning: {remark}", file=sys.stderr)


def _print_unsupported(entries: Sequence["Unsupported"]) -> None:
    for entry in entries:
        print(f"{entry.key:<50}  {'not needed' if entry.harmless else 'NOT SUPPORTED'}: {entry.why}")


def _write(target: Path, text: str) -> None:
    try:
        write_whole(target, text)
    except OSError as error:
        raise BadInput(f"{target}: cannot be written ({error.strerror})") from None
