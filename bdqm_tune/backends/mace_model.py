"""Models of mace: made from hyperparameters, from a foundation model, or from the JSON of their arguments."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.backends.mace_graphs import HEAD
from bdqm_tune.backends.mace_import import default_dtype, import_mace
from bdqm_tune.config.backends.mace import MaceHyperparameters
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.learning.potential import Precision
from bdqm_tune.user import expanded

FIRST = "RealAgnosticInteractionBlock"
OTHERS = "RealAgnosticResidualInteractionBlock"
CLASSES = ("interaction_cls", "interaction_cls_first", "readout_cls")
IRREPS = ("hidden_irreps", "MLP_irreps", "edge_irreps")
Arguments = dict[str, Any]  # of the model's constructor, as plain JSON


def arguments_of(
    hyperparameters: MaceHyperparameters, numbers: Sequence[int], n_neighbours: float, scale: NDArray[np.float64]
) -> Arguments:
    """The arguments of a new model, as `mace_run_train` with `--model MACE` has them.

    The energies of the elements are 0: reference energies are added outside, in double precision.

    Args:
        numbers: atomic numbers of its elements, ascending.
        n_neighbours: mean number of neighbours of an atom.
        scale: (1,) of the energy of an atom, eV.
    """
    assert hyperparameters.max_L is not None
    o3 = import_mace().o3
    channels = hyperparameters.num_channels * o3.Irreps.spherical_harmonics(hyperparameters.max_L)
    return {
        "r_max": hyperparameters.r_max,
        "num_bessel": hyperparameters.num_radial_basis,
        "num_polynomial_cutoff": hyperparameters.num_cutoff_basis,
        "max_ell": hyperparameters.max_ell,
        "interaction_cls": OTHERS,
        "interaction_cls_first": FIRST,
        "num_interactions": hyperparameters.num_interactions,
        "num_elements": len(numbers),
        "hidden_irreps": str(channels.sort().irreps.simplify()),
        "edge_irreps": None,
        "atomic_energies": [[0.0] * len(numbers)],
        "apply_cutoff": True,
        "avg_num_neighbors": float(n_neighbours),
        "atomic_numbers": list(numbers),
        "use_reduced_cg": False,
        "use_so3": False,
        "pair_repulsion": False,
        "distance_transform": "None",
        "correlation": hyperparameters.correlation,
        "gate": "silu",
        "MLP_irreps": "16x0e",
        "atomic_inter_scale": [float(each) for each in scale],
        "atomic_inter_shift": [0.0],
        "radial_MLP": [64, 64, 64],
        "radial_type": "bessel",
        "heads": [HEAD],
    }


def model_of(arguments: Arguments, precision: Precision) -> torch.nn.Module:
    """A model with random weights.

    Classes are looked up by name in mace's own tables, so that the arguments may come from any file.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: of arguments that are no model's.
    """
    mace = import_mace()
    values = dict(arguments)
    for name in CLASSES:
        if name in values:
            table = mace.modules.readout_classes if name == "readout_cls" else mace.modules.interaction_classes
            values[name] = table[values[name]]
    values["gate"] = mace.modules.gate_dict[values["gate"]]
    for name in IRREPS:
        if values.get(name) is not None:
            values[name] = mace.o3.Irreps(values[name])
    values["atomic_energies"] = np.array(values["atomic_energies"])
    with default_dtype(precision), warnings.catch_warnings(action="ignore"):  # of torch.jit, dozens
        model: torch.nn.Module = mace.modules.ScaleShiftMACE(**values)
    return model


def model_with(arguments: Arguments, weights: dict[str, torch.Tensor], precision: Precision) -> torch.nn.Module:
    """A model with given weights, on the CPU. Raises as `model_of`, and RuntimeError for weights of another model."""
    with torch.random.fork_rng(devices=[]):
        model = model_of(arguments, precision)
    model.load_state_dict(weights, strict=True)
    return model


class Foundation:
    """A model of mace to start from, with any elements."""

    def __init__(self, path: str) -> None:
        """
        Args:
            path: of a file that mace wrote: a pickle, which may run any code.

        Raises:
            BadInput: it cannot be read, or holds no model that can be trained here.
        """
        mace = import_mace()
        self._where = f"backend_options.foundation_model: {path}"
        try:
            content = Path(expanded(path)).read_bytes()
        except OSError as error:
            raise BadInput(f"{self._where}: {error.strerror}") from None
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([slice]):
                # The user's own configuration names it, as a file to be trusted.
                self._model = torch.load(expanded(path), map_location="cpu", weights_only=False)  # nosec B614
            self._arguments = mace.scripts.extract_config_mace_model(self._model)
        except Exception as error:  # whatever a pickle raises
            raise BadInput(f"{self._where}: not a model of mace ({one_line(error)})") from None
        if "error" in self._arguments:
            raise BadInput(f"{self._where}: {self._arguments['error']}; only a ScaleShiftMACE can be fine-tuned here")
        if len(heads := self._arguments["heads"]) > 1:
            raise BadInput(
                f"{self._where}: has the heads {', '.join(map(str, heads))}; `mace_select_head` writes a file of one"
            )

    @property
    def r_max(self) -> float:
        """Å."""
        return float(self._arguments["r_max"])

    def start(self, numbers: Sequence[int], precision: Precision) -> tuple[torch.nn.Module, Arguments]:
        """A model of these elements with the weights of this one, and its arguments. The energies of elements are 0.

        Raises:
            BadInput: an element that it does not have.
        """
        mace = import_mace()
        known = [int(z) for z in self._arguments["atomic_numbers"]]
        if unknown := [chemical_symbols[z] for z in numbers if z not in known]:
            has = ", ".join(chemical_symbols[z] for z in known)
            raise BadInput(f"{self._where}: does not have {', '.join(unknown)}, but {has}")
        arguments = _plain(
            self._arguments
            | {
                "atomic_energies": [[0.0] * len(numbers)],
                "atomic_numbers": list(numbers),
                "num_elements": len(numbers),
                "heads": [HEAD],
                # copied below
                "atomic_inter_scale": [1.0],
                "atomic_inter_shift": [0.0],
            }
        )
        try:
            model = model_of(arguments, precision)
            with default_dtype(precision), torch.no_grad():
                model = mace.load_foundations_elements(
                    model,
                    self._model.to(getattr(torch, precision)),
                    mace.tools.AtomicNumberTable(list(numbers)),
                    load_readout=True,
                    max_L=mace.o3.Irreps(arguments["hidden_irreps"]).lmax,
                    default_dtype=getattr(torch, precision),
                )
        except Exception as error:  # of a kind of model that mace's functions do not expect
            raise BadInput(f"{self._where}: cannot be fine-tuned ({one_line(error)})") from None
        copied = _plain(mace.scripts.extract_config_mace_model(model))
        names = ("avg_num_neighbors", "atomic_inter_scale", "atomic_inter_shift")
        return model, arguments | {name: copied[name] for name in names}


def _plain(arguments: dict[str, Any]) -> Arguments:
    """Arguments as plain JSON. Raises BadInput where one cannot be."""
    mace = import_mace()
    gates = {gate: name for name, gate in mace.modules.gate_dict.items()}
    found: Arguments = {}
    for name, value in arguments.items():
        if name in CLASSES:
            found[name] = value.__name__
        elif name == "gate":
            found[name] = gates.get(value)
        elif isinstance(value, mace.o3.Irreps):
            found[name] = str(value)
        elif isinstance(value, np.ndarray | np.generic | torch.Tensor):
            found[name] = value.tolist()
        else:
            found[name] = value
    try:
        plain: Arguments = json.loads(json.dumps(found))
    except TypeError as error:
        raise BadInput(f"backend mace: a model with arguments that are not plain values ({one_line(error)})") from None
    return plain
