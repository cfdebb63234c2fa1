"""The splits of a dataset as amptorch's data, with the features and derivatives that its own descriptors compute."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from bdqm_tune.backends.amptorch_adapters import amptorchs_globals
from bdqm_tune.backends.amptorch_copies import lies_within, shifted_copies
from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.amptorch_faults import wrong_without_derivatives
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.learning.dataset import Dataset, Split
from bdqm_tune.learning.scalers import Scaler

# Largest difference of its features from ours, relative to the largest of their column; one below `ZERO` is rounding.
TOLERANCE, ZERO = 1e-6, 1e-6
DROPPED = 1e-5  # 1/Å; derivatives below it are 0 there


class Images(torch.utils.data.Dataset[Any]):
    """Images as amptorch trains on them: one object of torch-geometric each."""

    def __init__(self, data: list[Any], differing: list[int]) -> None:
        """
        Args:
            differing: the images, by their numbers in the file, of which its features are not those of the descriptor
                unless it is given a shifted copy.
        """
        self._data, self.differing = data, differing

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        return self._data[index]


def split_images(dataset: Dataset, split: Split, dtype: torch.dtype, forces: bool, own: bool = False) -> Images:
    """A split with amptorch's features, scaled as the dataset scales features, and with scaled targets.

    amptorch would fit its scalers on training and validation split together. Where its features of a structure are not
    those of the descriptor, it is given a shifted copy, of which they are.

    Args:
        forces: with forces and derivatives of the features, for training on forces.
        own: its features are taken as they are, whether they are those of the descriptor or not.

    Raises:
        BadInput: amptorch cannot describe an image, or not as the descriptor does.
    """
    data, differing = _described(dataset, split, forces, own)
    features = np.concatenate([image.fingerprint.numpy() for image in data])
    scaled = dataset.scaler(features, split.numbers)
    ends = np.cumsum(split.structures.n_atoms)[:-1]
    for i, (image, target, rows, own_features, numbers) in enumerate(
        zip(
            data,
            dataset.scaled_targets(split),
            np.split(scaled, ends),
            np.split(features, ends),
            np.split(split.numbers, ends),
            strict=True,
        )
    ):
        image.fingerprint = torch.as_tensor(rows, dtype=dtype)
        image.energy = torch.tensor(target, dtype=dtype)
        if forces:
            assert split.structures.forces is not None
            image.forces = torch.as_tensor(split.structures.forces[i] / dataset.scale, dtype=dtype)
            image.fprimes = _scaled(image.fprimes, dataset.scaler, own_features, numbers, dtype)
        elif "fprimes" in image:
            del image.fprimes
    return Images(data, differing)


def _described(dataset: Dataset, split: Split, forces: bool, own: bool) -> tuple[list[Any], list[int]]:
    """amptorch's data, in which `fingerprint` (n_atoms, n_features) and `fprimes` are not scaled yet.

    Returns them, and the images of which its features, as they are, are not those of the descriptor.
    """
    from amptorch.dataset import construct_descriptor
    from amptorch.preprocessing import AtomsToData

    descriptor, structures = dataset.descriptor, split.structures
    symbols = [dataset.train.structures.elements, dataset.validation.structures.elements]
    elements = sorted(set().union(*symbols), key=lambda symbol: atomic_numbers[symbol])
    ours = np.asarray(split.features)
    largest = np.maximum(np.abs(ours).max(axis=0), ZERO)
    data, differing = [], []
    with amptorchs_globals(torch.float64), TemporaryDirectory() as folder:
        setup = descriptor_setup(descriptor, elements, Path(folder))
        derived = forces or _needs_derivatives(descriptor, own)
        converter = AtomsToData(construct_descriptor(setup), save_fps=False, fprimes=derived)
        ends = np.cumsum(structures.n_atoms)[:-1]
        for i, atoms, expected in zip(structures.images, structures.atoms, np.split(ours, ends), strict=True):
            try:
                image, is_other = _describe(converter.convert, atoms, expected, largest, own)
                if forces and not own:
                    _check_derivatives(image.fprimes, atoms, descriptor)
            except BadInput as error:
                where = f"{structures.source} image {i}, its {descriptor.settings['name']}"
                raise BadInput(f"backend amptorch: {where}: {error}") from error
            data.append(image)
            if is_other:
                differing.append(int(i))
    return data, differing


def _needs_derivatives(descriptor: Descriptor, own: bool) -> bool:
    """Whether amptorch's features come out right only where it computes derivatives as well."""
    if isinstance(descriptor, SymmetryFunctions):
        return descriptor.cutoff_function == "polynomial"  # without them it raises an error
    return not own and wrong_without_derivatives(descriptor.settings) != ""


