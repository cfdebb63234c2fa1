"""The champion's trainings as one model: the mean of what they predict is better than one of them is on average."""

from dataclasses import replace

from ase import Atoms
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.calibration import rank_of
from bdqm_tune.learning.cost import measure_cost
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.ensembling import COVERAGE, StudyEnsemble, calibrated, out_of_fold, record_ensemble
from bdqm_tune.models.store import load_potential, run_with_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.data import StudyData
from bdqm_tune.study.selection import Champion
from bdqm_tune.units import error_text

COST = 3.0  # times the best model's time of a prediction that the ensemble may take
TIMED = 5  # structures whose predictions are timed


def with_ensemble(
    stores: Stores, client: MlflowClient, study: str, dataset: Dataset, champion: Champion
) -> tuple[Champion, str]:
    """The champion as the ensemble of its trainings or, where that is no better or takes too long, as it is; and why.

    The ensemble has to be better on the validation split, by the study's objective, than its members are on average,
    and its prediction may take `COST` times as long. The best of them is no measure: it was picked by that split.

    Raises:
        MlflowException, OSError, BdqmError: the tracking store failed.
    """
    held_out, objective = dataset.validation.structures, dataset.config.objective
    try:
        rank_of(len(held_out), COVERAGE)
    except BadInput as error:
        return champion, f"no ensemble of its seeds was made: {error}"
    runs = [client.get_run(run_id) for run_id in champion.run_ids]
    members = {f"seed-{run.data.tags['seed']}": load_potential(run.info.run_id, stores) for run in runs}
    data = StudyData(dataset.train.described.structures, dataset.indices)
    of_folds = out_of_fold(client, runs, data) if dataset.folds else None
    ensemble, metrics = calibrated(members, data, COVERAGE, stores.home, of_folds)
    if objective not in metrics:
        why = "with folds the energies are kept alone" if dataset.folds else "they are not trained on forces"
        return champion, f"no ensemble of its seeds was made: {objective} has forces, and {why}"
    best = members[f"seed-{champion.seed}"]
    times = _seconds(ensemble, held_out.atoms) / _seconds(best, held_out.atoms)
    errors = error_text(metrics, objective)
    what = f"the ensemble of its {len(runs)} seeds: {errors}, {times:.1f} times the time of a prediction"
    if metrics[objective] >= champion.mean or times > COST:
        return champion, f"its model is not {what}"
    made = StudyEnsemble(study, ensemble, (champion.trial,), runs, metrics)
    run_id = _recorded(client, runs) or record_ensemble(stores, made, champion.confirmation_run_id)
    return replace(champion, run_id=run_id, value=metrics[objective], is_ensemble=True), what


def _seconds(model: Potential | Ensemble, structures: list[Atoms]) -> float:
    """Seconds an atom of a prediction: with forces, where the model was trained on them."""
    cost = measure_cost(model, structures[:: -(-len(structures) // TIMED)])
    return cost.with_forces if model.trained_on_forces else cost.descriptor + cost.network


def _recorded(client: MlflowClient, members: list[Run]) -> str | None:
    """The run of an ensemble of these trainings that was made before."""
    ids = ", ".join(run.info.run_id for run in members)
    which = f"tags.kind = 'ensemble' AND tags.model_run_ids = '{ids}'"
    found = client.search_runs([members[0].info.experiment_id], which)
    return next((run.info.run_id for run in found if run_with_model(client, run.info.run_id)), None)
