"""Our configuration as amptorch's nested dict, for its `AtomsTrainer`; classes are given by their names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from bdqm_tune.amptorch_import.record import Unsupported
from bdqm_tune.amptorch_import.training import OBJECTIVES, OPTIMIZERS
from bdqm_tune.amptorch_import.translation import NETWORKS, PRECISIONS
from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.config.descriptor_search import apart, chosen_descriptor
from bdqm_tune.config.hyperparameters import Hyperparameters, Scheduler, excluded_by, left_out
from bdqm_tune.config.spaces import DESCRIPTOR
from bdqm_tune.descriptors.amptorch_faults import wrong_always, wrong_without_derivatives
from bdqm_tune.descriptors.multipoles import probe_widths
from bdqm_tune.learning.networks import ACTIVATIONS

# The hyperparameters that are written, or reported where their value has no equal; another one is reported as unknown.
KNOWN = {
    *("num_layers", "num_nodes", "hidden_layers", "network", "activation", "batchnorm", "dropout", "dropout_rate"),
    *("initialization", "optimizer", "weight_decay", "lr", "batch_size", "scheduler", "gamma", "step_size"),
    "force_coefficient",
}


def export_config(config: Config) -> tuple[dict[str, Any], list[Unsupported]]:
    """The nested dict for one training, and the options that it cannot express.

    Of the searched hyperparameters it has the values of the first trial: those in `study.enqueue`, or the defaults.
    """
    unsupported: list[Unsupported] = []
    enqueue = config.study.enqueue
    options, first = apart(enqueue[0] if enqueue and enqueue != "auto" else {})
    fixed = config.fixed
    left = fixed.keys() | set(excluded_by(fixed))
    hyperparameters = Hyperparameters(**fixed, **{name: value for name, value in first.items() if name not in left})
    config = config.model_copy(update={"descriptor": chosen_descriptor(config.descriptor, options)})
    values = hyperparameters.model_dump()
    values |= {DESCRIPTOR + option: value for option, value in config.descriptor.model_dump().items()}
    for name in sorted(config.spaces.keys() & values.keys() - _without_effect(hyperparameters)):
        unsupported.append(Unsupported(f"search.{name}", f"amptorch takes one value; {values[name]} is written"))
    for name, value in left_out(hyperparameters, KNOWN).items():
        unsupported.append(Unsupported(f"search.{name}", f"amptorch has no such option; {value} is lost"))
    exported = {
        "model": _model(hyperparameters, config, unsupported),
        "optim": _optimisation(hyperparameters, config, unsupported),
        "dataset": _dataset(config, unsupported),
        "cmd": _command(config, hyperparameters.scheduler),
    }
    if config.target.reference_energies != "none":
        unsupported.append(Unsupported("target.reference_energies", "amptorch learns the total energies"))
    if config.target.scaling != "mean_deviation":
        unsupported.append(Unsupported("target.scaling", "amptorch subtracts the mean and divides by the deviation"))
    return exported, unsupported


def _theirs(names: Mapping[str, str], ours: str) -> str:
    """amptorch's name for one of ours, from the table by which it is imported."""
    return next(name for name, meaning in names.items() if meaning == ours)


def _without_effect(hyperparameters: Hyperparameters) -> set[str]:
    """The hyperparameters that the others make idle."""
    idle = set() if hyperparameters.dropout else {"dropout_rate"}
    return idle if hyperparameters.scheduler in ("step", "plateau") else {*idle, "gamma", "step_size"}


def _model(hyperparameters: Hyperparameters, config: Config, unsupported: list[Unsupported]) -> dict[str, Any]:
    if hyperparameters.initialization == "zero":
        unsupported.append(Unsupported("search.initialization", "zero is another thing to amptorch; xavier is written"))
    layers: dict[str, Any] = {"hidden_layers": hyperparameters.hidden_layers}
    if hyperparameters.hidden_layers is None:
        layers = {"num_layers": hyperparameters.num_layers, "num_nodes": hyperparameters.num_nodes}
    return {
        "name": _theirs(NETWORKS, hyperparameters.network),
        **layers,
        "activation": f"torch.nn.{ACTIVATIONS[hyperparameters.activation].__name__}",
        "batchnorm": hyperparameters.batchnorm,
        "dropout": hyperparameters.dropout,
        "dropout_rate": hyperparameters.dropout_rate,
        "initialization": "default" if hyperparameters.initialization == "default" else "xavier",
        "get_forces": bool(config.training.forces),
    }


