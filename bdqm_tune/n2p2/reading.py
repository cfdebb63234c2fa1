"""A potential from n2p2's files.

Their meaning is that of n2p2 2.3 (Singraber, Behler and Dellago, J. Chem. Theory Comput. 15, 1827 (2019)), whose
program reads the files of RuNNer as well.
"""

import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.descriptors.symmetry_parameters import Function
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.potential import Potential
from bdqm_tune.learning.scalers import ElementScaler, FeatureScaler
from bdqm_tune.learning.targets import ReferenceEnergies
from bdqm_tune.n2p2.functions import CUTOFFS, order, parse_function
from bdqm_tune.n2p2.units import FileUnits

SETTINGS, SCALING = "input.nn", "scaling.data"
ACTIVATIONS = {"t": "tanh", "p": "softplus", "r": "relu"}  # of hidden layers; `s` is a tanh of another scale
Keywords = dict[str, list[list[str]]]  # the words after each occurrence of a keyword
Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # weights (n_out, n_in) and biases (n_out,) of each


def load_n2p2(folder: str | Path, length_unit: str = "bohr", energy_unit: str = "hartree") -> Potential:
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
    keywords = _keywords(path / SETTINGS)
    try:
        elements = _elements(keywords)
        descriptor = _descriptor(keywords, elements, units)
        shapes = {symbol: _Shape.of(keywords, symbol) for symbol in elements}
    except BadInput as error:
        raise BadInput(f"{path / SETTINGS}: {error}") from None
    scaler = ElementScaler(
        _scalers(path / SCALING, keywords, elements, descriptor), FeatureScaler(*_identity(descriptor.n_features))
    )
    layers = {
        symbol: _weights(
            path / f"weights.{atomic_numbers[symbol]:03d}.data",
            [len(descriptor.functions[symbol]), *shapes[symbol].nodes, 1],
            shapes[symbol],
        )
        for symbol in elements
    }
    activations = {name for shape in shapes.values() for name in shape.names}
    if len(activations) > 1 or len({len(shape.nodes) for shape in shapes.values()}) > 1:
        raise BadInput(
            f"{path / SETTINGS}: hidden layers of different activations, or networks of different depth, are not "
            "supported"
        )
    widths = [max(own) for own in zip(*(shape.nodes for shape in shapes.values()), strict=True)]
    hyperparameters = Hyperparameters(
        hidden_layers=widths, activation=activations.pop(), network="per_element", initialization="default"
    )
    numbers = [atomic_numbers[symbol] for symbol in elements]
    network = make_network(descriptor.n_features, hyperparameters, numbers).double()
    network.load_state_dict(_state(layers, [descriptor.n_features, *widths, 1]))
    conversion = _value(keywords, "conv_energy", 1.0)
    mean = _value(keywords, "mean_energy", 0.0)
    offsets = {words[0]: _float(words[1]) for words in keywords.get("atom_energy", []) if len(words) > 1}
    references = {z: (mean + offsets.get(s, 0.0)) * units.electronvolt for s, z in zip(elements, numbers, strict=True)}
    return Potential(
        descriptor,
        scaler,
        ReferenceEnergies(references, 0.0),
        units.electronvolt / conversion,
        hyperparameters,
        network.eval(),
        trained_on_forces="use_short_forces" in keywords or None,
        known_elements=tuple(sorted(numbers)),
    )


class _Shape:
    """The hidden layers of the network of an element."""

    def __init__(self, nodes: list[int], activations: list[str], normalised: bool) -> None:
        self.nodes, self.activations, self.normalised = nodes, activations, normalised

    @classmethod
    def of(cls, keywords: Keywords, symbol: str) -> "_Shape":
        def own(name: str) -> list[str]:
            for words in keywords.get(f"element_{name}_short", []):
                if words[0] == symbol:
                    return words[1:]
            return _words(keywords, f"global_{name}_short")

        n = int(_float(own("hidden_layers")[0]))
        nodes, activations = own("nodes"), own("activation")
        if len(nodes) != n or len(activations) not in (n, n + 1):
            raise BadInput(
                f"the network of {symbol} has {n} hidden layers, {len(nodes)} numbers of nodes and "
                f"{len(activations)} activations"
            )
        if activations[n:] not in ([], ["l"]):
            raise BadInput(f"the output layer of {symbol} must be linear (l), got {activations[n]}")
        unknown = [name for name in activations[:n] if name not in ACTIVATIONS and name != "s"]
        if unknown:
            raise BadInput(f"activation {unknown[0]} is not supported, only {', '.join(ACTIVATIONS)} and s")
        return cls([int(_float(word)) for word in nodes], activations[:n], "normalize_nodes" in keywords)

    @property
    def names(self) -> set[str]:
        """Our names of the activations. 1/(1 + exp(-x)) = (1 + tanh(x/2))/2: a logistic one becomes a tanh."""
        return {ACTIVATIONS.get(activation, "tanh") for activation in self.activations}


