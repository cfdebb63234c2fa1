"""The commands that make a study's result one to rely on: confirm, register, reproduce. Heavy imports are inside."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.cli.shared import (
    Json,
    Out,
    PickedTrial,
    StudyName,
    Train,
    files_folder,
    number,
    print_record,
    stores_here,
    trial_number,
)
from bdqm_tune.errors import BadInput

if TYPE_CHECKING:
    from bdqm_tune.confirmation.confirm import Confirmation, Options
    from bdqm_tune.models.reproduction import Reproduction

REGISTER_EXAMPLE = "`bdqm-tune register --study oc20`, `bdqm-tune register --study oc20 --name slabs --alias tested`"
REPRODUCE_EXAMPLE = "`bdqm-tune reproduce RUN_ID`, `bdqm-tune reproduce RUN_ID --export supplement.tar.gz`"
CONFIRM_EXAMPLE = "`bdqm-tune confirm --study oc20 --best 5 --seeds 5`, `bdqm-tune confirm --study oc20 --random run`"


def confirm(
    study: StudyName = "",
    best: Annotated[str, typer.Option(metavar="N", help="Configurations to retrain; default: 5.")] = "",
    trial: PickedTrial = "",
    seeds: Annotated[str, typer.Option(metavar="N", help="Seeds for each; default: 5.")] = "",
    random: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Random search to compare with: `existing` (default), `run` makes one of the same number of trials, "
            "`none`, or the name of a study.",
        ),
    ] = "",
    train: Train = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N; default: as the study.")] = "",
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble/--no-ensemble",
            help="Whether the champion's model is the ensemble of its seeds, where that predicts in at most three "
            "times the time; else its best seed's.",
        ),
    ] = True,
    registered: Annotated[bool, typer.Option("--register", help="Register the champion, as `register` does.")] = False,
    out: Out = "",
    as_json: Json = False,
) -> None:
    """Retrain the best configurations with other seeds, rank them, and choose the champion among them.

    Called again, it resumes: what was trained before is not trained again."""
    from bdqm_tune.compilation.cache import compile_ahead
    from bdqm_tune.config.config import Study
    from bdqm_tune.confirmation.confirm import confirm as run
    from bdqm_tune.confirmation.confirm import write_confirmation
    from bdqm_tune.progress import note

    options = confirmation_options(best, seeds, random, train, device, trial, ensemble)
    name = study or Study().name
    folder = files_folder(name, out)  # before the work, so that nothing is trained whose files have no place
    stores = stores_here()
    compile_ahead()
    made = run(stores, name, options, lambda line, done, n: note(f"{done}/{n} {line}"))
    print(json.dumps(made.record()) if as_json else "\n".join(confirmation_lines(made)))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        written = ", ".join(path.name for path in write_confirmation(made, folder))
        (note if as_json else print)(f"{written}: {folder}{os.sep}, and run {made.champion.confirmation_run_id}")
    if registered:
        from bdqm_tune.models.registry import register as enter

        version = enter(stores, made.study, train=train or None)
        note(f"registered as models:/{version.name}@{version.alias}, version {version.version}")
    if not as_json:
        print(
            f"\nnext: `bdqm-tune evaluate --study {shlex.quote(made.study)}` evaluates the champion on the test split",
            flush=True,
        )


def register(
    study: StudyName = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Of the registered model; default: the study's.")
    ] = "",
    alias: Annotated[str, typer.Option(metavar="NAME", help="That points to it from now on.")] = "champion",
    trial: PickedTrial = "",
    train: Train = "",
    as_json: Json = False,
) -> None:
    """Put the champion, or else the best trial's model, into MLflow's registry, where MLflow can serve it."""
    from dataclasses import asdict

    from bdqm_tune.config.config import Study
    from bdqm_tune.models.registry import register as run

    picked = trial_number(trial)
    made = run(stores_here(), study or Study().name, name, alias, train or None, picked)
    record = asdict(made)
    if not as_json:
        record["version"] += ", registered before" if record.pop("known") else ", new"
    print_record(record, as_json)
    if not as_json:
        address = f"models:/{made.name}@{made.alias}"
        quoted = shlex.quote(address)
        print(f"\nnext: `bdqm-tune predict {quoted} FILE`, or `bdqm_tune.load_calculator({address!r})`")
        print(f"      `mlflow models serve -m {quoted} --env-manager local` answers requests")


def reproduce(
    run_id: Annotated[str, typer.Argument(help="Id of the run of a trial, or of a training of `confirm`.")],
    train: Train = "",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N; default: as it was configured.")
    ] = "",
    tolerance: Annotated[str, typer.Option(metavar="SHARE", help="Of each epoch's metrics; default: 0.001.")] = "",
    export: Annotated[
        str, typer.Option(metavar="FILE.tar.gz", help="Train nothing; write an archive for a paper's supplement.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Train a run's configuration again with its data and seed, and compare: exit status 1 if the result differs."""
    from bdqm_tune.compilation.cache import compile_ahead
    from bdqm_tune.models.archive import export as write
    from bdqm_tune.models.reproduction import DIFFERENT, TOLERANCE
    from bdqm_tune.models.reproduction import reproduce as run

    stores = stores_here()
    if export:
        names = write(stores, run_id, Path(export), train or None)
        print(json.dumps(names) if as_json else f"{export}: {', '.join(names)}")
        return
    compile_ahead()  # what compiles in memory rounds otherwise than what is read from the cache
    found = run(stores, run_id, train or None, device, number("--tolerance", tolerance, float, TOLERANCE))
    for line in found.notes:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(found.record()))
    else:
        print("\n".join(reproduction_lines(found)))
    if found.verdict == DIFFERENT:
        raise typer.Exit(1)


