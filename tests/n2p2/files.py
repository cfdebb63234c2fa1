"""Folders of n2p2 as its manual describes them, and the energies that they stand for, in bare Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from math import cos, exp, log, pi, tanh
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers

Line = tuple[str, ...]
CUTOFFS = {
    "1": lambda x: (cos(pi * x) + 1) / 2,
    "2": lambda x: tanh(1 - x) ** 3,
    "5": lambda x: (2 * x - 3) * x**2 + 1,
    "6": lambda x: ((15 - 6 * x) * x - 10) * x**3 + 1,
}
ACTIVATIONS = {
    "t": tanh,
    "s": lambda x: 1 / (1 + exp(-x)),
    "p": lambda x: log(1 + exp(x)),
    "r": lambda x: max(x, 0.0),
    "l": lambda x: x,
}
# What follows `symfunction_short`, of each element in the order in which n2p2 numbers them.
FUNCTIONS: dict[str, list[Line]] = {
    "H": [
        ("H", "2", "O", "0.3", "1.5", "7.0"),
        ("H", "2", "H", "0.05", "0.0", "9.0"),
        ("H", "2", "O", "0.05", "0.0", "9.0"),
        ("H", "2", "O", "0.3", "0.0", "9.0"),
        ("H", "2", "O", "0.3", "1.5", "9.0"),
        ("H", "3", "O", "H", "0.02", "-1", "1.0", "9.0"),
        ("H", "3", "H", "O", "0.02", "1", "1.0", "9.0"),
        ("H", "3", "O", "H", "0.02", "-1", "4.0", "9.0"),
        ("H", "9", "O", "O", "0.01", "1", "2.5", "8.0"),
    ],
    "O": [
        ("O", "2", "H", "0.1", "0.5", "9.0"),
        ("O", "2", "O", "0.1", "0.5", "9.0"),
        ("O", "3", "H", "H", "0.03", "1", "1.0", "8.0"),
        ("O", "9", "O", "H", "0.03", "-1", "2.0", "9.0"),
    ],
}


def mixture() -> Atoms:
    """Six atoms of hydrogen and oxygen in a small skewed periodic cell."""
    positions = [[0, 0, 0], [0.9, 0.3, 0], [2.1, 1.9, 0.4], [0.2, 2.4, 1.8], [1.5, 0.4, 2.6], [2.9, 2.8, 2.7]]
    return Atoms("OHHOHO", positions, cell=[[4.1, 0, 0], [0.5, 4.4, 0], [0, 0.7, 4.6]], pbc=True)


@dataclass
class Folder:
    """A potential, whose numbers are drawn at random."""

    functions: Mapping[str, Sequence[Line]] = field(default_factory=lambda: FUNCTIONS)
    nodes: Mapping[str, Sequence[int]] = field(default_factory=lambda: {"H": [4, 3], "O": [4, 3]})
    activations: str = "tt"
    cutoff: str = "1"
    scaling: Sequence[str] = ("scale_symmetry_functions",)
    extra: Sequence[str] = ()

    def __post_init__(self) -> None:
        random = np.random.default_rng(3)
        self.statistics, self.layers = {}, {}
        for element, own in self.functions.items():
            mean, deviation = random.uniform(0.2, 1, len(own)), random.uniform(0.1, 0.4, len(own))
            self.statistics[element] = [mean - deviation * 2, mean + deviation * 3, mean, deviation]
            widths = [len(own), *self.nodes[element], 1]
            self.layers[element] = [
                (random.normal(size=(n_out, n_in)), random.normal(size=n_out)) for n_in, n_out in pairwise(widths)
            ]

    def write(self, folder: Path) -> Path:
        """The files, the functions of `input.nn` in another order than n2p2's."""
        elements = list(self.functions)
        lines = [f"number_of_elements {len(elements)}", f"elements {' '.join(reversed(elements))} # not by number"]
        lines += ["", "# a comment", f"cutoff_type {self.cutoff}", *self.scaling, *self.extra]
        lines += [f"global_hidden_layers_short {len(self.activations)}"]
        lines += [f"global_nodes_short {' '.join(map(str, self.nodes[elements[0]]))}"]
        lines += [f"global_activation_short {' '.join(self.activations)} l"]
        lines += [
            f"element_nodes_short {element} {' '.join(map(str, self.nodes[element]))}" for element in elements[1:]
        ]
        for element in elements:
            lines += [f"symfunction_short {'  '.join(line)}" for line in reversed(self.functions[element])]
            rows = [
                f"{value:.17g} {'a' if of_weights else 'b'} 1"
                for weights, biases in self.layers[element]
                for of_weights, values in ((True, weights.T.ravel()), (False, biases))
                for value in values
            ]
            name = f"weights.{atomic_numbers[element]:03d}.data"
            (folder / name).write_text("\n".join(["# values", *rows]) + "\n")
        (folder / "input.nn").write_text("\n".join(lines) + "\n")
        rows = [
            f"{place} {number} " + " ".join(f"{column:.17g}" for column in columns)
            for place, element in enumerate(elements, 1)
            for number, columns in enumerate(zip(*self.statistics[element], strict=True), 1)
        ]
        (folder / "scaling.data").write_text("\n".join(["# statistics", *rows, "-1.0 2.0"]) + "\n")
        return folder

    def energy(self, atoms: Atoms) -> float:
        """In the units of the files, lengths being in bohr, without what `extra` says."""
        total = 0.0
        around = _neighbours(atoms)
        for atom, element in enumerate(atoms.symbols):
            values = np.array([self._function(line, around[atom]) for line in self.functions[element]])
            values = self._scaled(values, self.statistics[element])
            for (weights, biases), name in zip(self.layers[element], [*self.activations, "l"], strict=True):
                values = np.array([ACTIVATIONS[name](x) for x in weights @ values + biases])
            total += values[0]
        return total

    def _scaled(self, values: np.ndarray, statistics: Sequence[np.ndarray]) -> np.ndarray:
        low, high, mean, deviation = statistics
        match [word.split()[0] for word in self.scaling]:
            case ["scale_symmetry_functions", "center_symmetry_functions"]:
                return (values - mean) / (high - low)
            case ["scale_symmetry_functions", "scale_min_short", "scale_max_short"]:
                return -1 + 3 * (values - low) / (high - low)  # from -1 to 2
            case ["scale_symmetry_functions"]:
                return (values - low) / (high - low)
            case ["center_symmetry_functions"]:
                return values - mean
            case ["scale_symmetry_functions_sigma"]:
                return (values - mean) / deviation
            case _:
                return values

    def _function(self, line: Line, around: Sequence[tuple[str, np.ndarray]]) -> float:
        cut = CUTOFFS[self.cutoff]
        if line[1] == "2":
            eta, shift, radius = map(float, line[3:])
            distances = [np.linalg.norm(r) for symbol, r in around if symbol == line[2]]
            return sum(exp(-eta * (d - shift) ** 2) * cut(d / radius) for d in distances if d < radius)
        eta, sign, zeta, radius = map(float, line[4:])
        value = 0.0
        for (first, u), (second, v) in combinations(around, 2):
            a, b, c = np.linalg.norm(u), np.linalg.norm(v), np.linalg.norm(u - v)
            if sorted((first, second)) != sorted(line[2:4]) or max(a, b) >= radius:
                continue
            term = 2 ** (1 - zeta) * (1 + sign * (u @ v) / (a * b)) ** zeta * cut(a / radius) * cut(b / radius)
            if line[1] == "3":
                value += term * exp(-eta * (a**2 + b**2 + c**2)) * cut(c / radius) if c < radius else 0.0
            else:
                value += term * exp(-eta * (a**2 + b**2))
        return value


def _neighbours(atoms: Atoms) -> list[list[tuple[str, np.ndarray]]]:
    """Symbol and vector, bohr, of all images within 10 bohr of each atom."""
    found: list[list[tuple[str, np.ndarray]]] = []
    shifts = [np.array(shift) @ atoms.cell.array for shift in np.ndindex(7, 7, 7)]
    middle = np.array([3, 3, 3]) @ atoms.cell.array
    for centre in atoms.positions:
        own = []
        for symbol, position in zip(atoms.symbols, atoms.positions, strict=True):
            for shift in shifts:
                vector = (position + shift - middle - centre) / units.Bohr
                if 1e-6 < np.linalg.norm(vector) < 10:
                    own.append((symbol, vector))
        found.append(own)
    return found
