"""An ensemble evaluated on the test split: its errors, and whether its intervals hold what they state."""

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.experiment.ensembling import predict_stored
from bdqm_tune.experiment.evaluation import Evaluation, compared
from bdqm_tune.experiment.models import load_model
from bdqm_tune.experiment.output import quiet_libraries
from bdqm_tune.experiment.provenance import provenance_tags
from bdqm_tune.experiment.records import record_run
from bdqm_tune.experiment.study import EXPERIMENT, load_study
from bdqm_tune.experiment.testsplit import load_test_split
from bdqm_tune.experiment.tracking_client import reason, tracking_client
from bdqm_tune.learning.calibration import Calibration, scores
from bdqm_tune.learning.coverage import coverage_curve, coverage_range, expected_range
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.metrics import energy_metrics, force_metrics
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import Structures, digest

LATEST = "latest"


def evaluate_ensemble(stores: Stores, name: str, which: str = LATEST) -> Evaluation:
    """Evaluate an ensemble of a study on its test split and record it in a run of its own.

    The errors have three columns more: std, low and high (eV), the spread and the ends of the interval.

    Args:
        which: the id of the ensemble's run, or `latest`.

    Raises:
        BadInput: no such study or ensemble, or the study has no test split.
        BdqmError: a store or a file cannot be read.
    """
    quiet_libraries()
    study = load_study(stores, name)
    client = tracking_client(stores)
    structures = load_test_split(study, stores.home)
    try:
        run = _ensemble_run(client, name, study.user_attrs[EXPERIMENT], which)
        ensemble = load_model(run.info.run_id, stores)
        if not isinstance(ensemble, Ensemble) or ensemble.calibration is None:
            raise BadInput(f"{run.info.run_id}: holds no calibrated ensemble")
        errors = _errors(ensemble, ensemble.calibration, structures, stores)
        metrics = {f"test_{key}": value for key, value in _accuracy(ensemble, structures, errors).items()}
        metrics |= coverage_metrics(errors, ensemble.calibration)
        found = scores(
            errors["error"].to_numpy(), errors["std"].to_numpy(), structures.n_atoms, ensemble.calibration.floor
        )
        tags = {
            **provenance_tags(),
            "kind": "evaluation",
            "study": name,
            "trials": run.data.tags["trials"],
            "model_run_id": run.info.run_id,
            "test_digest": digest(structures),
        }
        run_id = record_run(client, run.info.experiment_id, f"evaluation-{run.info.run_name}", tags, metrics)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot evaluate through the MLflow tracking store: {reason(error)}") from None
    return Evaluation(
        name,
        None,
        metrics,
        errors,
        run_id,
        lambda path: client.log_artifact(run_id, str(path)),
        tuple(int(number) for number in run.data.tags["trials"].split(",")),
        coverage_curve(ensemble.calibration, found),
    )


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


def _errors(ensemble: Ensemble, calibration: Calibration, structures: Structures, stores: Stores) -> pd.DataFrame:
    found = predict_stored(ensemble, structures, stores.home)
    half = calibration.half_widths(found.energy_std, structures.n_atoms)
    return compared(structures, found.energies).assign(
        std=found.energy_std, low=found.energies - half, high=found.energies + half
    )


def _accuracy(ensemble: Ensemble, structures: Structures, errors: pd.DataFrame) -> dict[str, float]:
    found = energy_metrics(errors["predicted"].to_numpy(), structures.energies, structures.n_atoms)
    if structures.forces is not None and ensemble.trained_on_forces:
        found |= force_metrics(ensemble.predict(structures.atoms).forces or [], structures.forces)
    return found


def _ensemble_run(client: MlflowClient, study: str, experiment_id: str, which: str) -> Run:
    """The run of an ensemble of the study. Raises BadInput if it has none, or not this one."""
    found = client.search_runs([experiment_id], "tags.kind = 'ensemble'", order_by=["attributes.start_time DESC"])
    runs = {run.info.run_id: run for run in found if run.data.tags.get("study") == study}
    if not runs:
        raise BadInput(f"study {study!r} has no ensemble yet; `bdqm-tune ensemble --study {study}` makes one")
    if which == LATEST:
        return next(iter(runs.values()))
    if which not in runs:
        raise BadInput(f"study {study!r} has no ensemble {which!r}; it has {LATEST} and {', '.join(runs)}")
    return runs[which]
