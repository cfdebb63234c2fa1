"""What both stores know of a study, gathered once for its report."""

from dataclasses import dataclass

import optuna
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.admin.runs import processes, retrainings
from bdqm_tune.confirmation.record import RecordedConfirmation, read_confirmation
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.lockbox import Opening, openings
from bdqm_tune.evaluation.record import Evaluation, read_evaluation
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.data import trial_config
from bdqm_tune.study.results import StudyResults, load_results
from bdqm_tune.study.run_contents import CONFIG, as_yaml
from bdqm_tune.study.selection import Champion, ChosenModel, champion_of, chosen_model
from bdqm_tune.study.study import EXPERIMENT
from bdqm_tune.tracking.client import reason, tracking_client


@dataclass(frozen=True)
class StudyFacts:
    """A study as it is now."""

    results: StudyResults
    chosen: ChosenModel | None  # None: no trial is complete
    champion: Champion | None  # None: `confirm` has not been run
    confirmation: RecordedConfirmation | None
    openings: list[Opening]  # of the test split
    evaluation: Evaluation | None  # that the report shows whole
    processes: pd.DataFrame  # see `study_work`
    retrainings: pd.DataFrame
    config: str  # the configuration file of the first worker, "" if it is not there any more
    missing: list[str]  # what is on record, but cannot be read any more

    @property
    def name(self) -> str:
        return self.results.name

    @property
    def study(self) -> optuna.Study:
        return self.results.study

    @property
    def finished(self) -> pd.DataFrame:
        """The finished trials."""
        trials = self.results.trials
        return trials[trials["state"].isin(("complete", "pruned", "failed"))]


def gather(stores: Stores, name: str) -> StudyFacts:
    """Read all of a study; nothing is made or changed.

    Raises:
        BadInput: there is no such study, or it was not made here.
        BdqmError: a store cannot be read.
    """
    results = load_results(stores, name)
    study, client = results.study, tracking_client(stores)
    experiment = study.user_attrs.get(EXPERIMENT, "")
    champion, chosen, opened = champion_of(study), _chosen(study), openings(study)
    missing: list[str] = []
    try:
        confirmation = _confirmation(client, champion, missing)
        evaluation = _evaluation(client, study, shown_opening(opened, chosen), missing)
        work = processes(client, experiment, name)
        trained = retrainings(client, experiment, name)
        config = _config(client, results)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot read the study's runs from MLflow: {reason(error)}") from None
    return StudyFacts(results, chosen, champion, confirmation, opened, evaluation, work, trained, config, missing)


def shown_opening(opened: list[Opening], chosen: ChosenModel | None) -> Opening | None:
    """The evaluation that a report shows whole: that of the chosen model, or else the latest; None if there is none."""
    done = [one for one in opened if one.is_done]
    of_chosen = [one for one in done if chosen is not None and one.model_run_id == chosen.run_id]
    return next(reversed(of_chosen or done), None)


def _chosen(study: optuna.Study) -> ChosenModel | None:
    try:
        return chosen_model(study)
    except BadInput:  # no trial is complete
        return None


def _confirmation(client: MlflowClient, champion: Champion | None, missing: list[str]) -> RecordedConfirmation | None:
    if champion is None:
        return None
    try:
        return read_confirmation(client, champion)
    except BdqmError as error:
        missing.append(str(error))
        return None


def _evaluation(
    client: MlflowClient, study: optuna.Study, opening: Opening | None, missing: list[str]
) -> Evaluation | None:
    if opening is None:
        return None
    try:
        return read_evaluation(client, study, opening)
    except BdqmError as error:
        missing.append(str(error))
        return None


def _config(client: MlflowClient, results: StudyResults) -> str:
    """The configuration file that the first worker's run keeps."""
    for run_id in results.runs.index[:1]:
        if any(file.path == CONFIG for file in client.list_artifacts(run_id)):
            return as_yaml(trial_config(client, client.get_run(run_id)))
    return ""