def _optimisation(hyperparameters: Hyperparameters, config: Config, unsupported: list[Unsupported]) -> dict[str, Any]:
    if config.objective not in OBJECTIVES.values():
        unsupported.append(Unsupported("target.objective", "amptorch's is of energies or of forces; energy is written"))
    if config.training.energy_loss == "per_atom":
        unsupported.append(Unsupported("training.energy_loss", "amptorch's loss is of the total energies"))
    if config.training.window > 1:
        unsupported.append(Unsupported("training.smoothing", "amptorch judges each epoch for itself"))
    if config.training.stress in (True, "partial"):
        unsupported.append(Unsupported("training.stress", "amptorch trains on none"))
    if config.training.loss == "huber":
        unsupported.append(Unsupported("training.loss", "amptorch's is mae or mse; mae is written"))
    exported: dict[str, Any] = {
        "gpus": 1 if config.device.startswith("cuda") else 0,
        "lr": hyperparameters.lr,
        "batch_size": hyperparameters.batch_size,
        "epochs": config.training.epochs,
        "loss": "mae" if config.training.loss == "huber" else config.training.loss,
        "force_coefficient": hyperparameters.force_coefficient if config.training.forces else 0.0,
        "metric": "mae",
        "cp_metric": "forces" if config.objective == "val_forces_mae" else "energy",
        "optimizer": f"torch.optim.{_theirs(OPTIMIZERS, hyperparameters.optimizer)}",
    }
    if hyperparameters.optimizer == "adamw":
        exported["optimizer_args"] = {"optimizer__weight_decay": hyperparameters.weight_decay}
    schedule = _schedule(hyperparameters, config.training.epochs)
    return exported | ({} if schedule is None else {"scheduler": schedule})


def _schedule(hyperparameters: Hyperparameters, epochs: int) -> dict[str, Any] | None:
    gamma, steps = hyperparameters.gamma, hyperparameters.step_size
    match hyperparameters.scheduler:
        case "step":
            return {"policy": "StepLR", "params": {"step_size": steps, "gamma": gamma}}
        case "cosine":
            return {"policy": "CosineAnnealingLR", "params": {"T_max": epochs}}
        case "one_cycle":
            return {"policy": "OneCycleLR", "params": {"max_lr": hyperparameters.lr, "total_steps": epochs + 1}}
        case "plateau":
            # torch tolerates `patience` epochs, and reduces the learning rate in the next one.
            return {"policy": "ReduceLROnPlateau", "params": {"patience": steps - 1, "factor": gamma}}
        case "none":
            return None


def _command(config: Config, scheduler: Scheduler) -> dict[str, Any]:
    patience = config.training.patience(scheduler)
    exported = {
        "seed": config.study.seed,
        "identifier": config.study.name,
        "dtype": f"torch.{_theirs(PRECISIONS, config.training.precision)}",
        "early_stopping": patience is not None,
    }
    # amptorch's spelling
    return exported if patience is None else {**exported, "early_stoppping_patience": patience}


def _dataset(config: Config, unsupported: list[Unsupported]) -> dict[str, Any]:
    exported: dict[str, Any] = {"val_split": config.data.validation.fraction, "val_split_mode": "cv"}
    if config.data.train == "builtin":
        unsupported.append(
            Unsupported("data.train", "the built-in structures are no file; put yours as dataset.raw_data")
        )
    elif isinstance(config.data.train, list):
        unsupported.append(Unsupported("data.train", "amptorch reads one file; put all images into one"))
    else:
        exported["raw_data"] = config.data.train
    for name in ("energy_key", "forces_key", "stress_key", "validation_file"):
        if getattr(config.data, name) is not None:
            unsupported.append(Unsupported(f"data.{name}", "amptorch has no such option"))
    if config.data.test is not None:
        unsupported.append(Unsupported("data.test", "amptorch has no test split"))
    if config.data.validation.folds is not None:
        why = "amptorch has no cross-validation; val_split is written"
        unsupported.append(Unsupported("data.validation.folds", why))
    if config.data.validation.split != "random":
        unsupported.append(Unsupported("data.validation.split", "amptorch draws the structures at random"))
    options = config.descriptor
    exported["scaling"] = _scaling(options, unsupported)
    match options.name:
        case "gmp" | "gmp_groups":
            return exported | _multipoles(options, bool(config.training.forces), unsupported)
        case "symmetry_functions":
            if not options.combines:
                unsupported.append(Unsupported("descriptor.functions", "amptorch takes combinations: give g2, g4, g5"))
            if options.cutoff_function not in ("cosine", "polynomial"):
                why = f"amptorch has no {options.cutoff_function} cutoff function; cosine is written"
                unsupported.append(Unsupported("descriptor.cutoff_function", why))
            return exported | _symmetry_functions(options)
        case other:  # one that is added here
            unsupported.append(Unsupported("descriptor.name", f"amptorch has no {other}; no fp_scheme is written"))
            return exported


