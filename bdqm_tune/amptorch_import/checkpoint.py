"""A model that amptorch trained, from its checkpoint folder, as a potential."""

import warnings
from collections.abc import Mapping
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from bdqm_tune.amptorch_import.descriptors import SCHEMES, fault, gmp_settings, group_settings, symmetry_settings
from bdqm_tune.amptorch_import.record import Group, Translation, plain
from bdqm_tune.amptorch_import.torch_files import Object, read_torch_file
from bdqm_tune.amptorch_import.translation import translate_model
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.pseudodensity import Table, read_file, read_folder
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import AtomicNetwork, MixedNN, make_network
from bdqm_tune.learning.scalers import ElementScaler, FeatureScaler, Scaler
from bdqm_tune.learning.targets import NO_REFERENCES

FILES = ("params.pt", "config.pt", "normalizers.pt")
MASK = "element_mask.mask.weight"
# What amptorch sets to 0 where it also computes derivatives: those of gmpordernorm below this, 1/Å, and roots of
# features, by scheme.
DERIVATIVE_FLOOR = 1e-5
ROOT_FLOORS = {"gmpordernorm": 1e-2, "gmp": 1e-8}


def load_amptorch_checkpoint(
    folder: str | Path, pseudodensities: str | Path | None = None, exact_forces: bool = False
) -> NetworkPotential:
    """The potential in a checkpoint folder of amptorch, which need not be installed; no code of the files is run.

    It predicts what amptorch predicts. A model that was trained without forces has them here: those of its energy.
    Where amptorch's features were not those of its definition, which hold here, a UserWarning says so.

    Args:
        folder: with `params.pt`, `config.pt`, `normalizers.pt`.
        pseudodensities: folder of `.g` files; None: those that the checkpoint names, a relative path being searched
            in the working directory, the checkpoint's folder, and those above it.
        exact_forces: forces are the derivatives of the energy; else amptorch's, which leaves out the derivatives of
            gmpordernorm below 1e-5 per Å.

    Raises:
        BadInput: no checkpoint there, a damaged one, one that holds more than data, or a model that is not supported.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"{folder}: no checkpoint of amptorch, {', '.join(missing)} is missing")
    weights, config, normalizers = (read_torch_file(folder / name) for name in FILES)
    warning = ""
    try:
        scheme, params, cutoff_params, elements = config["dataset"]["descriptor"]
        elements = [str(symbol) for symbol in plain(elements)]
        account = Translation()
        descriptor: Descriptor
        if scheme == "gaussian":
            functions = Group(account, "fp_params", params)
            descriptor = SymmetryFunctions(
                elements, **symmetry_settings(functions, Group(account, "cutoff_params", cutoff_params), elements)
            )
            columns = _columns(descriptor, elements)
        else:
            table = _table(params, elements, folder, pseudodensities)
            with_forces = bool(config["model"].get("get_forces", True))
            descriptor = _multipoles(scheme, Group(account, "fp_params", params), table, with_forces, exact_forces)
            columns = np.arange(descriptor.n_features)
            warning = fault(descriptor.settings, with_forces)
        translate_model(Group(account, "model", config["model"]))
        _refuse_what_matters(account)
        hyperparameters = Hyperparameters(**account.options["search"])
        network = _network(weights, hyperparameters, elements, columns)
        potential = NetworkPotential(
            descriptor,
            _scaler(normalizers["feature"], columns),
            NO_REFERENCES,
            float(normalizers["target"].attributes["target_std"]),
            hyperparameters,
            network.eval(),
            float(normalizers["target"].attributes["target_mean"]),
            _trained_on_forces(config),
            tuple(sorted(atomic_numbers[symbol] for symbol in elements)),
        )
    except BadInput as error:
        raise BadInput(f"{folder}: {error}") from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else one_line(error)
        raise BadInput(f"{folder}: not a checkpoint of amptorch that can be read ({what})") from None
    if warning:
        warnings.warn(f"{folder}: {warning}", stacklevel=2)
    return potential


def _trained_on_forces(config: Mapping[str, Any]) -> bool:
    """Whether forces had a part in the loss; amptorch computes them by default, and gives them no weight."""
    coefficient = (config.get("optim") or {}).get("force_coefficient") or 0
    return bool(config["model"].get("get_forces", True)) and float(coefficient) > 0


def _refuse_what_matters(account: Translation) -> None:
    """Raise BadInput for an unsupported key that changes the model."""
    for entry in account.unsupported:
        # The initial weights do not matter in a trained model.
        if not entry.harmless and entry.key != "model.initialization":
            raise BadInput(f"{entry.key} is not supported: {entry.why}")


def _multipoles(scheme: Any, params: Group, table: Table, with_forces: bool, exact_forces: bool) -> Descriptor:
    if scheme not in SCHEMES:
        raise BadInput(f"fp_scheme {scheme!r} is not supported; there are {', '.join(SCHEMES)}")
    floor = ROOT_FLOORS[scheme] if with_forces else 0.0
    if scheme == "gmp":
        return GMPGroups(**group_settings(params), pseudodensities=table, root_floor=floor)
    derivative_floor = DERIVATIVE_FLOOR if with_forces and not exact_forces else 0.0
    return GMP(**gmp_settings(params), pseudodensities=table, root_floor=floor, derivative_floor=derivative_floor)


def _table(params: Mapping[str, Any], elements: list[str], folder: Path, given: str | Path | None) -> Table:
    """The pseudo-densities of the elements that the model knows."""
    if given is not None:
        found = read_folder(given)
        missing = [symbol for symbol in elements if atomic_numbers[symbol] not in found]
        if missing:
            raise BadInput(f"no pseudo-density of {', '.join(missing)} in {given}")
        return {atomic_numbers[symbol]: found[atomic_numbers[symbol]] for symbol in elements}
    named = params.get("atom_gaussians") or {}
    places = [Path(), *(parent for parent in [folder.resolve(), *folder.resolve().parents])]
    table = {}
    for symbol in elements:
        # Joined to an absolute path, a place does not matter.
        files = [place / str(named[symbol]) for place in places if symbol in named]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            where = f"the file {named[symbol]}" if symbol in named else "a file that it does not name"
            raise BadInput(
                f"the pseudo-density of {symbol} is in {where}, which is not here; say where the .g files are "
                "(pseudodensities, on the command line --pseudodensities)"
            )
        table[atomic_numbers[symbol]] = read_file(file)
    return table


def _columns(descriptor: SymmetryFunctions, elements: list[str]) -> NDArray[np.int64]:
    """The column in amptorch's features of each of ours.

    amptorch makes the pairs of elements in the order in which the elements were given, and then sorts them.
    """
    ours = [atomic_numbers[symbol] for symbol in descriptor.elements]
    theirs = sorted(combinations_with_replacement([atomic_numbers[symbol] for symbol in elements], 2))
    place = {frozenset(pair): k for k, pair in enumerate(theirs)}
    order = [place[frozenset(pair)] for pair in combinations_with_replacement(ours, 2)]
    found = set()
    for element in descriptor.elements:
        radial = descriptor.g2.get(element)
        columns = list(range(len(ours) * len(radial["etas"]) * len(radial["rs"]) if radial else 0))
        for kind in (descriptor.g4, descriptor.g5):
            lists = kind.get(element)
            each = len(lists["etas"]) * len(lists["zetas"]) * len(lists["gammas"]) if lists else 0
            first = len(columns)
            columns += [first + pair * each + k for pair in order for k in range(each)]
        found.add((*columns, *range(len(columns), descriptor.n_features)))
    if len(found) > 1:
        raise BadInput(
            "symmetry functions that differ between the elements, with elements that are not in the order of their "
            "atomic numbers, are not supported"
        )
    return np.array(found.pop())


def _network(
    weights: Mapping[str, NDArray[Any]],
    hyperparameters: Hyperparameters,
    elements: list[str],
    columns: NDArray[np.int64],
) -> AtomicNetwork:
    """The network with amptorch's weights."""
    # On several GPUs, amptorch wraps the model in another.
    state = {name.removeprefix("module."): torch.as_tensor(value) for name, value in weights.items()}
    mask = state.pop(MASK, None)
    numbers = [atomic_numbers[symbol] for symbol in elements]
    renamed = {}
    for name, value in state.items():
        for k, symbol in enumerate(elements):
            name = name.replace(f"elementwise_models.{k}.model_net.", f"networks.{symbol}.")
        name = name.removeprefix("model.model_net.")
        renamed[name] = value[:, columns] if name.endswith(("0.weight",)) and _is_first(name) else value
    if mask is None:
        network = make_network(len(columns), hyperparameters, numbers)
    else:
        network = make_network(len(columns), hyperparameters, numbers, mixed=True)
        assert isinstance(network, MixedNN)
        shares = torch.zeros_like(network.shares, dtype=mask.dtype)
        # The networks are ordered by atomic number here, and as the elements there.
        order = [numbers.index(z) for z in network.elements]
        shares[: len(mask)] = mask[:, order]
        renamed["shares"] = shares
    network.to(next(iter(state.values())).dtype)
    network.load_state_dict(renamed)
    return network


def _is_first(name: str) -> bool:
    """Whether these are the weights of a first layer, which take the features."""
    return name.split(".")[-2:] == ["0", "weight"]


def _scaler(scaler: Object, columns: NDArray[np.int64]) -> Scaler:
    """amptorch's `FeatureScaler`."""
    attributes = scaler.attributes
    if not attributes["elementwise"]:
        return _column_scaler(attributes["transform"], attributes["scale"], columns)
    own = {int(z): _column_scaler(attributes["transform"], of, columns) for z, of in attributes["scales"].items()}
    # amptorch leaves the features of other elements as they are.
    return ElementScaler(own, FeatureScaler(np.zeros(len(columns)), np.ones(len(columns))))


def _column_scaler(transform: str, scale: Mapping[str, Any], columns: NDArray[np.int64]) -> FeatureScaler:
    offset, factor = (np.asarray(scale[key], dtype=np.float64)[columns] for key in ("offset", "scale"))
    if transform == "standardize":
        return FeatureScaler(offset, factor)
    # There x·scale + offset
    if not (factor > 0).all():
        raise BadInput("features that are normalised to an empty or falling range are not supported")
    return FeatureScaler(-offset / factor, 1 / factor)
