"""A potential as n2p2's files, which LAMMPS runs by `pair_style hdnnp`.

n2p2 scales each function for itself, gives each element a network of its own, and knows no products, so that all that
is linear here goes into the weights: a whitening into those of the first layer, the scale of the energies into those of
the last, and functions that an element does not have into its biases.
"""

import contextlib
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from torch import nn

from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.errors import BadInput
from bdqm_tune.files import write_whole
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import BatchNorm, MixedNN, PerElementNN
from bdqm_tune.learning.potential import Potential
from bdqm_tune.learning.scalers import ElementScaler, FeatureScaler
from bdqm_tune.n2p2.functions import CUTOFFS, function_line, order
from bdqm_tune.n2p2.reading import ACTIVATIONS, Layers
from bdqm_tune.n2p2.settings import SCALING, SETTINGS
from bdqm_tune.n2p2.units import FileUnits


def export_n2p2(
    potential: Potential, folder: str | Path, length_unit: str = "bohr", energy_unit: str = "hartree"
) -> list[str]:
    """Write `input.nn`, `scaling.data` and the weights of each element of a potential of symmetry functions.

    Args:
        folder: made where it is missing; files of these names that are there are replaced.
        length_unit: of the files: `bohr` or `angstrom`.
        energy_unit: `hartree` or `eV`.

    Returns:
        The lines with which LAMMPS, in its units `metal`, runs them.

    Raises:
        BadInput: n2p2 has no equal of some part; the message says which, and how to train without it.
        OSError: a file cannot be written.

    """
    if not isinstance(potential, NetworkPotential):
        raise BadInput("n2p2 cannot have this model: it is no network on symmetry functions; train one with native")
    units, path = FileUnits(length_unit, energy_unit), Path(folder)
    descriptor = potential.descriptor
    if obstacles := _obstacles(potential):
        raise BadInput(f"n2p2 cannot have this model: {'; '.join(obstacles)}")
    assert isinstance(descriptor, SymmetryFunctions)
    symbols = _elements(potential, descriptor)
    layers = {symbol: _layers(potential, symbol) for symbol in symbols}
    settings = _settings(potential, descriptor, symbols, [len(biases) for _, biases in layers[symbols[0]]], units)
    scaling, weights = [], {}
    for place, symbol in enumerate(symbols, 1):
        functions, scaler = descriptor.functions[symbol], _scaler(potential, symbol)
        columns = [column for column in order(functions, units) if set(functions[column].neighbours) <= set(symbols)]
        if not columns:
            raise BadInput(f"n2p2 needs symmetry functions of every element, there are none of {symbol}")
        settings += [f"symfunction_short {function_line(symbol, functions[column], units)}" for column in columns]
        scaling += _scaling(place, columns, scaler)
        in_order = _folded(layers[symbol], scaler, columns, potential.scale / units.electronvolt)
        weights[f"weights.{atomic_numbers[symbol]:03d}.data"] = _weights(in_order)
    contents = {SETTINGS: settings, SCALING: scaling, **weights}
    written = []
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, rows in contents.items():
            written.append(path / name)
            write_whole(path / name, "\n".join(rows) + "\n")
    except OSError:
        for file in written:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()  # unless other files are in it
        raise
    return _lammps(descriptor, symbols, path, units)


def _lammps(descriptor: SymmetryFunctions, symbols: list[str], folder: Path, units: FileUnits) -> list[str]:
    """The two lines with which LAMMPS, in its units `metal`, runs the files in a folder."""
    cutoff = max(function.cutoff for symbol in symbols for function in descriptor.functions[symbol])
    # A hair above, since n2p2 refuses a cutoff that rounding makes smaller than that of the functions. It sums up
    # warnings of what is outside the training split, and stops at `maxew`.
    options = "showew no maxew 1000000 resetew yes"
    conversion = f"cflength {1 / units.angstrom!r} cfenergy {1 / units.electronvolt!r}"
    where = f'"{folder}"' if any(character.isspace() for character in str(folder)) else str(folder)
    return [
        f"pair_style hdnnp {cutoff * (1 + 1e-9):.12g} dir {where} {options} {conversion}",
        f"pair_coeff * * {' '.join(symbols)}",
    ]


def _obstacles(potential: NetworkPotential) -> list[str]:
    """What n2p2 has no equal of, each with what to train in its place."""
    descriptor, network = potential.descriptor, potential.network
    activation, known = potential.hyperparameters.activation, ", ".join(ACTIVATIONS.values())
    options = []
    found = []
    if not isinstance(descriptor, SymmetryFunctions):
        found.append("it has symmetry functions only")
        options.append("descriptor.name=symmetry_functions")
    elif (descriptor.cutoff_function, descriptor.gamma) not in CUTOFFS.values():
        found.append("it has no polynomial cutoff function but that of gamma 2")
        options.append("descriptor.gamma=2")
    if activation not in ACTIVATIONS.values():
        found.append(f"it has no {activation}, but {known}")
        options.append("activation=tanh")
    scalers = [potential.scaler]
    if isinstance(potential.scaler, ElementScaler):
        scalers = [potential.scaler.others, *potential.scaler.per_element.values()]
    if any(isinstance(scaler, FeatureScaler) and scaler.floor is not None for scaler in scalers):
        whitened = any(isinstance(scaler, FeatureScaler) and scaler.matrix is not None for scaler in scalers)
        found.append("it takes no logarithm of its functions")
        options.append("descriptor.logarithm=false" if whitened else "descriptor.scaling=standardise")
    suggestion = [f"train with `--set {','.join(options)}`"] if options else []
    if isinstance(network, MixedNN):
        found.append("it has one network an element; here an atom takes a share of each")
    if potential.shift:
        found.append("it has no energy of a structure as such; this model adds one, as amptorch's do")
    return found + suggestion if found else []


