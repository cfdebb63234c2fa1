"""A potential from n2p2's files.

Their meaning is that of n2p2 2.3 (Singraber, Behler and Dellago, J. Chem. Theory Comput. 15, 1827 (2019)), whose
program reads the files of RuNNer as well.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.descriptors.symmetry_parameters import Function
from bdqm_tune.errors import BadInput, shown
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.scalers import ElementScaler, FeatureScaler
from bdqm_tune.learning.targets import ReferenceEnergies
from bdqm_tune.n2p2.functions import CUTOFFS, order, parse_function
from bdqm_tune.n2p2.settings import SCALING, SETTINGS, Settings, lines, number
from bdqm_tune.n2p2.units import FileUnits

ACTIVATIONS = {"t": "tanh", "p": "softplus", "r": "relu"}  # of hidden layers; `s` is a tanh of another scale
AS_THEY_ARE = FileUnits("angstrom", "eV")
GENERATIONS = ("1", "2", "2G-HDNNP")  # without charges
Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # weights (n_out, n_in) and biases (n_out,) of each


def load_n2p2(folder: str | Path, length_unit: str = "bohr", energy_unit: str = "hartree") -> NetworkPotential:
    """Read a potential of n2p2 or RuNNer: `input.nn`, `scaling.data`, and `weights.NNN.data` of each element.

    Args:
        length_unit: of the files: `bohr` or `angstrom`.
        energy_unit: `hartree` or `eV`.

    Raises:
        BadInput: a file is missing or damaged, or the potential has something that there is not here, as charges or
            other types of symmetry functions.

    Example:
        >>> from bdqm_tune import load_n2p2
        >>> potential = load_n2p2("nnp-data")  # doctest: +SKIP
        >>> potential.predict([atoms]).energies  # doctest: +SKIP
    """
    path, units = Path(folder), FileUnits(length_unit, energy_unit)
    settings = Settings(path / SETTINGS)
    if (said := settings.units) and (said["length"], said["energy"]) != (length_unit, energy_unit):
        options = f"--length-unit {said['length']} --energy-unit {said['energy']}"
        raise settings.error(f"its lengths are in {said['length']}, its energies in {said['energy']}: {options}")
    elements = _elements(settings)
    descriptor = _descriptor(settings, elements, units)
    shapes = {symbol: _Shape(settings, symbol) for symbol in elements}
    activations = {name for shape in shapes.values() for name in shape.names}
    if len(activations) > 1 or len({len(shape.nodes) for shape in shapes.values()}) > 1:
        raise settings.error(
            "hidden layers of different activations, or networks of different depth, are not supported"
        )
    scalers = _scalers(path / SCALING, settings, elements, descriptor)
    layers = {
        symbol: _weights(
            path / f"weights.{atomic_numbers[symbol]:03d}.data",
            [len(descriptor.functions[symbol]), *shapes[symbol].nodes, 1],
            shapes[symbol],
        )
        for symbol in elements
    }
    widths = [max(own) for own in zip(*(shape.nodes for shape in shapes.values()), strict=True)]
    hyperparameters = Hyperparameters(
        hidden_layers=widths, activation=activations.pop(), network="per_element", initialization="default"
    )
    numbers = [atomic_numbers[symbol] for symbol in elements]
    network = make_network(descriptor.n_features, hyperparameters, numbers).double()
    network.load_state_dict(_state(layers, [descriptor.n_features, *widths, 1]))
    scale, references = _energies(settings, elements)
    return NetworkPotential(
        descriptor,
        ElementScaler(scalers, FeatureScaler(*_identity(descriptor.n_features))),
        ReferenceEnergies({z: energy * units.electronvolt for z, energy in references.items()}, 0.0),
        scale * units.electronvolt,
        hyperparameters,
        network.eval(),
        trained_on_forces="use_short_forces" in settings or None,
        known_elements=tuple(numbers),
    )


class _Shape:
    """The hidden layers of the network of an element."""

    def __init__(self, settings: Settings, symbol: str) -> None:
        n = settings.count(settings.of_element("hidden_layers", symbol)[0], 1)
        nodes, activations = settings.of_element("nodes", symbol), settings.of_element("activation", symbol)
        if len(nodes) != n or len(activations) not in (n, n + 1):
            raise settings.error(
                f"the network of {symbol} has {n} hidden layers, {len(nodes)} numbers of nodes and "
                f"{len(activations)} activations"
            )
        if activations[n:] not in ([], ["l"]):
            raise settings.error(f"the output layer of {symbol} must be linear (l), got {shown(activations[n])}")
        unknown = [name for name in activations[:n] if name not in ACTIVATIONS and name != "s"]
        if unknown:
            known = ", ".join(ACTIVATIONS)
            raise settings.error(f"activation {shown(unknown[0])} is not supported, only {known} and s")
        self.nodes = [settings.count(word, 1) for word in nodes]
        self.activations = activations[:n]
        self.normalised = "normalize_nodes" in settings

    @property
    def names(self) -> set[str]:
        """Our names of the activations. 1/(1 + exp(-x)) = (1 + tanh(x/2))/2: a logistic one becomes a tanh."""
        return {ACTIVATIONS.get(activation, "tanh") for activation in self.activations}


def _elements(settings: Settings) -> list[str]:
    """Symbols, by atomic number."""
    generation = settings.words("nnp_type")[0] if "nnp_type" in settings else GENERATIONS[0]
    if generation not in GENERATIONS:
        raise settings.error(f"a potential of generation {shown(generation)}, with charges, is not supported")
    elements = settings.words("elements")
    unknown = [symbol for symbol in elements if symbol not in chemical_symbols[1:] or elements.count(symbol) > 1]
    if unknown:
        raise settings.error(f"elements: {shown(unknown[0])} is no chemical symbol, or is there twice")
    if settings.value("number_of_elements", len(elements)) != len(elements):
        raise settings.error(f"number_of_elements is not {len(elements)}, the number of elements")
    return sorted(elements, key=atomic_numbers.__getitem__)


def _descriptor(settings: Settings, elements: list[str], units: FileUnits) -> SymmetryFunctions:
    kind, *alpha = settings.words("cutoff_type")
    # An inner radius, in units of the cutoff, which n2p2 does not use with type 2.
    if kind not in CUTOFFS or (kind != "2" and any(settings.number(word) != 0 for word in alpha[:1])):
        text = " ".join([kind, *alpha])
        raise settings.error(f"cutoff_type {shown(text)} is not supported, only {', '.join(CUTOFFS)}, alpha being 0")
    functions: dict[str, list[Function]] = {symbol: [] for symbol in elements}
    in_file: dict[str, list[Function]] = {symbol: [] for symbol in elements}  # with the file's own numbers
    for words in settings.all("symfunction_short", 3):
        try:
            centre, function = parse_function(words, units)
        except BadInput as error:
            raise settings.error(str(error)) from None
        unknown = [symbol for symbol in (centre, *function.neighbours) if symbol not in functions]
        if unknown:
            raise settings.error(f"symfunction_short {shown(' '.join(words))}: {unknown[0]} is not among the elements")
        functions[centre].append(function)
        in_file[centre].append(parse_function(words, AS_THEY_ARE)[1])
    name, gamma = CUTOFFS[kind]
    in_order = {
        symbol: [own[place].options for place in order(in_file[symbol], AS_THEY_ARE)]
        for symbol, own in functions.items()
    }
    try:
        return SymmetryFunctions(elements, cutoff_function=name, gamma=gamma, functions=in_order)
    except BadInput as error:
        raise settings.error(str(error)) from None


def _energies(settings: Settings, elements: list[str]) -> tuple[float, dict[int, float]]:
    """What an output of 1 is, and the energy of an atom apart from the network, in the unit of the files."""
    given = [name for name in ("mean_energy", "conv_energy", "conv_length") if name in settings]
    if len(given) not in (0, 3):
        raise settings.error(f"mean_energy, conv_energy and conv_length belong together; there is {', '.join(given)}")
    conversion, mean = settings.value("conv_energy", 1.0), settings.value("mean_energy", 0.0)
    if conversion <= 0:
        raise settings.error(f"conv_energy must be positive, got {conversion}")
    offsets = {words[0]: settings.number(words[1]) for words in settings.all("atom_energy", 2)}
    unknown = [symbol for symbol in offsets if symbol not in elements]
    if unknown:
        raise settings.error(f"atom_energy: {shown(unknown[0])} is not among the elements")
    return 1 / conversion, {atomic_numbers[symbol]: mean + offsets.get(symbol, 0.0) for symbol in elements}


def _identity(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.zeros(n), np.ones(n)


def _scalers(
    path: Path, settings: Settings, elements: list[str], descriptor: SymmetryFunctions
) -> dict[int, FeatureScaler]:
    """The scaling of each element's functions: an offset and a divisor of each."""
    rows = [line.split() for line in lines(path)]
    low, high = settings.value("scale_min_short", 0.0), settings.value("scale_max_short", 1.0)
    scale, centre = "scale_symmetry_functions" in settings, "center_symmetry_functions" in settings
    sigma = "scale_symmetry_functions_sigma" in settings and not (scale or centre)
    if low >= high:
        raise settings.error("scale_max_short must be above scale_min_short")
    scalers = {}
    for place, symbol in enumerate(elements, 1):
        n = len(descriptor.functions[symbol])
        own = [row for row in rows if row[0] == str(place) and len(row) >= (6 if sigma else 5)]
        if [row[1] for row in own] != [str(number) for number in range(1, n + 1)]:
            raise BadInput(f"{path}: needs a line for each of the {n} functions of {symbol}, has {len(own)}")
        lowest, highest, mean, *deviation = np.array([[number(word, path) for word in row[2:6]] for row in own]).T
        with np.errstate(over="ignore"):
            spread = highest - lowest if scale else deviation[0] if sigma else np.ones(n)
        if not (np.isfinite(spread) & (spread >= 0)).all():
            raise BadInput(f"{path}: a function of {symbol} has a least value above the greatest, or no finite range")
        offset = mean if centre or sigma else lowest if scale else np.zeros(n)
        # A function that is constant in the training data says nothing; n2p2 divides by zero there.
        divisor = np.where(spread > 0, spread, 1.0) / (high - low if scale or sigma else 1.0)
        offsets, divisors = _identity(descriptor.n_features)
        offsets[:n], divisors[:n] = offset - (low if scale or sigma else 0.0) * divisor, divisor
        limits = np.zeros((2, descriptor.n_features))
        limits[:, :n] = lowest, highest
        scalers[atomic_numbers[symbol]] = FeatureScaler(offsets, divisors, range=limits)
    return scalers


