"""The commands that bring potentials of n2p2 along, and write them. Heavy imports happen inside them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bdqm_tune.cli.shared import Json, refuse_unless_new
from bdqm_tune.errors import BadInput, argument

IMPORT_EXAMPLE = "`bdqm-tune import-n2p2 hdnnp-data --out water`, then `bdqm-tune predict water FILE`"
EXPORT_EXAMPLE = "`bdqm-tune export-n2p2 models:/silicon@champion --out hdnnp-data`"

LengthUnit = Annotated[str, typer.Option(metavar="NAME", help="Of the lengths in the files: `bohr` or `angstrom`.")]
EnergyUnit = Annotated[str, typer.Option(metavar="NAME", help="Of the energies in the files: `hartree` or `eV`.")]


def import_n2p2(
    folder: Annotated[Path, typer.Argument(help="With input.nn, scaling.data and weights.NNN.data.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the model is put.")] = "n2p2_import",
    length_unit: LengthUnit = "bohr",
    energy_unit: EnergyUnit = "hartree",
    as_json: Json = False,
) -> None:
    """Bring a potential of n2p2 or RuNNer along; n2p2 need not be installed."""
    from bdqm_tune.n2p2 import load_n2p2

    refuse_unless_new(Path(out))
    potential = load_n2p2(folder, length_unit, energy_unit)
    try:
        potential.save(Path(out))
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None
    if as_json:
        print(json.dumps({"out": out, "n_parameters": potential.n_parameters}))
        return
    predict = f"`bdqm-tune predict {argument(out)} FILE`"
    print(f"{out}: the model, read in {length_unit} and {energy_unit}; {predict} predicts with it")


def export_n2p2(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder, a run's id, `runs:/RUN_ID/model`, `models:/NAME@ALIAS` or `models:/NAME/VERSION`."
        ),
    ],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the files are put.")] = "hdnnp-data",
    length_unit: LengthUnit = "bohr",
    energy_unit: EnergyUnit = "hartree",
    as_json: Json = False,
) -> None:
    """Write a model of symmetry functions as n2p2's files, which LAMMPS runs by pair_style hdnnp."""
    from bdqm_tune.api import export_n2p2 as export

    refuse_unless_new(Path(out))
    try:
        lines = export(model, out, length_unit, energy_unit)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None
    if as_json:
        print(json.dumps({"out": out, "lammps": lines}))
        return
    print(f"{out}: the files, in {length_unit} and {energy_unit}. In LAMMPS, with `units metal`:\n")
    print("\n".join(lines))
