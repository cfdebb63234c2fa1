"""How far our descriptors are from amptorch's: features and derivatives, each relative to its column's largest value.

python -m benchmarks.parity [--reference ../shared/reference]

The stored values are those of the reference folder, with structures; the pseudo-densities lie beside it in
../data/GMP/valence_gaussians. Where amptorch is installed, its own descriptors are run on two molecules as well. Exit
status 1 if a deviation is beyond the tolerance, 2 if there are no reference values.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from numpy.typing import NDArray

from bdqm_tune.descriptors import GMP, Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.descriptors.multipoles import Multipoles
from bdqm_tune.errors import BadInput
from benchmarks.settings import GMP_GROUPS, GMP_NORMALISED, SYMMETRY

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
FEATURES, DERIVATIVES = 1e-6, 1e-5  # the tolerances
# A column that is zero but for rounding has no scale of its own: it is measured by this one.
ROUNDING, SCALE_OF_ZERO = 1e-12, 1e-6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Image:
    """One structure with amptorch's numbers."""

    setting: str
    atoms: Atoms
    features: Array  # (n_atoms, n_features)
    derivatives: Array | None  # (n_atoms, n_features, n_atoms, 3), 1/Å


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    setting: str
    source: str  # stored or live
    images: int
    features: float
    derivatives: float | None
    remark: str

    @property
    def agrees(self) -> bool:
        return self.features <= FEATURES and (self.derivatives is None or self.derivatives <= DERIVATIVES)


SETTINGS = [*GMP_GROUPS, *GMP_NORMALISED, *SYMMETRY]
# Orders of which the reference has no values: where amptorch is installed, they are compared with it.
LIVE_ONLY = {"gmp_orders_4_5", "gmpordernorm_solid_0_9", "gmpordernorm_surface_0_8"}
REMARKS = {
    **dict.fromkeys(GMP_NORMALISED, "amptorch sets derivatives below 1e-5 to 0"),
    "gmp_order3_square": "derivatives but order 0 and group (1, 1, 1), where amptorch's are wrong",
}


def our_descriptor(setting: str, image: Image, densities: Path) -> Descriptor:
    """Our descriptor of a setting, with the floor that amptorch has where it also computes derivatives."""
    derived = image.derivatives is not None
    if setting in GMP_GROUPS:
        amptorchs = {"pseudodensities": densities, "smooth_cutoff": False, "root_floor": 1e-8 if derived else 0.0}
        return GMPGroups(**GMP_GROUPS[setting], **amptorchs)
    if setting in GMP_NORMALISED:
        amptorchs = {"pseudodensities": densities, "smooth_cutoff": False, "root_floor": 1e-2 if derived else 0.0}
        return GMP(**GMP_NORMALISED[setting], **amptorchs)
    return SymmetryFunctions(elements=sorted(set(image.atoms.get_chemical_symbols())), **SYMMETRY[setting])


def stored_images(folder: Path) -> Iterator[Image]:
    """The structures of a reference folder. Raises BadInput where there is none."""
    for name in ("gmp.npz", "symmetry_functions.npz"):
        if not (folder / name).is_file():
            raise BadInput(f"no reference values: {folder / name} is not there; give their folder with --reference")
        with np.load(folder / name) as arrays:
            for key in [key for key in arrays.files if key.endswith("/features")]:
                prefix = key.removesuffix("features")
                numbers, positions, cell, pbc = (
                    arrays[prefix + part] for part in ("numbers", "positions", "cell", "pbc")
                )
                atoms = Atoms(numbers, positions, cell=cell, pbc=pbc)
                yield Image(key.split("/")[0], atoms, arrays[key], arrays.get(prefix + "derivatives"))


def live_images(densities: Path) -> Iterator[Image]:
    """Two molecules as amptorch, installed here, describes them. Raises ImportError where it is not."""
    from benchmarks.run_amptorch import run

    for name in ("CH3OH", "CH3SH"):
        atoms = molecule(name, vacuum=6.0, pbc=True)
        for setting in SETTINGS:
            yield Image(setting, atoms, *run(setting, atoms, densities))


def compare(images: Iterable[Image], densities: Path, source: str) -> list[Row]:
    """One row for every setting, in the order of `SETTINGS`.

    Args:
        densities: folder of the pseudo-densities that the images were computed with.
    """
    found: dict[str, list[tuple[float, float | None]]] = {}
    for image in images:
        found.setdefault(image.setting, []).append(deviations(image, densities))
    rows = []
    for setting in [setting for setting in SETTINGS if setting in found]:
        derived = [by_derivatives for _, by_derivatives in found[setting] if by_derivatives is not None]
        rows.append(
            Row(
                setting,
                source,
                len(found[setting]),
                max(by_features for by_features, _ in found[setting]),
                max(derived) if derived else None,
                REMARKS.get(setting, "") if derived else "no derivatives in the reference",
            )
        )
    return rows


def deviations(image: Image, densities: Path) -> tuple[float, float | None]:
    """How far our features and derivatives are from an image's, by their columns' largest values."""
    ours = our_descriptor(image.setting, image, densities)
    if image.derivatives is None:
        return _deviation(ours.compute(image.atoms), image.features), None
    features, sparse = ours.sparse_derivatives(image.atoms)
    derivatives, expected = sparse.dense(len(image.atoms)), image.derivatives
    if image.setting in GMP_NORMALISED:
        derivatives = np.where((expected == 0) & (np.abs(derivatives) < 1e-5), 0.0, derivatives)
    if isinstance(ours, GMPGroups) and ours.square:
        several = _columns_of_several_harmonics(ours)
        derivatives, expected = derivatives[:, several], expected[:, several]
    by_column = (_columns_last(array) for array in (derivatives, expected))
    return _deviation(features, image.features), _deviation(*by_column)


def _deviation(found: Array, expected: Array) -> float:
    """Arrays (n, n_columns)."""
    largest = np.abs(expected).max(axis=0)
    scale = np.where(largest > ROUNDING, largest, SCALE_OF_ZERO)
    return float((np.abs(found - expected).max(axis=0) / scale).max())


def _columns_last(derivatives: Array) -> Array:
    return np.moveaxis(derivatives, 1, -1).reshape(-1, derivatives.shape[1])


def _columns_of_several_harmonics(descriptor: Multipoles) -> NDArray[np.bool_]:
    return np.repeat([len(kind.rows) > 1 for kind in descriptor.kinds], len(descriptor.sigmas))


def table(rows: Iterable[Row]) -> str:
    """The rows as text."""
    lines = [f"{'setting':<28} {'amptorch':<8} {'images':>6} {'features':>9} {'derivatives':>11}  remark"]
    for row in rows:
        derivatives = "" if row.derivatives is None else f"{row.derivatives:.1e}"
        remark = "; ".join(filter(None, ["" if row.agrees else "BEYOND THE TOLERANCE", row.remark]))
        numbers = f"{row.images:>6} {row.features:>9.1e} {derivatives:>11}"
        lines.append(f"{row.setting:<28} {row.source:<8} {numbers}  {remark}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=REFERENCE, help=f"folder of the .npz files ({REFERENCE})")
    options = parser.parse_args(arguments)
    densities = options.reference.parent / "data" / "GMP" / "valence_gaussians"
    try:
        rows = compare(stored_images(options.reference), densities, "stored")
        rows += compare(live_images(densities), densities, "live")
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        print(f"Stored values only, amptorch cannot be run here: {error}.")
    print(table(rows))
    return 0 if all(row.agrees for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
