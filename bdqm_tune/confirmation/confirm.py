"""The best configurations of a study trained once more with other seeds, ranked, and one of them chosen."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.candidates import (
    Candidate,
    default_candidate,
    finalists,
    random_candidate,
    random_study,
    run_random_search,
    searched_config,
)
from bdqm_tune.confirmation.doubts import easier_validation
from bdqm_tune.confirmation.ranking import Trained, decide, table, values_of
from bdqm_tune.confirmation.record import FINALISTS, RECORD, RETRAININGS
from bdqm_tune.confirmation.retraining import Job, Retrainer, Retraining, identity
from bdqm_tune.confirmation.seed_ensemble import with_ensemble
from bdqm_tune.confirmation.seeds import INTERVAL, LEAST_SEEDS, SIGNIFICANT, TEST
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.files import write_whole
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import storage_of
from bdqm_tune.services.secrets import refuse_secrets
from bdqm_tune.study.data import study_dataset
from bdqm_tune.study.optimism import optimism_of
from bdqm_tune.study.run_contents import one_configuration, tried_by
from bdqm_tune.study.selection import Champion, set_champion
from bdqm_tune.study.study import EXPERIMENT, load_study
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.given import adopted_run, given_run, parent_tag
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.tracker import Tracker, context_tags
from bdqm_tune.units import OBJECTIVE_UNITS, error_name, error_text

KIND = "confirmation"  # tag of the run under which all trainings of a study's finalists come
BEST, SEEDS, MOST = 5, 5, 100
EXISTING, RUN, NONE = "existing", "run", "none"  # of the random search to compare with


@dataclass(frozen=True)
class Confirmation:
    """The multi-seed re-evaluation of a study's finalists."""

    study: str
    objective: str
    unit: str
    seeds: list[int]
    table: pd.DataFrame  # see `verdict.table`
    retrainings: pd.DataFrame  # one row a training: name, seed, value, state, seconds, known, run_id
    champion: Champion
    name: str  # of the champion
    baselines: list[str]  # how each compares with the champion
    random: str  # which random search it was compared with
    notes: list[str] = field(default_factory=list)  # what makes the choice doubtful
    ensemble: str = ""  # of the champion's seeds: whether it is the champion, and why; empty: not considered

    def record(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "study": self.study,
            "objective": self.objective,
            "unit": self.unit,
            "seeds": self.seeds,
            "interval": INTERVAL,
            "test": TEST,
            "significant": SIGNIFICANT,
            "least_seeds": LEAST_SEEDS,  # of fewer, no winner is declared
            "candidates": self.table.astype(object).where(self.table.notna(), None).to_dict("records"),
            "champion": asdict(self.champion),
            "yardsticks": self.baselines,
            "random": self.random,
            "notes": self.notes,
            "ensemble": self.ensemble,
        }


@dataclass(frozen=True)
class Options:
    """The options of a confirmation."""

    best: int = BEST
    seeds: int = SEEDS
    random: str = EXISTING  # or run, none, or the name of a study
    train: str | None = None  # the training file, where it is no longer where it was
    device: str = ""  # empty: the configuration's
    trial: int | None = None  # the one to confirm, in place of the best
    ensemble: bool = True  # whether the ensemble of its seeds can become the champion

    def __post_init__(self) -> None:
        """Raise BadInput if a number is too small, or larger than a tag of MLflow has room for their runs."""
        if not 1 <= self.best <= MOST:
            raise BadInput(f"--best must be from 1 to {MOST}, got {self.best}")
        if not 2 <= self.seeds <= MOST:
            raise BadInput(f"--seeds must be from 2 to {MOST}, got {self.seeds}; one number has no interval")
        refuse_secrets({"train": self.train})

    def applied(self, config: Config) -> Config:
        """A configuration with what these options change of it."""
        data = {} if self.train is None else {"train": self.train}
        return config.updated({"data": data, "": {"device": self.device} if self.device else {}})


def confirm(
    stores: Stores,
    name: str,
    options: Options,
    on_done: Callable[[str, int, int], None] = lambda line, done, n_jobs: None,
) -> Confirmation:
    """Retrain the best configurations of a study with other seeds, rank them, and choose the study's champion.

    What was trained before, with the same configuration, data and seed, is not trained again.

    Args:
        on_done: called after every training with a line, how many are done, and how many there are.

    Raises:
        BadInput: no such study, no complete trial; or the training file is not there or has changed.
        BdqmError: a store failed, or no finalist could be trained.
    """
    quiet_libraries()
    study = load_study(stores, name)
    client = tracking_client(stores)
    try:
        return _confirm(stores, study, client, options, on_done)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot confirm through the MLflow tracking store: {reason(error)}") from None


