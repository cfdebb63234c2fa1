"""The command `bdqm-tune`: parses, calls, prints. Heavy imports happen inside the commands."""

import json
import os
import shlex
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bdqm_tune.cli.amptorch import EXPORT_EXAMPLE, IMPORT_EXAMPLE, export_amptorch, import_amptorch
from bdqm_tune.cli.compare import COMPARE_EXAMPLE, compare
from bdqm_tune.cli.flags import show_plainly
from bdqm_tune.cli.init import INIT_EXAMPLE, init
from bdqm_tune.cli.interruption import INTERRUPTED, end, listen
from bdqm_tune.cli.jobs import CANCEL_EXAMPLE, JOBS_EXAMPLE, SUBMIT_EXAMPLE, cancel, jobs, submit
from bdqm_tune.cli.models import ENSEMBLE_EXAMPLE, EVALUATE_EXAMPLE, PREDICT_EXAMPLE, ensemble, evaluate, predict
from bdqm_tune.cli.n2p2 import EXPORT_EXAMPLE as EXPORT_N2P2_EXAMPLE
from bdqm_tune.cli.n2p2 import IMPORT_EXAMPLE as IMPORT_N2P2_EXAMPLE
from bdqm_tune.cli.n2p2 import export_n2p2, import_n2p2
from bdqm_tune.cli.report import REPORT_EXAMPLE, report
from bdqm_tune.cli.results import CONFIRM_EXAMPLE, REGISTER_EXAMPLE, REPRODUCE_EXAMPLE, confirm, register, reproduce
from bdqm_tune.cli.shared import Json, print_record, stores_here, tune_overrides
from bdqm_tune.cli.studies import (
    COPY_EXAMPLE,
    DELETE_EXAMPLE,
    DOCTOR_EXAMPLE,
    FRONT_EXAMPLE,
    STATUS_EXAMPLE,
    STUDIES_EXAMPLE,
    copy_study,
    delete_study,
    doctor,
    front,
    status,
    studies,
)
from bdqm_tune.errors import DISK_FULL, BadInput, BdqmError, argument, is_disk_full, printable
from bdqm_tune.mlflow_server.commands import app as services
from bdqm_tune.progress import Bar, check, told_to_end

if TYPE_CHECKING:
    import optuna

    from bdqm_tune.config.config import Config
    from bdqm_tune.learning.dataset import Dataset
    from bdqm_tune.services.connection import Stores
    from bdqm_tune.study.trial_result import TrialResult

app = typer.Typer(
    help="Tune neural-network potentials: from a trajectory to a tuned, tracked, tested model.",
    epilog="Studies and runs go to your servers once you have had some up (`services up`), before that to files of the "
    "working folder; the variables BDQM_STORAGE and MLFLOW_TRACKING_URI name other places.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.add_typer(services, name="services")
app.command(epilog=f"Example: {IMPORT_EXAMPLE}")(import_amptorch)
app.command(epilog=f"Example: {EXPORT_EXAMPLE}")(export_amptorch)
app.command(epilog=f"Example: {IMPORT_N2P2_EXAMPLE}")(import_n2p2)
app.command(epilog=f"Example: {EXPORT_N2P2_EXAMPLE}")(export_n2p2)

# Every option is text here and empty when not given, as MLflow passes it; bdqm_tune/config/config.py checks it.
Train = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Structures with energies, any file that ASE reads, or several: `a.traj,runs/*.xyz,md.traj@::10`; "
        "default: `builtin`.",
    ),
]
ValidationFile = Annotated[
    str, typer.Option(metavar="FILE", help="Structures to validate on; without it, a share of the training file.")
]
Test = Annotated[str, typer.Option(metavar="FILE", help="Structures of the test split, laid aside for `evaluate`.")]
ConfigFile = Annotated[str, typer.Option(metavar="FILE", help="Configuration file (YAML).")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE,…",
        help="Hyperparameters, and options of the descriptor, to fix; also options of data, target and training: "
        "`target.reference_energies={Cu: -3.7}`. Can be given several times.",
        show_default=False,
    ),
]


