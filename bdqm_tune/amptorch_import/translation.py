"""An amptorch configuration, as `AtomsTrainer` takes it, as our configuration; its keys are those of amptorch's README.

Defaults of missing keys are those of amptorch's trainer.py and model.py of July 2023.
"""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from bdqm_tune.amptorch_import.descriptors import (
    SCHEMES,
    fault,
    gmp_settings,
    group_settings,
    pseudodensity_folder,
    symmetry_settings,
)
from bdqm_tune.amptorch_import.record import Group, Translation, class_name, plain, shown
from bdqm_tune.amptorch_import.training import translate_optimisation
from bdqm_tune.config.config import Config, describe
from bdqm_tune.config.hyperparameters import DEFAULT_SEARCH, Activation, Hyperparameters, excluded_by
from bdqm_tune.errors import BadInput, one_line

NETWORKS = {"bpnn": "per_element", "singlenn": "single"}
PRECISIONS = {"DoubleTensor": "float64", "FloatTensor": "float32"}


def translate(config: Mapping[str, Any]) -> Translation:
    """Our options for an amptorch configuration, and the account of each of its keys.

    It is of one trial with every hyperparameter fixed, scored by the same losses and scales as amptorch's.

    Args:
        config: the groups model, optim, dataset and cmd. Classes may be given by name, as `torch.nn.Tanh`.

    Raises:
        BadInput: a group or value is of the wrong kind, or outside what is valid here.
    """
    translation = Translation()
    groups = {name: Group(translation, name, config.get(name) or {}) for name in ("model", "optim", "dataset", "cmd")}
    for name in config:
        if name not in groups:
            Group(translation, str(name), {}).refuse("*", f"amptorch has no such group; it has {', '.join(groups)}")
    for option, value in (
        ("target.reference_energies", "none"),
        ("target.scaling", "mean_deviation"),
        ("training.energy_loss", "total"),
        ("training.smoothing", 1),
        ("study.n_trials", 1),
        ("study.pruner", "none"),
    ):
        translation.set(option, value)
    try:
        translate_model(groups["model"])
        translate_optimisation(groups["optim"])
        _translate_dataset(groups["dataset"])
        _translate_command(groups["cmd"])
    # A value that is of another kind than amptorch takes fails in many ways.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else one_line(error)
        raise BadInput(f"not a configuration that amptorch takes: {what}") from None
    for group in groups.values():
        group.finish()
    # Hyperparameters without a key in amptorch, or without its value here, are not searched either.
    search = translation.options["search"]
    for name in DEFAULT_SEARCH:
        if name not in search and name not in excluded_by(search):
            search[name] = getattr(Hyperparameters(), name)
    try:
        Config(**translation.options)
    except ValidationError as error:
        raise BadInput(f"what it comes to is not valid here: {describe(error)}") from None
    return translation


def translate_model(model: Group) -> None:
    """The network, as options of `search`."""
    model.map("name", "bpnn", "search.network", _network)
    if model.get("hidden_layers") is not None:
        model.map("hidden_layers", None, "search.hidden_layers", plain)
        model.drop("hidden_layers is used instead", "num_layers", "num_nodes")
    else:
        model.drop("the layers are given by num_layers and num_nodes", "hidden_layers")
        model.map("num_layers", 5, "search.num_layers")
        model.map("num_nodes", 20, "search.num_nodes")
    model.map("activation", "Tanh", "search.activation", _activation)
    model.map("batchnorm", False, "search.batchnorm")
    model.map("dropout", False, "search.dropout")
    model.map("dropout_rate", 0.5, "search.dropout_rate")
    model.translation.set("search.initialization", "xavier")
    model.map("initialization", "xavier", "search.initialization", _initialization)
    model.map("get_forces", True, "training.forces", bool)


def _network(name: Any) -> str:
    try:
        return NETWORKS[str(name).lower()]
    except KeyError:
        raise ValueError(f"no model here; there are {', '.join(NETWORKS)}") from None


def _activation(given: Any) -> str:
    name = class_name(given).lower()
    if name not in get_args(Activation):
        raise ValueError(f"no activation here; there are {', '.join(get_args(Activation))}")
    return name


def _initialization(given: Any) -> str:
    name = str(given).lower()
    if name == "zero":
        raise ValueError("all weights 0, from which amptorch trains one number only; xavier is taken")
    return "xavier" if name == "xavier" else "default"