def _describe(
    convert: Callable[[Atoms, int], Any],
    atoms: Atoms,
    ours: NDArray[np.float64],
    largest: NDArray[np.float64],
    own: bool,
) -> tuple[Any, bool]:
    """amptorch's data of a structure or, where its features are not ours, of a copy with the same neighbours.

    Args:
        ours: (n_atoms, n_features).
        largest: (n_features,) of the whole split, by which the difference is measured.
        own: take the first that amptorch can describe.

    Returns the data, and whether the structure as it is was not described as ours.

    Raises:
        BadInput: it cannot be described, or its features are not ours in any copy.
    """
    problem = ""
    as_it_is = [atoms] if lies_within(atoms) else []
    for candidate in chain(as_it_is, shifted_copies(atoms)):
        try:
            data = convert(candidate, 0)
        except Exception as error:  # of whatever kind
            problem = problem or f"amptorch cannot compute it, nor that of shifted copies ({one_line(error)})"
            continue
        theirs = data.fingerprint.numpy()
        if theirs.shape != ours.shape:
            raise BadInput(f"amptorch has {theirs.shape[1]} features, not {ours.shape[1]}")
        deviation = np.abs(theirs - ours).max(axis=0) / largest
        agrees = bool(deviation.max() <= TOLERANCE)  # not where they are no numbers
        if agrees or (own and np.isfinite(theirs).all()):
            return data, candidate is not atoms or not agrees
        problem = problem or (
            f"feature {deviation.argmax()} is not that of the descriptor, but off by {deviation.max():.1e} of the "
            "largest value, in shifted copies too; docs/amptorch.md says where amptorch differs, and "
            "`amptorch_features: own` takes its features as they are"
        )
    raise BadInput(problem)


def _check_derivatives(theirs: torch.Tensor, atoms: Atoms, descriptor: Descriptor) -> None:
    """Raise BadInput where derivatives (n_atoms · n_features, 3 n_atoms), 1/Å, are not those of the descriptor."""
    ours = descriptor.sparse_derivatives(atoms)[1].dense(len(atoms))
    error = np.abs(theirs.to_dense().numpy().reshape(ours.shape) - ours).max(axis=(0, 2, 3))
    beyond = error - DROPPED - TOLERANCE * np.abs(ours).max(axis=(0, 2, 3))
    if not beyond.max() <= 0:
        worst = int(beyond.argmax())
        raise BadInput(
            f"the derivatives of feature {worst} are not those of the descriptor, but off by {error[worst]:.1e} per Å; "
            "train without forces; docs/amptorch.md says where amptorch differs, and `amptorch_features: own` takes "
            "them as they are"
        )


def descriptor_setup(descriptor: Descriptor, elements: list[str], folder: Path) -> tuple[str, Any, Any, list[str]]:
    """The same descriptor in amptorch's words: scheme, parameters, cutoff function, elements.

    Args:
        elements: symbols, by atomic number.
        folder: where the pseudo-densities are put for amptorch to read them.

    Raises:
        BadInput: amptorch has no such descriptor.
    """
    match descriptor:
        case SymmetryFunctions():
            functions = {element: _functions(descriptor, element) for element in descriptor.elements}
            gamma = {} if descriptor.gamma is None else {"gamma": descriptor.gamma}
            return "gaussian", functions, {"cutoff_func": descriptor.cutoff_function, **gamma}, descriptor.elements
        case GMP():
            harmonics: dict[str, Any] = {"orders": descriptor.orders, "sigmas": descriptor.sigmas}
            options = {"solid_harmonics": descriptor.solid}
            scheme = "gmpordernorm"
        case GMPGroups():
            harmonics = {
                str(order): {"groups": groups, "sigmas": descriptor.sigmas}
                for order, groups in descriptor.groups.items()
            }
            options, scheme = {}, "gmp"
        case _:
            raise BadInput(f"backend amptorch: it has no descriptor like {type(descriptor).__name__}")
    if descriptor.smooth_cutoff:
        raise BadInput("backend amptorch: it has no smooth cutoff; set descriptor.smooth_cutoff: false")
    files = {}
    for element in elements:
        density = descriptor.table[atomic_numbers[element]]
        files[element] = str(folder / f"{element}_density.g")
        np.savetxt(files[element], np.stack([density.amplitude, density.exponent], axis=1), fmt="%.17g")
    shared = {"cutoff": descriptor.cutoff, "square": descriptor.square, "atom_gaussians": files}
    return scheme, {"MCSHs": harmonics, **shared, **options}, {}, elements


def _functions(descriptor: SymmetryFunctions, element: str) -> dict[str, Any]:
    if descriptor.one_by_one:
        raise BadInput("backend amptorch: it takes combinations of parameters; give g2, g4, g5, not functions")
    if descriptor.cutoff_function not in ("cosine", "polynomial"):
        raise BadInput(f"backend amptorch: it has no {descriptor.cutoff_function} cutoff function")
    functions: dict[str, Any] = {"cutoff": descriptor.cutoffs[element]}
    for name, given in (("G2", descriptor.g2), ("G4", descriptor.g4), ("G5", descriptor.g5)):
        if element in given:
            functions[name] = {"rs_s" if key == "rs" else key: values for key, values in given[element].items()}
    return functions


def _scaled(
    derivatives: torch.Tensor,
    scaler: Scaler,
    features: NDArray[np.float64],
    numbers: NDArray[np.int64],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Derivatives (n_atoms · n_features, 3 n_atoms) of the scaled features, sparse, from those of the features."""
    by_atom = derivatives.to_dense().numpy().reshape(*features.shape, -1).transpose(0, 2, 1)
    scaled = scaler.of_inputs(by_atom, features, numbers).transpose(0, 2, 1).reshape(derivatives.shape)
    return torch.as_tensor(scaled, dtype=dtype).to_sparse_coo()