def _confirm(
    stores: Stores,
    study: optuna.Study,
    client: MlflowClient,
    options: Options,
    on_done: Callable[[str, int, int], None],
) -> Confirmation:
    found = finalists(study, client, options.best, options.trial)
    first, run = found[0]
    dataset = study_dataset(options.applied(first.config), run, stores.home, options.train)
    seeds = [(first.config.study.seed + 1 + i) % 2**31 for i in range(options.seeds)]
    tracker = _open_tracker(stores, client, study, [one for _, one in found], first.config.patience * 60)
    status = "FAILED"
    try:
        searched = options.applied(searched_config(client, run))
        random, described = _random_search(stores, study, client, searched, options.random)
        candidates = [*_distinct([one for one, _ in found], dataset), default_candidate(searched), *random]
        jobs: dict[tuple[str, int], Job] = {}
        for one in candidates:
            for seed in seeds:
                config = options.applied(one_configuration(one.config, tried_by(one.config)._replace(seed=seed)))
                jobs.setdefault((identity(config, dataset), seed), Job(config, f"{one.name}-seed-{seed}", one.trial))
        results: dict[tuple[str, int], Retraining] = {}
        with closing(Retrainer(study.study_name, dataset, tracker, client).run(list(jobs.values()))) as retrained:
            for job, result in retrained:
                results[identity(job.config, dataset), job.seed] = result
                on_done(_line(job, result), len(results), len(jobs))
        trained = {one.name: [results[identity(one.config, dataset), seed] for seed in seeds] for one in candidates}
        made = _confirmation(study, candidates, trained, seeds, described, tracker.run.info.run_id)
        of_best = client.get_run(made.champion.run_id).data.metrics
        notes = [] if dataset.folds else easier_validation(of_best)  # folds validate on all that is hard
        confirmation = replace(made, notes=[*notes, *_optimism(study, first.config)])
        if options.ensemble and len(study.directions) == 1:  # of several objectives, one is the cost
            champion, why = with_ensemble(stores, client, study.study_name, dataset, made.champion)
            confirmation = replace(confirmation, champion=champion, ensemble=why)
        _record(tracker, confirmation)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker.finish(status, interrupted=status == "KILLED")
    set_champion(study, confirmation.champion)
    return confirmation


def _optimism(study: optuna.Study, config: Config) -> list[str]:
    """What the choice of the finalists among the trials makes of their error."""
    found = optimism_of(study.get_trials(deepcopy=False), config.objectives)
    if found is None:
        return []
    return [f"the finalists were chosen by the structures that judge them here; of the trials, {found.text()}"]


def _confirmation(
    study: optuna.Study,
    candidates: Sequence[Candidate],
    trained: Trained,
    seeds: list[int],
    described: str,
    run_id: str,
) -> Confirmation:
    objective = candidates[0].config.objective
    verdict = decide(candidates, trained, OBJECTIVE_UNITS[objective])
    of_champion = trained[verdict.champion.name]
    assert verdict.champion.trial is not None
    champion = Champion(
        trial=verdict.champion.trial,
        seed=verdict.best.seed,
        run_id=verdict.best.run_id,
        value=verdict.best.value,
        mean=float(values_of(of_champion).mean()),
        run_ids=[one.run_id for one in of_champion],
        confirmation_run_id=run_id,
        trials=_finished(study),
        why=verdict.why,
    )
    rows = [
        {"name": one.name, **{key: value for key, value in asdict(result).items() if key != "known"}}
        for one in candidates
        for result in trained[one.name]
    ]
    return Confirmation(
        study=study.study_name,
        objective=objective,
        unit=OBJECTIVE_UNITS[objective],
        seeds=seeds,
        table=table(candidates, trained, verdict.champion),
        retrainings=pd.DataFrame(rows),
        champion=champion,
        name=verdict.champion.name,
        baselines=verdict.baselines,
        random=described,
    )