def reproduction_lines(found: "Reproduction") -> list[str]:
    """The verdict on a training that was repeated, and the metrics that differ."""
    lines = [f"{found.name} ({found.run_id}): {found.verdict}, {found.epochs} epochs compared"]
    for row in found.differences.to_dict("records"):
        if row["absolute"] > 0:
            lines.append(
                f"  {row['metric']}: differs from epoch {row['first_epoch']}, by {row['absolute']:.3g} at most "
                f"({row['relative']:.2g} of its mean)"
            )
    weights = "the same to the last bit" if found.same_weights else "not the same to the last bit"
    return [*lines, f"  weights: {weights}"]


def confirmation_options(
    best: str, seeds: str, random: str, train: str, device: str, trial: str = "", ensemble: bool = True
) -> "Options":
    """The options of a confirmation from their texts, empty for what is not given. Raises BadInput if one is wrong."""
    from bdqm_tune.confirmation.confirm import BEST, EXISTING, SEEDS, Options

    if best and trial:
        raise BadInput("--best and --trial choose what is confirmed in two ways; give one of them")
    counts = number("--best", best, int, BEST), number("--seeds", seeds, int, SEEDS)
    return Options(*counts, random or EXISTING, train or None, device, trial_number(trial), ensemble)


def _models(made: "Confirmation") -> list[str]:
    """The champion's best training, and the ensemble of all of them."""
    from bdqm_tune.units import error_text

    champion, best, run_id = made.champion, made.champion.value, made.champion.run_id
    if champion.is_ensemble:
        (row,) = made.table[made.table["name"] == made.name].to_dict("records")
        best, run_id = row["best"], row["best_run_id"]
    found = error_text({made.objective: best}, made.objective)
    lines = [f"its best training, with seed {champion.seed}: {found}, run {run_id}"]
    if champion.is_ensemble:
        return [*lines, f"its model is {made.ensemble}, run {champion.run_id}"]
    return [*lines, *([made.ensemble] if made.ensemble else [])]


def _digits(value: float) -> str:
    return "" if value != value else f"{value:#.4g}".rstrip(".")


def confirmation_lines(made: "Confirmation") -> list[str]:
    """The table of a confirmation and what follows from it."""
    from bdqm_tune.confirmation.seeds import INTERVAL
    from bdqm_tune.units import MEV, error_title, shown

    frame, (factor, unit) = made.table, shown(1.0, made.unit)
    quote = _digits if unit == "meV/atom" else "{:.4f}".format
    width = max(map(len, frame["name"]))
    per_atom = frame["mean_per_atom"] if "mean_per_atom" in frame else frame["mean"] * float("nan")
    head = f"  {'meV/atom':>9}" if per_atom.notna().any() else ""
    lines = [
        f"{made.study}: validation {error_title(made.objective)} over "
        f"{len(made.seeds)} seeds; mean, interval and best in {unit}",
        f"{'':>4}  {'':<{width}}{head}  {'mean':>9}  {'95 % interval':>21}  {'best':>9}  {'parameters':>10}",
    ]
    for row in frame.to_dict("records"):
        mean, low, high, best = (
            "" if row[name] != row[name] else quote(factor * row[name]) for name in ("mean", "low", "high", "best")
        )
        interval = f"{low} to {high}" if low else ""
        missing = "" if row["seeds"] == len(made.seeds) else f"  {row['seeds']} of {len(made.seeds)} seeds"
        first = f"  {_digits(MEV * row.get('mean_per_atom', float('nan'))):>9}" if head else ""
        mark = "*" if row["name"] == made.name else ""
        lines.append(
            f"{mark:>1}{row['rank']:>3}  {row['name']:<{width}}{first}  {mean:>9}  {interval:>21}  {best:>9}  "
            f"{row['n_parameters']:>10}{missing}"
        )
    champion = made.champion
    return [
        *lines,
        f"(* champion; {INTERVAL})",
        f"champion  {made.name}: {champion.why}",
        *made.baselines,
        made.random,
        *_models(made),
        *(f"note: {note}" for note in made.notes),
    ]