def _weights(path: Path, widths: list[int], shape: _Shape) -> Layers:
    """The layers of an element's network, whose activations are all tanh, softplus or relu."""
    values = np.array([number(line.split()[0], path) for line in lines(path)])
    needed = sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths))
    if len(values) != needed:
        raise BadInput(f"{path}: must have {needed} weights and biases for layers of {widths} nodes, has {len(values)}")
    layers: Layers = []
    for n_in, n_out in pairwise(widths):
        block, biases, values = np.split(values, [n_in * n_out, (n_in + 1) * n_out])
        divisor = n_in if shape.normalised else 1
        layers.append((block.reshape(n_in, n_out).T / divisor, biases / divisor))
    for place, activation in enumerate(shape.activations):
        if activation == "s":
            (weights, biases), (after, biases_after) = layers[place], layers[place + 1]
            layers[place] = weights / 2, biases / 2
            layers[place + 1] = after / 2, biases_after + after.sum(axis=1) / 2
    return layers


def _state(layers: dict[str, Layers], widths: list[int]) -> dict[str, torch.Tensor]:
    """The state of the network; what an element does not have of the widest layers has weights of 0."""
    state: dict[str, torch.Tensor] = {}
    for symbol, own in layers.items():
        for place, (weights, biases) in enumerate(own):
            wide, bias = np.zeros((widths[place + 1], widths[place])), np.zeros(widths[place + 1])
            wide[: weights.shape[0], : weights.shape[1]], bias[: len(biases)] = weights, biases
            # A `SingleNN` alternates linear layers and activations.
            prefix = f"networks.{symbol}.{2 * place}"
            state |= {f"{prefix}.weight": torch.as_tensor(wide), f"{prefix}.bias": torch.as_tensor(bias)}
    return state