def _elements(potential: NetworkPotential, descriptor: SymmetryFunctions) -> list[str]:
    """Symbols of what the potential knows, by atomic number: n2p2 has no network for others."""
    known = potential.known_elements or [atomic_numbers[symbol] for symbol in descriptor.elements]
    return [symbol for symbol in descriptor.elements if atomic_numbers[symbol] in known]


def _scaler(potential: NetworkPotential, symbol: str) -> FeatureScaler:
    scaler = potential.scaler
    if isinstance(scaler, ElementScaler):
        scaler = scaler.per_element.get(atomic_numbers[symbol], scaler.others)
    assert isinstance(scaler, FeatureScaler)
    return scaler


def _layers(potential: NetworkPotential, symbol: str) -> Layers:
    """Weights and biases of the network of an element; a batch normalisation is part of the layer before it."""
    network = potential.network
    own = network.networks[symbol] if isinstance(network, PerElementNN) else network
    layers: Layers = []
    for module in own.children():
        if isinstance(module, nn.Linear):
            layers.append((module.weight.detach().double().numpy(), module.bias.detach().double().numpy()))
        elif isinstance(module, BatchNorm):
            weights, biases = layers[-1]
            mean, variance, gain, shift = (
                part.detach().double().numpy()
                for part in (module.running_mean, module.running_var, module.weight, module.bias)
                if part is not None
            )
            gain = gain / np.sqrt(variance + module.eps)
            layers[-1] = weights * gain[:, None], (biases - mean) * gain + shift
    return layers


def _settings(
    potential: NetworkPotential, descriptor: SymmetryFunctions, symbols: list[str], widths: list[int], units: FileUnits
) -> list[str]:
    cutoff = descriptor.cutoff_function, descriptor.gamma
    kind = next(number for number, known in CUTOFFS.items() if known == cutoff)
    letter = next(letter for letter, name in ACTIVATIONS.items() if name == potential.hyperparameters.activation)
    references = potential.references
    own = [references.per_element.get(atomic_numbers[symbol], references.fallback) for symbol in symbols]
    return [
        f"# Lengths are in {units.length}, energies in {units.energy}.",
        f"number_of_elements {len(symbols)}",
        f"elements {' '.join(symbols)}",
        *(f"atom_energy {s} {energy / units.electronvolt!r}" for s, energy in zip(symbols, own, strict=True)),
        f"cutoff_type {kind}",
        "scale_symmetry_functions_sigma",
        "scale_min_short 0.0",
        "scale_max_short 1.0",
        f"global_hidden_layers_short {len(widths) - 1}",
        f"global_nodes_short {' '.join(map(str, widths[:-1]))}",
        f"global_activation_short {' '.join([letter] * (len(widths) - 1))} l",
    ]


def _scaling(place: int, columns: list[int], scaler: FeatureScaler) -> list[str]:
    """A line for each function: element, number, least and greatest value, mean, deviation.

    n2p2 warns of values beyond the two, and LAMMPS stops at many warnings: where the range is not known, none is given.
    """
    low, high = np.array([[-1e30], [1e30]]).repeat(len(scaler.offset), 1) if scaler.range is None else scaler.range
    return [
        f"{place:4d} {number:4d} "
        + " ".join(
            f"{value:.16E}" for value in (low[column], high[column], scaler.offset[column], scaler.divisor[column])
        )
        for number, column in enumerate(columns, 1)
    ]


def _folded(layers: Layers, scaler: FeatureScaler, columns: list[int], scale: float) -> Layers:
    """The layers for the scaled functions in n2p2's order, and energies in the unit of the files."""
    (first, bias), *others = layers
    if scaler.matrix is not None:
        first = first @ scaler.matrix.T
    absent = np.setdiff1d(np.arange(first.shape[1]), columns)  # 0 for every atom of the element
    bias = bias - first[:, absent] @ (scaler.offset / scaler.divisor)[absent]
    folded = [(first[:, columns], bias), *others]
    weights, biases = folded[-1]
    folded[-1] = weights * scale, biases * scale
    return folded


def _weights(layers: Layers) -> list[str]:
    """A line a number: of each layer the weights, node by node of the layer before, then the biases."""
    return [f"{value:.16E}" for weights, biases in layers for value in (*weights.T.ravel(), *biases)]
