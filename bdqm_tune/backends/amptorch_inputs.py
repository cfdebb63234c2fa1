"""The splits of a dataset as amptorch's data, with the features and derivatives that its own descriptors compute."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from bdqm_tune.backends.amptorch_adapters import amptorchs_globals
from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.learning.dataset import Dataset, Split

# Largest difference of its features from ours, relative to the largest of their column; one below `ZERO` is rounding.
TOLERANCE, ZERO = 1e-6, 1e-6


class Images(torch.utils.data.Dataset[Any]):
    """Images as amptorch trains on them: one object of torch-geometric each."""

    def __init__(self, data: list[Any]) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        return self._data[index]


def split_images(dataset: Dataset, split: Split, dtype: torch.dtype, forces: bool) -> Images:
    """A split with amptorch's features, scaled as the dataset scales features, and with scaled targets.

    amptorch would fit its scalers on training and validation split together.

    Args:
        forces: with forces and derivatives of the features, for training on forces.

    Raises:
        BadInput: amptorch cannot describe an image, or not as the descriptor does.
    """
    data = _described(dataset, split, forces)
    features = _checked(dataset.descriptor, [image.fingerprint.numpy() for image in data], np.asarray(split.features))
    scaled = dataset.scaler(features, split.numbers)
    slope = dataset.scaler.slope(features, split.numbers)
    ends = np.cumsum(split.structures.n_atoms)[:-1]
    for i, (image, target, rows, slopes) in enumerate(
        zip(data, dataset.scaled_targets(split), np.split(scaled, ends), np.split(slope, ends), strict=True)
    ):
        image.fingerprint = torch.as_tensor(rows, dtype=dtype)
        image.energy = torch.tensor(target, dtype=dtype)
        if forces:
            assert split.structures.forces is not None
            image.forces = torch.as_tensor(split.structures.forces[i] / dataset.scale, dtype=dtype)
            image.fprimes = _scaled(image.fprimes, slopes, dtype)
        elif "fprimes" in image:
            del image.fprimes
    return Images(data)


def _described(dataset: Dataset, split: Split, forces: bool) -> list[Any]:
    """amptorch's data, in which `fingerprint` (n_atoms, n_features) and `fprimes` are not scaled yet."""
    from amptorch.dataset import construct_descriptor
    from amptorch.preprocessing import AtomsToData

    descriptor, structures = dataset.descriptor, split.structures
    # Without derivatives its polynomial cutoff function fails.
    derived = forces or (isinstance(descriptor, SymmetryFunctions) and descriptor.cutoff_function == "polynomial")
    symbols = [dataset.train.structures.elements, dataset.validation.structures.elements]
    elements = sorted(set().union(*symbols), key=lambda symbol: atomic_numbers[symbol])
    data = []
    with amptorchs_globals(torch.float64), TemporaryDirectory() as folder:
        converter = AtomsToData(
            construct_descriptor(descriptor_setup(descriptor, elements, Path(folder))), save_fps=False, fprimes=derived
        )
        for i, atoms in zip(structures.images, structures.atoms, strict=True):
            try:
                data.append(converter.convert(atoms, 0))
            except Exception as error:  # of whatever kind
                raise BadInput(
                    f"{structures.source} image {i}: amptorch cannot describe it ({one_line(error)})"
                ) from error
    return data


def descriptor_setup(descriptor: Descriptor, elements: list[str], folder: Path) -> tuple[str, Any, Any, list[str]]:
    """The same descriptor in amptorch's words: scheme, parameters, cutoff function, elements.

    Args:
        elements: symbols, by atomic number.
        folder: where the pseudo-densities are put for amptorch to read them.
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
    files = {}
    for element in elements:
        density = descriptor.table[atomic_numbers[element]]
        files[element] = str(folder / f"{element}_density.g")
        np.savetxt(files[element], np.stack([density.amplitude, density.exponent], axis=1), fmt="%.17g")
    shared = {"cutoff": descriptor.cutoff, "square": descriptor.square, "atom_gaussians": files}
    return scheme, {"MCSHs": harmonics, **shared, **options}, {}, elements


def _functions(descriptor: SymmetryFunctions, element: str) -> dict[str, Any]:
    functions: dict[str, Any] = {"cutoff": descriptor.cutoffs[element]}
    for name, given in (("G2", descriptor.g2), ("G4", descriptor.g4), ("G5", descriptor.g5)):
        if element in given:
            functions[name] = {"rs_s" if key == "rs" else key: values for key, values in given[element].items()}
    return functions


def _checked(
    descriptor: Descriptor, theirs: list[NDArray[np.float64]], ours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Their features in one array, shaped as ours (total atoms, n_features). Raises BadInput if they are not ours."""
    name = descriptor.settings["name"]
    if any(features.shape[1] != ours.shape[1] for features in theirs):
        raise BadInput(f"backend amptorch: its {name} has no {ours.shape[1]} features for every image")
    features = np.concatenate(theirs)
    error = np.abs(features - ours).max(axis=0) / np.maximum(np.abs(ours).max(axis=0), ZERO)
    if error.max() > TOLERANCE:
        raise BadInput(
            f"backend amptorch: feature {error.argmax()} of its {name} is not that of the descriptor, but off by "
            f"{error.max():.1e} of the largest value; docs/configuration.md says under Descriptors where it differs"
        )
    return features


def _scaled(derivatives: torch.Tensor, slope: NDArray[np.float64], dtype: torch.dtype) -> torch.Tensor:
    """Derivatives (n_atoms · n_features, 3 n_atoms) of the scaled features, sparse; slope (n_atoms, n_features)."""
    places, values = derivatives._indices(), derivatives._values()
    values = values * torch.as_tensor(slope.ravel())[places[0]]
    return torch.sparse_coo_tensor(places, values.to(dtype), derivatives.shape, check_invariants=False)
