"""A model as MLflow serves it: structures as plain values in, energies and forces as plain values out.

MLflow names this module in what it keeps of a registered model and calls `_load_pyfunc`; the rest is read as data.
"""

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms
from ase.formula import Formula
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from bdqm_tune.errors import BadInput, located, one_line, shown
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.store import computed_in, load_folder
from bdqm_tune.structures.read import check_geometry
from bdqm_tune.structures.xyz_frames import check_frames

FIELDS = ("extxyz", "symbols", "numbers", "positions", "cell", "pbc")  # of a structure
# Of a request, with their defaults; precision: float32 or float64, empty: that of the training, of an ensemble float64.
PARAMETERS: dict[str, bool | str] = {"forces": True, "allow_unknown_elements": False, "precision": ""}
FORMS = (
    '{"extxyz": "text of the file"}, or {"symbols" or "numbers": [...], "positions": [[x, y, z], ...]}, in a cell also '
    '"cell": [[...], [...], [...]] and "pbc": [true, true, true]'
)


class ServedModel:
    """What MLflow calls `predict` of."""

    def __init__(self, model: Potential | Ensemble) -> None:
        self.model = model
        self._in_precision = lru_cache(maxsize=2)(lambda precision: computed_in(model, precision or None))

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Energies (eV) and, unless `params` say otherwise, forces (eV/Å) of every structure.

        Elements that the model was not trained on are refused, unless `params` have `allow_unknown_elements`. The
        network is computed in the `precision` that `params` have, `float32` or `float64`.

        Args:
            model_input: one row a structure, see `FORMS`; an extxyz text may hold several.

        Raises:
            MlflowException: a structure cannot be read or described, or there is no such precision; for a server,
                status 400.
        """
        try:
            structures = read_records(model_input.to_dict("records"))
            given = {**PARAMETERS, **(params or {})}
            model = self._in_precision(given["precision"])
            forces, allowed = bool(given["forces"]), bool(given["allow_unknown_elements"])
            return [_results(model, i, atoms, forces, allowed) for i, atoms in enumerate(structures)]
        except BadInput as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def _results(
    model: Potential | Ensemble, i: int, atoms: Atoms, forces: bool, allow_unknown_elements: bool
) -> dict[str, Any]:
    with located(f"structure {i}"):
        check_geometry(atoms)
        values = model.results(atoms, forces, allow_unknown_elements)
    values = {name: value for name, value in values.items() if name not in ("stress", "extrapolation")}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _load_pyfunc(data_path: str) -> ServedModel:
    """MLflow's way in. Raises BadInput if the folder holds no model."""
    return ServedModel(load_folder(Path(data_path)))


def signature(model: Potential | Ensemble) -> ModelSignature:
    """What a request and its answer hold, for MLflow."""
    # Of one type each, MLflow would refuse with status 500 what does not fit; `read_records` says what is wrong.
    inputs = Schema([ColSpec(AnyType(), name, required=False) for name in FIELDS])
    per_atom = Array(Array(DataType.double))
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.double, "energy"),
        ColSpec(per_atom, "forces", required=False),
    ]
    if isinstance(model, Ensemble):
        outputs += [ColSpec(DataType.double, "energy_std"), ColSpec(per_atom, "forces_std", required=False)]
        if model.calibration is not None:
            outputs.append(ColSpec(Array(DataType.double), "energy_interval"))
    kinds = {bool: DataType.boolean, str: DataType.string}
    parameters = [ParamSpec(name, kinds[type(default)], default) for name, default in PARAMETERS.items()]
    return ModelSignature(inputs, Schema(outputs), ParamSchema(parameters))


def record_of(atoms: Atoms) -> dict[str, Any]:
    """A structure as plain values, which `read_records` takes."""
    record = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    if atoms.cell.rank or atoms.pbc.any():
        record |= {"cell": atoms.cell.tolist(), "pbc": atoms.pbc.tolist()}
    return record


def read_records(records: Sequence[Mapping[Any, Any]]) -> list[Atoms]:
    """Structures from plain values.

    Raises:
        BadInput: there is none, or one is not as it must be; the message says which, and what is.
    """
    structures: list[Atoms] = []
    for i, record in enumerate(records):
        given = {str(name): value for name, value in record.items() if not _is_missing(value)}
        with located(f"record {i}"):
            structures += _read(given)
    if not structures:
        raise BadInput(f"no structures; the input is a list, each {FORMS}")
    return structures


def _read(given: Mapping[str, Any]) -> list[Atoms]:
    names = {"symbols", "numbers"} & given.keys()
    if given.keys() == {"extxyz"}:
        return _from_text(given["extxyz"])
    if "extxyz" in given or len(names) != 1 or "positions" not in given:
        raise BadInput(f"has {', '.join(sorted(given)) or 'nothing'}; a structure is {FORMS}")
    # MLflow drops what it does not know: a name misspelt would make a crystal a molecule.
    if ("cell" in given) != ("pbc" in given):
        raise BadInput(f"has {'cell' if 'cell' in given else 'pbc'} alone; cell and pbc are given both, or neither")
    try:
        for name, kinds, what in (("numbers", "iu", "whole numbers"), ("pbc", "b", "true or false")):
            if name in given and np.asarray(given[name]).dtype.kind not in kinds:  # ASE would take them for such
                raise ValueError(f"{name} must be {what}, got {shown(given[name])}")
        symbols = given.get("symbols")
        if isinstance(symbols, str) and sum(Formula(symbols).count().values()) != len(given["positions"]):
            raise ValueError(f"{shown(symbols)} for {len(given['positions'])} positions")
        return [Atoms(**given)]
    except Exception as error:  # Atoms takes values of all kinds, and raises all kinds of errors
        raise BadInput(f"is not a structure ({one_line(error)}); a structure is {FORMS}") from None


def _from_text(text: Any) -> list[Atoms]:
    if not isinstance(text, str):
        raise BadInput(f"extxyz must be a text, got {type(text).__name__}")
    try:
        check_frames(text.splitlines())
        return list(ase.io.read(io.StringIO(text), index=":", format="extxyz"))
    except BadInput as error:
        raise BadInput(f"extxyz: {error}") from None
    except Exception as error:  # as above
        raise BadInput(f"extxyz: ASE cannot read it ({one_line(error)})") from None


def _is_missing(value: Any) -> bool:
    """Whether a table has nothing there."""
    return value is None or (isinstance(value, float) and value != value)