def _keywords(path: Path) -> Keywords:
    found: Keywords = defaultdict(list)
    for line in _lines(path):
        first, *others = line.split()
        found[first].append(others)
    return dict(found)


def _lines(path: Path) -> list[str]:
    """The lines that say something: without comments and blank ones."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); a potential of n2p2 is a folder with {SETTINGS}, "
            f"{SCALING} and weights.NNN.data, NNN being the atomic number of each element"
        ) from None
    return [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]


def _words(keywords: Keywords, name: str) -> list[str]:
    if not keywords.get(name) or not keywords[name][-1]:
        raise BadInput(f"{name} is missing")
    return keywords[name][-1]


def _value(keywords: Keywords, name: str, default: float) -> float:
    return _float(_words(keywords, name)[0]) if name in keywords else default


def _float(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{word!r} is no number")
    return value


def _elements(keywords: Keywords) -> list[str]:
    """Symbols, by atomic number."""
    generation = keywords.get("nnp_generation") or keywords.get("nnp_type") or [["2"]]
    if generation[-1][:1] not in (["2"], ["2G-HDNNP"], ["1"]):
        raise BadInput(f"a potential of generation {' '.join(generation[-1])}, with charges, is not supported")
    elements = _words(keywords, "elements")
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown:
        raise BadInput(f"elements: {unknown[0]!r} is no chemical symbol")
    return sorted(elements, key=atomic_numbers.__getitem__)


def _descriptor(keywords: Keywords, elements: list[str], units: FileUnits) -> SymmetryFunctions:
    kind, *alpha = _words(keywords, "cutoff_type")
    if kind not in CUTOFFS or any(_float(word) != 0 for word in alpha[:1]):
        raise BadInput(f"cutoff_type {' '.join([kind, *alpha])} is not supported, only {', '.join(CUTOFFS)} with 0")
    functions: dict[str, list[Function]] = {symbol: [] for symbol in elements}
    for words in keywords.get("symfunction_short", []):
        centre, function = parse_function(words, units)
        unknown = [symbol for symbol in (centre, *function.neighbours) if symbol not in functions]
        if unknown:
            raise BadInput(f"symfunction_short {' '.join(words)}: {unknown[0]} is not among the elements")
        functions[centre].append(function)
    name, gamma = CUTOFFS[kind]
    in_order = {symbol: [own[place].options for place in order(own)] for symbol, own in functions.items()}
    return SymmetryFunctions(elements, cutoff_function=name, gamma=gamma, functions=in_order)


def _identity(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.zeros(n), np.ones(n)


def _scalers(
    path: Path, keywords: Keywords, elements: list[str], descriptor: SymmetryFunctions
) -> dict[int, FeatureScaler]:
    """The scaling of each element's functions: an offset and a divisor of each."""
    rows = [line.split() for line in _lines(path)]
    low, high = _value(keywords, "scale_min_short", 0.0), _value(keywords, "scale_max_short", 1.0)
    scale, centre = "scale_symmetry_functions" in keywords, "center_symmetry_functions" in keywords
    sigma = "scale_symmetry_functions_sigma" in keywords and not (scale or centre)
    scalers = {}
    for place, symbol in enumerate(elements, 1):
        n = len(descriptor.functions[symbol])
        own = [row for row in rows if row[0] == str(place) and len(row) >= (6 if sigma else 5)]
        if [row[1] for row in own] != [str(number) for number in range(1, n + 1)]:
            raise BadInput(f"{path}: needs a line for each of the {n} functions of {symbol}, has {len(own)}")
        lowest, highest, mean, *deviation = np.array([[_float(word) for word in row[2:6]] for row in own]).T
        spread = highest - lowest if scale else deviation[0] if sigma else np.ones(n)
        offset = mean if centre or sigma else lowest if scale else np.zeros(n)
        factor = np.full(n, high - low if scale or sigma else 1.0)
        if not (factor > 0).all():
            raise BadInput(f"{path.parent / SETTINGS}: scale_max_short must be above scale_min_short")
        # A function that is constant in the training data says nothing; n2p2 divides by zero there.
        divisor = np.where(spread > 0, spread, 1.0) / factor
        offsets, divisors = _identity(descriptor.n_features)
        offsets[:n], divisors[:n] = offset - (low if scale or sigma else 0.0) * divisor, divisor
        limits = np.zeros((2, descriptor.n_features))
        limits[:, :n] = lowest, highest
        scalers[atomic_numbers[symbol]] = FeatureScaler(offsets, divisors, range=limits)
    return scalers


def _weights(path: Path, widths: list[int], shape: _Shape) -> Layers:
    """The layers of an element's network, whose activations are all tanh, softplus or relu."""
    try:
        values = np.array([_float(line.split()[0]) for line in _lines(path)])
    except BadInput as error:
        raise BadInput(str(error) if str(path) in str(error) else f"{path}: {error}") from None
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