@app.command(epilog="Example: `bdqm-tune tune --train train.traj --test test.traj --study oc20 --n-trials 50`")
def tune(
    train: Train = "",
    test: Test = "",
    validation: ValidationFile = "",
    config: ConfigFile = "",
    study: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the study; one that exists is resumed. Default: `default`.")
    ] = "",
    n_trials: Annotated[str, typer.Option(metavar="N", help="Trials to add; default: 20.")] = "",
    epochs: Annotated[str, typer.Option(metavar="N", help="Epochs of a trial, at most; default: 100.")] = "",
    objectives: Annotated[
        str,
        typer.Option(
            metavar="NAME,…",
            help="What to minimise, several at once: `val_energy_mae,n_parameters`; default: the error alone.",
        ),
    ] = "",
    sampler: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="tpe (default), cmaes, random, gp, grid, qmc, nsgaii, or one of another package."
        ),
    ] = "",
    pruner: Annotated[str, typer.Option(metavar="NAME", help="hyperband (default), halving, median or none.")] = "",
    seed: Annotated[str, typer.Option(metavar="N", help="Seed of the sampler and the networks; default: 0.")] = "",
    backend: Annotated[str, typer.Option(metavar="NAME", help="What trains: native (default), amptorch or mace.")] = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto (default), cpu, cuda or cuda:N.")] = "",
    cohort: Annotated[
        str, typer.Option(metavar="N", help="Trials trained at the same time: auto (default), or how many.")
    ] = "",
    patience: Annotated[
        str, typer.Option(metavar="MINUTES", help="To wait for a store that does not answer; default: 30.")
    ] = "",
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Search good hyperparameters: run the trials of a study and track them in MLflow."""
    parameters = {
        "train": train,
        "test": test,
        "validation": validation,
        "study": study,
        "n_trials": n_trials,
        "epochs": epochs,
        "objectives": objectives,
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
        "backend": backend,
        "device": device,
        "cohort": cohort,
        "patience": patience,
        "set": ",".join(set_ or []),
    }
    options = _load(config, tune_overrides(parameters))

    from bdqm_tune.tuning.tune import tune as run

    stores = stores_here()
    dataset = _dataset(options, stores.home)
    with Bar("Trials", options.study.n_trials) as bar:
        finished = run(dataset, options, stores, lambda result, found: bar.advance(_trial_line(result, found)))
    _report_study(finished, stores, as_json)


@app.command(epilog="Example: `bdqm-tune prepare --train train.traj --test test.traj --set data.stress_key=virial`")
def prepare(
    train: Train = "",
    test: Test = "",
    validation: ValidationFile = "",
    config: ConfigFile = "",
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Check, split and featurise structures, and print what came out."""
    given = {"train": train, "test": test, "validation": validation, "set": ",".join(set_ or [])}
    options = _load(config, tune_overrides(given))

    from bdqm_tune.learning.dataset import summary
    from bdqm_tune.services.connection import home_folder

    print_record(summary(_dataset(options, home_folder())), as_json)


app.command(epilog=f"Example: {STATUS_EXAMPLE}")(status)
app.command(epilog=f"Example: {STUDIES_EXAMPLE}")(studies)
app.command(epilog=f"Example: {FRONT_EXAMPLE}")(front)
app.command(epilog=f"Example: {DELETE_EXAMPLE}")(delete_study)
app.command(epilog=f"Example: {COPY_EXAMPLE}")(copy_study)
app.command(epilog=f"Example: {CONFIRM_EXAMPLE}")(confirm)
app.command(epilog=f"Example: {EVALUATE_EXAMPLE}")(evaluate)
app.command(epilog=f"Example: {ENSEMBLE_EXAMPLE}")(ensemble)
app.command(epilog=f"Example: {REPORT_EXAMPLE}")(report)
app.command(epilog=f"Example: {COMPARE_EXAMPLE}")(compare)
app.command(epilog=f"Example: {REGISTER_EXAMPLE}")(register)
app.command(epilog=f"Example: {PREDICT_EXAMPLE}")(predict)
# What it does not know are options of `tune`.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(epilog=f"Example: {INIT_EXAMPLE}")(init)
app.command(epilog=f"Example: {SUBMIT_EXAMPLE}", context_settings=PASSED_ON)(submit)
app.command(epilog=f"Example: {JOBS_EXAMPLE}")(jobs)
app.command(epilog=f"Example: {CANCEL_EXAMPLE}")(cancel)
app.command(epilog=f"Example: {REPRODUCE_EXAMPLE}")(reproduce)