def _scaling(options: DescriptorOptions, unsupported: list[Unsupported]) -> dict[str, Any]:
    if options.scaling == "log":
        unsupported.append(Unsupported("descriptor.scaling", "amptorch takes no logarithm; standardize is written"))
    elif options.scaling == "whiten":
        unsupported.append(Unsupported("descriptor.scaling", "amptorch does not whiten; standardize is written"))
    scaling: dict[str, Any] = {"type": "standardize"}
    if options.scaling == "normalise":
        scaling = {"type": "normalize", "range": options.scaling_range}
    return scaling | {"elementwise": options.scaling_per_element}


def _multipoles(options: DescriptorOptions, forces: bool, unsupported: list[Unsupported]) -> dict[str, Any]:
    harmonics = {"groups": options.groups} if options.name == "gmp_groups" else options.model_dump()
    wrong = wrong_always(harmonics) or ("" if forces else wrong_without_derivatives(harmonics))
    if wrong:
        option = "groups" if options.name == "gmp_groups" else "orders"
        unsupported.append(Unsupported(f"descriptor.{option}", f"amptorch gets wrong: {wrong}; docs/amptorch.md"))
    sigmas = probe_widths(options.sigmas) if isinstance(options.sigmas, int) else options.sigmas
    params: dict[str, Any] = {"square": options.square}
    if options.name == "gmp_groups":
        scheme = "gmp"
        params["MCSHs"] = {str(n): {"groups": groups, "sigmas": sigmas} for n, groups in options.groups.items()}
    else:
        scheme = "gmpordernorm"
        params |= {"MCSHs": {"orders": options.orders, "sigmas": sigmas}, "solid_harmonics": options.solid}
    if options.smooth_cutoff:
        unsupported.append(
            Unsupported("descriptor.smooth_cutoff", "amptorch counts all neighbours the same up to its cutoff")
        )
    if options.cutoff is not None:
        params["cutoff"] = options.cutoff
    files = sorted(Path(options.pseudodensities).glob("*.g")) if options.pseudodensities else []
    by_symbol = {path.name.split("_")[0]: str(path) for path in files}
    if by_symbol:
        params["atom_gaussians"] = {symbol: by_symbol[symbol] for symbol in by_symbol if symbol in atomic_numbers}
    elif options.pseudodensities:
        unsupported.append(Unsupported("descriptor.pseudodensities", f"no .g files in {options.pseudodensities}"))
    else:
        unsupported.append(
            Unsupported(
                "descriptor.pseudodensities",
                "the table of this package is no folder of .g files; give yours as dataset.fp_params.atom_gaussians",
            )
        )
    return {"fp_scheme": scheme, "fp_params": params}


def _symmetry_functions(options: DescriptorOptions) -> dict[str, Any]:
    kinds = {kind: _by_centre(given) for kind, given in (("G2", options.g2), ("G4", options.g4), ("G5", options.g5))}
    params: dict[str, Any] = {}
    for centre in dict.fromkeys(["default", *(centre for given in kinds.values() for centre in given)]):
        params[centre] = {"cutoff": options.cutoff}
        for kind, given in kinds.items():
            # An element of its own has nothing of the default in amptorch; here it has, kind by kind.
            lists = given.get(centre, given.get("default"))
            if lists:
                params[centre][kind] = {"rs_s" if name == "rs" else name: values for name, values in lists.items()}
    name = "Polynomial" if options.cutoff_function == "polynomial" else "Cosine"
    function: dict[str, Any] = {"cutoff_func": name}
    if options.gamma is not None:
        function["gamma"] = options.gamma
    exported = {"fp_scheme": "gaussian", "fp_params": params, "cutoff_params": function}
    return exported if options.elements is None else {**exported, "elements": options.elements}


def _by_centre(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The lists for each element of the centre and `default`."""
    if not given:
        return {}
    return {"default": given} if "etas" in given else given