def _record(tracker: Tracker, made: Confirmation) -> None:
    """Put the result into the run under which the trainings are."""
    row = made.table[made.table["name"] == made.name].iloc[0]
    now = get_current_time_millis()
    found = {"": made.champion.value, "_mean": made.champion.mean, "_low": row["low"], "_high": row["high"]}
    metrics = [Metric(f"champion_{made.objective}{end}", float(value), now, 0) for end, value in found.items()]
    tags = {"champion_trial": str(made.champion.trial), "champion_run_id": made.champion.run_id}
    run_tags = [RunTag(key, value) for key, value in tags.items()]
    tracker.study.send(lambda client, run: client.log_batch(run.info.run_id, metrics=metrics, tags=run_tags))
    tracker.study.upload(lambda folder: write_confirmation(made, folder))


def write_confirmation(made: Confirmation, folder: Path) -> list[Path]:
    """Write finalists.csv, retrainings.csv and confirmation.json, and give their paths."""
    files = [folder / name for name in (FINALISTS, RETRAININGS, RECORD)]
    write_whole(files[0], made.table.to_csv(index=False))
    write_whole(files[1], made.retrainings.to_csv(index=False))
    write_whole(files[2], json.dumps(made.record(), indent=2, ensure_ascii=False) + "\n")
    return files


def _open_tracker(
    stores: Stores, client: MlflowClient, study: optuna.Study, runs: Sequence[Run], retry_timeout: float
) -> Tracker:
    """A tracker for the study's one run of confirmations, which is reopened where there is one.

    Args:
        runs: of the finalists' trials, by which it is known to belong to this study.
    """
    name, experiment = study.study_name, study.user_attrs[EXPERIMENT]
    given = given_run(client)
    earlier = [
        run
        for run in client.search_runs([experiment], f"tags.kind = '{KIND}'")
        if run.data.tags.get("study") == name and (given is None or run.info.run_id != given.info.run_id)
    ]
    tags = {**provenance_tags(), "kind": KIND, "study": name}
    tags["model_run_ids"] = ", ".join(run.info.run_id for run in runs)
    run_tags = [RunTag(key, value) for key, value in tags.items()]
    if earlier:
        run_id = earlier[0].info.run_id
        if given is not None:
            client.set_tag(given.info.run_id, "confirmation_run_id", run_id)
        client.update_run(run_id, status="RUNNING")
        client.log_batch(run_id, tags=run_tags)
        return Tracker(stores, name, client.get_run(run_id), False, retry_timeout)
    if (adopted := adopted_run(client, given, experiment, f"confirm-{name}")) is not None:
        client.log_batch(adopted.info.run_id, tags=run_tags)
        return Tracker(stores, name, adopted, True, retry_timeout)
    run = client.create_run(
        experiment, run_name=f"confirm-{name}", tags={**context_tags(), **tags, **parent_tag(given)}
    )
    return Tracker(stores, name, run, False, retry_timeout)


def _random_search(
    stores: Stores, study: optuna.Study, client: MlflowClient, searched: Config, which: str
) -> tuple[list[Candidate], str]:
    """The best of a random search with as many trials as the study, where there is one, and words for it."""
    if which == NONE:
        return [], "not compared with a random search"
    n_trials, name = _finished(study), "" if which in (EXISTING, RUN) else which
    if which == RUN:
        name = f"{study.study_name}-random"
        run_random_search(stores, searched, name, n_trials)
    other = random_study(storage_of(study), client, study, n_trials, name)
    if other is None:
        return [], "there is no random search with the same signature to compare with; --random run makes one"
    candidate, count = random_candidate(client, other, n_trials)
    fewer = "" if count == n_trials else f", of {n_trials} that the study has"
    return [candidate], f"random search: the best of the first {count} trials of study {other.study_name!r}{fewer}"


def _distinct(found: Sequence[Candidate], dataset: Dataset) -> list[Candidate]:
    """Of candidates with the same configuration the first."""
    return list({identity(one.config, dataset): one for one in reversed(found)}.values())[::-1]


def _finished(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _line(job: Job, result: Retraining) -> str:
    objective = job.config.objective
    errors: dict[str, float | None] = {objective: result.value, f"{objective}_per_atom": result.value_per_atom}
    found = f"val {error_name(objective)} {error_text(errors, objective)}"
    if result.state != "complete":
        found = f"{result.state}, {result.reason}"
    return f"{job.name}: {found}, " + ("trained before" if result.known else f"{result.seconds:.1f} s")