def _translate_dataset(dataset: Group) -> None:
    raw = dataset.get("raw_data")
    if isinstance(raw, str):
        dataset.map("raw_data", None, "data.train")
    elif "raw_data" in dataset:
        dataset.refuse("raw_data", "structures in memory; write them to a file and name it as data.train")
    if "lmdb_path" in dataset:
        dataset.refuse("lmdb_path", "give the structures that it was made from as data.train")
    dataset.drop("of the LMDB data; here features are stored on disk anyway", "cache")
    dataset.map("val_split", 0, "data.validation.fraction", _fraction)
    dataset.map("val_split_mode", "cv", "data.validation.split", _split_mode)
    _translate_scaling(dataset)
    _translate_descriptor(dataset)
    dataset.drop("features are always stored", "save_fps")
    dataset.drop("added by amptorch; it follows from the other keys", "descriptor", "fp_length")


def _fraction(given: Any) -> float:
    if given == 0:
        raise ValueError("amptorch takes no validation split; here one is always taken, 0.1 of the training file")
    return float(given) if given < 1 else 1 / int(given)


def _split_mode(given: Any) -> str:
    if given != "cv":
        raise ValueError("the last structures of the file; here they are drawn at random")
    return "random"


def _translate_scaling(dataset: Group) -> None:
    given = dataset.get("scaling", {"type": "normalize", "range": (0, 1), "elementwise": True})
    dataset.note("scaling", given, "descriptor.scaling, scaling_range, scaling_per_element")
    scaling = Group(dataset.translation, "dataset.scaling", given)
    scaling.map("type", "normalize", "descriptor.scaling", _scaling)
    if scaling.get("type") == "normalize":
        scaling.map("range", (0, 1), "descriptor.scaling_range", plain)
    else:
        scaling.drop("only for type normalize", "range")
    scaling.map("elementwise", True, "descriptor.scaling_per_element", bool)
    if scaling.get("threshold", 1e-6) != 1e-6:
        scaling.refuse("threshold", "here a feature counts as constant where it varies by less than 1e-9 of itself")
    scaling.drop("a constant feature is left unscaled, as here", "threshold")
    scaling.finish()


def _scaling(given: Any) -> str:
    names = {"normalize": "normalise", "standardize": "standardise"}
    if given not in names:
        raise ValueError(f"no scaling of amptorch; there are {', '.join(names)}")
    return names[given]


def _translate_descriptor(dataset: Group) -> None:
    scheme = str(dataset.get("fp_scheme", "gmpordernorm")).lower()
    elements = plain(dataset.get("elements"))
    params = Group(dataset.translation, "dataset.fp_params", dataset.get("fp_params", {}))
    cutoff_params = Group(dataset.translation, "dataset.cutoff_params", dataset.get("cutoff_params", {}))
    if scheme not in SCHEMES:
        raise ValueError(f"dataset.fp_scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    dataset.map("fp_scheme", "gmpordernorm", "descriptor.name", lambda given: SCHEMES[given.lower()])
    if scheme == "gaussian":
        settings = symmetry_settings(params, cutoff_params, elements)
        if elements is not None:
            dataset.map("elements", None, "descriptor.elements", plain)
        cutoffs = set(settings["cutoff"].values())
        if len(cutoffs) > 1:
            params.refuse("cutoff", f"one for each element; {max(cutoffs)} is taken for all")
        settings["cutoff"] = max(cutoffs)
    else:
        settings = gmp_settings(params) if scheme == "gmpordernorm" else group_settings(params)
        settings["pseudodensities"] = pseudodensity_folder(params)
        dataset.drop("here all elements of the pseudo-densities are known", "elements")
        dataset.drop("only of fp_scheme gaussian", "cutoff_params")
    for option, value in settings.items():
        dataset.translation.set(f"descriptor.{option}", value)
    # The group model is translated before.
    if warning := fault(settings, dataset.translation.options["training"]["forces"]):
        dataset.translation.warnings.append(warning)


def _translate_command(cmd: Group) -> None:
    cmd.map("seed", 0, "study.seed")
    if cmd.get("identifier"):
        cmd.map("identifier", None, "study.name", str)
    cmd.map("dtype", "torch.DoubleTensor", "training.precision", _precision)
    patience = cmd.get("early_stoppping_patience", 5)  # amptorch's spelling
    stopping = cmd.get("early_stopping", False)
    cmd.map("early_stopping", False, "training.early_stopping", lambda given: patience if given else None)
    if stopping and "early_stoppping_patience" in cmd:
        cmd.note("early_stoppping_patience", patience, f"training.early_stopping: {shown(patience)}")
    cmd.drop("only with early_stopping", *([] if stopping else ["early_stoppping_patience"]))
    cmd.drop("runs are always kept and tracked in MLflow, in $BDQM_HOME", "debug", "run_dir", "logger")
    cmd.drop("the trials are always printed", "verbose")


def _precision(given: Any) -> str:
    name = class_name(given)
    if name not in PRECISIONS:
        raise ValueError(f"no precision here; there are {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
