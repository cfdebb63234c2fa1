"""The time that the model of a trial takes to predict, on this machine, of structures that its study validates on."""

from mlflow.exceptions import MlflowException

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.cost import Cost, measure_cost
from bdqm_tune.models.store import find_run, load_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.data import study_data, trial_config
from bdqm_tune.tracking.client import reason


def prediction_cost(run_id: str, stores: Stores) -> Cost:
    """Measure the model of a trial's run on the validation structures of its study.

    Raises:
        BadInput: the run, its model or the training file is no longer there.
        BdqmError: the tracking store does not answer.
    """
    client, run = find_run(run_id, stores)
    try:
        config = trial_config(client, run)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"{run_id}: its configuration cannot be read: {reason(error)}") from None
    data = study_data(config, run)
    structures = data.structures.select(data.validation).atoms
    if not structures:
        raise BadInput(f"{run_id}: its study has no validation structures")
    return measure_cost(load_model(run_id, stores), structures)
