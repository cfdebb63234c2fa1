"""What is measured of a model: errors on the test split, how near that is to the training file, and the cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdqm_tune.descriptors import stored_features
from bdqm_tune.errors import BadInput, located
from bdqm_tune.learning.baselines import REFERENCE, baseline_energies
from bdqm_tune.learning.bootstrap import CONFIDENCE, RESAMPLES, SEED, mean_with_interval, with_intervals
from bdqm_tune.learning.breakdown import by_class, by_element, deviations
from bdqm_tune.learning.calibration import Calibration, scores
from bdqm_tune.learning.cost import THREADS, measure_cost
from bdqm_tune.learning.coverage import coverage_curve, coverage_range, expected_range
from bdqm_tune.learning.ensemble import Ensemble, EnsemblePrediction
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.metrics import energy_metrics
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.overlap import default_features, find_overlap, fingerprints
from bdqm_tune.learning.potential import Potential, Prediction
from bdqm_tune.models.ensembling import predict_stored
from bdqm_tune.structures import Geometries, Structures
from bdqm_tune.structures.labels import has_volume
from bdqm_tune.study.data import StudyData

MOST_ATOMS = 20_000  # whose forces are kept one by one; metrics are of all atoms


@dataclass(frozen=True)
class Measured:
    """Numbers, tables and how they were come by."""

    metrics: dict[str, float]
    tables: dict[str, pd.DataFrame]  # by the names of their files
    settings: dict[str, Any]

    def __or__(self, other: "Measured") -> "Measured":
        return Measured(self.metrics | other.metrics, self.tables | other.tables, self.settings | other.settings)


def measure_unlabelled(model: Potential | Ensemble, test: Geometries, data: StudyData, home: Path) -> Measured:
    """What needs no labels: the overlap of the test split with the two others, and the cost of predictions."""
    first = next(iter(model.members.values())) if isinstance(model, Ensemble) else model
    trained = data.structures.select(data.used)
    if isinstance(first, NetworkPotential):
        descriptor, scaler = first.descriptor, first.scaler
    else:
        descriptor, scaler = default_features(trained, home)

    def prints(structures: Geometries) -> NDArray[np.float64]:
        numbers = np.concatenate([atoms.numbers for atoms in structures.atoms])
        return fingerprints(stored_features(structures, descriptor, home / "features"), numbers, scaler)

    overlap = find_overlap(test, prints(test), trained, prints(trained))
    cost = measure_cost(model, test.atoms)
    return Measured(
        overlap.metrics() | cost.metrics(),
        {"overlap": overlap.table},
        {"inference_device": "cpu", "inference_threads": THREADS},
    )


def predict(
    model: Potential | Ensemble, structures: Geometries, home: Path, allow_unknown_elements: bool = False
) -> Prediction | EnsemblePrediction:
    """Energies from cached features, computed where there are none; forces where the model was trained on them.

    Args:
        home: `BDQM_HOME`.
        allow_unknown_elements: predict elements that the model was not trained on, and warn of them.

    Raises:
        BadInput: such an element; the message names the first image with one.
    """
    for atoms, image in zip(structures.atoms, structures.images.tolist(), strict=True):
        with located(f"{structures.source}, image {image}"):
            check_elements(model.known_elements, [atoms], allow_unknown_elements)
    if not isinstance(model, NetworkPotential | Ensemble):
        return model.predict(structures.atoms, bool(model.trained_on_forces), allow_unknown_elements)
    forces = model.predict(structures.atoms, True, allow_unknown_elements).forces if model.trained_on_forces else None
    if isinstance(model, Ensemble):
        return predict_stored(model, structures, home)._replace(forces=forces)
    features = stored_features(structures, model.descriptor, home / "features")
    energies = [model.predict_features(p.features, structures.atoms[p.structures]) for p in features.pieces()]
    return Prediction(np.concatenate(energies), forces)


def predict_stress(
    model: Potential | Ensemble, structures: Geometries, allow_unknown_elements: bool = False
) -> NDArray[np.float64]:
    """Stress (n_structures, 6) in Voigt's order, eV/Å³; NaN without a periodic cell with a volume.

    Args:
        allow_unknown_elements: as in `predict`, which has named the images with some.
    """
    none = np.full(6, np.nan)
    return np.array(
        [model.stress(atoms, allow_unknown_elements) if has_volume(atoms) else none for atoms in structures.atoms]
    )


def measure(
    model: Potential | Ensemble,
    found: Prediction | EnsemblePrediction,
    test: Structures,
    train: Structures,
    stress: NDArray[np.float64] | None = None,
) -> Measured:
    """Errors of predictions, altogether, by element and by composition, and those of the baselines.

    Args:
        train: the training split, which baselines come from.
        stress: predicted (n_structures, 6), eV/Å³; None: it is not compared.
    """
    of_all = deviations(test, found.energies, found.forces, stress)
    metrics = {f"test_{name}": value for name, value in with_intervals(of_all).items()}
    baselines = baseline_energies(train, test)
    gain = np.abs(baselines[REFERENCE] - test.energies) - np.abs(found.energies - test.energies)
    metrics |= mean_with_interval("test_energy_mae_per_atom_gain", gain / test.n_atoms)
    metrics |= mean_with_interval("test_energy_mae_gain", gain)
    for baseline, energies in baselines.items():
        errors = energy_metrics(energies, test.energies, test.n_atoms)
        metrics |= {f"{baseline}_{name}": value for name, value in errors.items()}
    tables = {
        "errors": compared(test, found.energies, found.forces, stress),
        **({} if found.forces is None or test.forces is None else {"forces": compared_forces(test, found.forces)}),
        "by_element": by_element(test, found.energies, found.forces),
        "by_class": by_class(test, of_all),
    }
    if isinstance(model, Ensemble) and isinstance(found, EnsemblePrediction):
        if model.calibration is None:
            raise BadInput("an ensemble without calibration has no intervals to be tested")
        tables["errors"] = with_ends(tables["errors"], found, model.calibration)
        tables["coverage"] = curve_of(tables["errors"], model.calibration)
        metrics |= coverage_metrics(tables["errors"], model.calibration)
    settings = {"confidence": CONFIDENCE, "bootstrap_resamples": RESAMPLES, "bootstrap_seed": SEED}
    return Measured(metrics, tables, settings)


def compared(
    structures: Structures,
    predicted: NDArray[np.float64],
    forces: Sequence[NDArray[np.float64]] | None = None,
    stress: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """The energies of structures, those predicted (n_structures,), eV, and the differences; errors of other labels.

    Args:
        forces: predicted, for each structure (n_atoms, 3), eV/Å; None: they are not compared.
        stress: predicted (n_structures, 6), eV/Å³; None: it is not compared.

    Returns:
        image, formula, n_atoms, energy, predicted, error (eV), error_per_atom (eV/atom); and, of the components of the
        forces, forces_mae and forces_max_error (eV/Å), of those of the stress, stress_mae (eV/Å³).
    """
    frame = pd.DataFrame(
        {
            "image": structures.images,
            "formula": [atoms.get_chemical_formula() for atoms in structures.atoms],
            "n_atoms": structures.n_atoms,
            "energy": structures.energies,
            "predicted": predicted,
            "error": predicted - structures.energies,
            "error_per_atom": (predicted - structures.energies) / structures.n_atoms,
        }
    )
    if stress is not None and structures.stress_counts:
        frame = frame.assign(stress_mae=np.abs(stress - structures.stresses).mean(axis=1))
    if forces is None or structures.forces is None:
        return frame
    errors = [np.abs(found - true) for found, true in zip(forces, structures.forces, strict=True)]
    return frame.assign(
        forces_mae=[float(error.mean()) for error in errors], forces_max_error=[float(error.max()) for error in errors]
    )


def compared_forces(structures: Structures, predicted: Sequence[NDArray[np.float64]]) -> pd.DataFrame:
    """The forces on atoms beside those predicted; of more than `MOST_ATOMS`, that many, evenly drawn from all.

    Args:
        predicted: for each structure (n_atoms, 3), eV/Å.

    Returns:
        image, atom (its place in the structure), element, true_x, true_y, true_z, predicted_x, … (eV/Å).
    """
    assert structures.forces is not None
    n_atoms = structures.n_atoms
    total = int(n_atoms.sum())
    chosen = np.arange(total) if total <= MOST_ATOMS else np.linspace(0, total - 1, MOST_ATOMS).round().astype(int)
    columns = {
        "image": np.repeat(np.asarray(structures.images), n_atoms),
        "atom": np.concatenate([np.arange(n) for n in n_atoms]),
        "element": np.concatenate([atoms.get_chemical_symbols() for atoms in structures.atoms]),
    }
    for name, forces in (("true", structures.forces), ("predicted", predicted)):
        columns |= {f"{name}_{axis}": np.concatenate(forces)[:, i] for i, axis in enumerate("xyz")}
    return pd.DataFrame({name: values[chosen] for name, values in columns.items()})


def with_ends(errors: pd.DataFrame, found: EnsemblePrediction, calibration: Calibration) -> pd.DataFrame:
    """The errors with the columns std, low and high (eV): the spread and the ends of the interval."""
    half = calibration.half_widths(found.energy_std, errors["n_atoms"].to_numpy())
    return errors.assign(std=found.energy_std, low=found.energies - half, high=found.energies + half)


def curve_of(errors: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """Stated against observed coverage of the errors, as `coverage_curve`."""
    error, std, n_atoms = (errors[name].to_numpy() for name in ("error", "std", "n_atoms"))
    return coverage_curve(calibration, scores(error, std, n_atoms, calibration.floor))


def coverage_metrics(errors: pd.DataFrame, calibration: Calibration) -> dict[str, float]:
    """What the intervals state, what is observed, and how wide they are.

    Args:
        errors: n_atoms, energy, predicted, std, low and high (eV) of every structure.
    """
    inside = errors["energy"].between(errors["low"], errors["high"])
    low, high = coverage_range(int(inside.sum()), len(errors))
    least, most = expected_range(len(calibration.scores), len(errors), calibration.coverage)
    widths = errors["high"] - errors["low"]
    spreads, deviations = errors["std"], errors["error"].abs()
    return {
        "coverage": calibration.coverage,
        "test_coverage": float(inside.mean()),
        "test_coverage_low": low,
        "test_coverage_high": high,
        "expected_coverage_low": least,
        "expected_coverage_high": most,
        "test_interval_width": float(widths.mean()),
        "test_interval_width_per_atom": float((widths / errors["n_atoms"]).mean()),
        "test_energy_std": float(errors["std"].mean()),
        # Spreads that are all alike have no order.
        **(
            {"test_spread_error_correlation": float(spreads.corr(deviations, method="spearman"))}
            if min(spreads.nunique(), deviations.nunique()) > 1
            else {}
        ),
    }