@app.command(epilog="Example: `bdqm-tune gc --keep-best 5 --dry-run`")
def gc(
    keep_best: Annotated[int, typer.Option("--keep-best", metavar="N", help="Trials of each study that keep theirs.")],
    study: Annotated[str, typer.Option(metavar="NAME", help="Of this study only; default: of all.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove models and files of all trials but the best from MLflow; parameters and curves stay."""
    from dataclasses import asdict

    from bdqm_tune.admin.artifact_gc import remove_artifacts
    from bdqm_tune.units import bytes_text

    freed = remove_artifacts(stores_here(), study or None, keep_best, dry_run)
    if as_json:
        print(json.dumps([asdict(one) for one in freed]))
        return
    for one in freed:
        numbers = ", ".join(map(str, one.kept)) or "none, as no trial is complete"
        done = "would be freed" if dry_run else "freed"
        print(f"{one.study}: {bytes_text(one.bytes)} {done}, {one.files} files of {one.runs} trials; kept: {numbers}")
    if not freed:
        print("there is no study yet")


app.command(epilog=f"Example: {DOCTOR_EXAMPLE}")(doctor)

show_plainly(app, services)


def main() -> NoReturn:
    """Run the command line; what a user did wrong becomes one line and exit status 2."""
    listen()
    # A tracking server that does not answer must not block for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    try:
        check()  # an interruption may have been swallowed by an import
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        # What interrupts an import may come out of it as another error.
        code = INTERRUPTED if told_to_end.is_set() else _failed(error)
    if code == INTERRUPTED:  # which typer gives back where it caught the interruption itself
        end()
    sys.exit(code or 0)


def _failed(error: Exception) -> int:
    """Say what failed; the exit status."""
    from bdqm_tune.services.secrets import without_secrets

    code = error.exit_code if isinstance(error, BdqmError) else BdqmError.exit_code
    if isinstance(error, BadInput):
        message = f"bdqm-tune: {printable(str(error))}"
    elif isinstance(error, BdqmError):
        message = f"bdqm-tune: {error}"
    elif isinstance(error, typer.TyperException):
        code, message = BadInput.exit_code, f"bdqm-tune: {printable(error.format_message())}"
    elif is_disk_full(error):
        # Numba, too, keeps files in the home folder, where the package's cannot be written to.
        unnamed = f"cannot write: {DISK_FULL}; TMPDIR and NUMBA_CACHE_DIR name other folders, if it is none of yours"
        file = getattr(error, "filename", None)
        message = f"bdqm-tune: {file}: {DISK_FULL}" if file else f"bdqm-tune: {unnamed}"
    else:  # which nobody expected
        message = traceback.format_exc().rstrip()
    print(without_secrets(message), file=sys.stderr)
    return code


def _load(path: str, overrides: Mapping[str, Mapping[str, Any]]) -> "Config":
    from bdqm_tune.config.config import load_config
    from bdqm_tune.services.secrets import refuse_secrets

    try:
        refuse_secrets({**overrides, "config": path})
    except BadInput as error:
        raise BadInput(f"{error}{_recorded()}") from None
    config = load_config(path or None, overrides)
    refuse_secrets(config.model_dump())
    return config


def _recorded() -> str:
    """What to do with the run in which `mlflow run` recorded its parameters before it called us."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is None:
        return ""
    from bdqm_tune.tracking.client import gc_command

    store = os.environ.get("MLFLOW_TRACKING_URI", "")  # which `mlflow run` sets, too
    remove = f"`mlflow runs delete --run-id {run_id}` and {gc_command(store, run_id)}"
    return f". `mlflow run` has recorded it already: change the password; {remove} remove it"


def _dataset(options: "Config", home: Path) -> "Dataset":
    """The data of a configuration; what is odd about them goes to standard error."""
    from bdqm_tune.compilation.cache import compile_ahead
    from bdqm_tune.learning.dataset import prepare

    compile_ahead()

    dataset = prepare(options, home)
    for warning in dataset.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return dataset


def _trial_line(result: "TrialResult", study: "optuna.Study") -> str:
    """How a trial ended, and the best one of the study."""
    from bdqm_tune.study.objectives import pareto_front
    from bdqm_tune.study.study import SIGNATURE, errors_of
    from bdqm_tune.units import error_name, error_text

    objective, found = study.user_attrs[SIGNATURE]["objective"], "no result"
    if result.value is not None:
        found = f"val {error_name(objective)} {error_text(vars(result), objective)} at epoch {result.best_epoch}"
    why = f" ({result.reason})" if result.reason else ""
    if len(study.directions) > 1:
        if result.time_per_atom is not None:
            found += f", {result.n_parameters} parameters, {1e6 * result.time_per_atom:.2f} µs an atom"
        n = len(pareto_front(study.get_trials(deepcopy=False)))
        best = f"; {n} {'trial' if n == 1 else 'trials'} on the Pareto front"
    else:
        try:
            best = f"; best so far {error_text(errors_of(study.best_trial, [objective]), objective)}"
        except ValueError:  # none is complete
            best = ""
    return f"trial {result.number:03d} {result.state}{why}: {found}, {result.trial_seconds:.1f} s{best}"


def _report_study(study: "optuna.Study", stores: "Stores", as_json: bool) -> None:
    from bdqm_tune.services.secrets import without_secrets
    from bdqm_tune.study.best_so_far import ERRORS
    from bdqm_tune.study.objectives import objectives_of, pareto_front
    from bdqm_tune.study.results import trials_frame
    from bdqm_tune.study.selection import best_trial
    from bdqm_tune.study.study import EXPERIMENT, SIGNATURE
    from bdqm_tune.units import error_text

    trials = trials_frame(study.get_trials(deepcopy=False))
    counts = {str(state): int(n) for state, n in trials["state"].value_counts().items()}
    complete = trials[trials["state"] == "complete"]
    record: dict[str, Any] = {"study": study.study_name, **counts}
    if len(complete):
        best = complete[complete["number"] == best_trial(study).number].iloc[0]
        objective = objectives_of(study.user_attrs[SIGNATURE])[0]
        names = sorted(ERRORS, key=lambda name: not name.startswith(objective))  # that by which it is the best first
        errors = {name: float(best[name]) for name in names if best[name] == best[name]}
        run_id = {"best_run_id": str(best["run_id"])}
        record |= {"best_trial": int(best["number"])}
        if as_json:
            record |= {f"best_{name}": error for name, error in errors.items()} | run_id
        else:
            # An error of total energies is shown with that per atom, one of energies and forces with both.
            shown = {"val_energy_mae_per_atom", "val_forces_mae"} if "val_energy_forces" in errors else set[str]()
            judged_by = [name for name in names if name in errors and name not in shown | {"val_energy_mae_per_atom"}]
            record |= {f"best_{name}": error_text(errors, name) for name in judged_by} | run_id
    several = len(study.directions) > 1
    if several:
        record["front"] = [trial.number for trial in pareto_front(study.get_trials(deepcopy=False))]
    print_record(record, as_json)
    if not as_json:
        # Without the last part, MLflow's page shows what its users of language models look for, and no runs.
        page = f"#/experiments/{study.user_attrs[EXPERIMENT]}/runs?workflowType=machine_learning"
        server = without_secrets(stores.tracking_uri or "").rstrip("/")
        if server.startswith("http"):
            print("\nnext: in the browser")
            print(f"      {server}/{page}")
        else:
            print("\nnext: `mlflow ui` in this folder, and in the browser")
            print(f"      http://127.0.0.1:5000/{page}")
        if several:
            print(f"      `bdqm-tune front {argument(study.study_name)}` shows the Pareto front")
        else:
            name = shlex.quote(study.study_name)
            print(f"      `bdqm-tune evaluate --study {name}` evaluates the best model on the test split")
