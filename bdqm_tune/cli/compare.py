"""The command that compares the trials of a study, or several studies. Heavy imports happen inside it."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.cli.shared import stores_here
from bdqm_tune.errors import BadInput, BdqmError, argument

if TYPE_CHECKING:
    from rich.console import Console

    from bdqm_tune.learning.cost import Cost
    from bdqm_tune.services.connection import Stores

COMPARE_EXAMPLE = "`bdqm-tune compare oc20 --top 10`, `bdqm-tune compare tpe-1 tpe-2 random-1 random-2`"
WIDTH = 120  # columns, where the output is no terminal


def compare(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY …", help="Name of the study; of several, they are set side by side.")
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FOLDER", help="For figures and CSV; one that ends with / gets a folder of the study's own."
        ),
    ] = "figures/",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many trials the table shows.")] = 20,
    random: Annotated[
        str, typer.Option(metavar="STUDY", help="Study by the random sampler on the same data, for the baseline.")
    ] = "",
) -> None:
    """Compare the trials of a study: a table here, trials.csv, curves.csv and figures (PNG, PDF) in a folder.

    Of several studies: a table of their best, intervals over repeats (studies that differ in nothing but their seed),
    which of their differences are significant, errors and cost of their best models, studies.csv, models.csv and a
    figure. Of studies of different backends the time of predictions is measured.
    """
    repeated = sorted({name for name in studies if studies.count(name) > 1})
    if repeated:
        raise BadInput(f"the study {repeated[0]!r} is given twice")
    if len(studies) == 1:
        _compare_trials(studies[0], out, top, random)
    elif random:
        raise BadInput("--random is the baseline of one study; of several, name it among them")
    else:
        _compare_studies(studies, out)


def _console() -> "Console":
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH)


def _compare_trials(name: str, out: str, top: int, random: str) -> None:
    from bdqm_tune.analysis.drawings import write_study
    from bdqm_tune.analysis.folders import output_folder
    from bdqm_tune.analysis.tables import summary, table
    from bdqm_tune.study.optimism import optimism_of
    from bdqm_tune.study.results import load_results

    target = output_folder(name, out)
    stores = stores_here()
    results = load_results(stores, name)
    baseline = load_results(stores, random) if random else None
    console = _console()
    if len(results.trials):
        names, fixed = results.hyperparameters, results.fixed
        console.print(table(results.trials, names, top, console.width, results.objective, fixed))
        if len(results.trials) > top:
            print(f"and {len(results.trials) - top} more trials: --top, or trials.csv")
        print()
    print(summary(name, results.trials, results.objective))
    if (optimism := optimism_of(results.study.get_trials(deepcopy=False), results.objectives)) is not None:
        print(optimism.text())
    if len(results.objectives) > 1:
        print(f"judged by {', '.join(results.objectives)}: `bdqm-tune front {argument(name)}` shows the Pareto front")
    write_study(results, target, baseline)
    print(f"Figures (PNG, PDF), trials.csv and curves.csv: {target}{os.sep}")


def _compare_studies(names: list[str], out: str) -> None:
    from bdqm_tune.analysis.best_models import best_models
    from bdqm_tune.analysis.comparison import compare_studies, statements
    from bdqm_tune.analysis.drawings import write_comparison
    from bdqm_tune.analysis.folders import output_folder
    from bdqm_tune.analysis.tables import groups_table, models_table
    from bdqm_tune.study.results import load_results

    target = output_folder(f"compare-{'-'.join(names)}", out)
    stores = stores_here()
    results = [load_results(stores, name) for name in names]
    found = compare_studies(results)
    models = best_models(results, found.budget)
    several = models["backend"].nunique() > 1
    if several:
        models = best_models(results, found.budget, _prediction_costs(models["run_id"].tolist(), stores))
    console = _console()
    console.print(groups_table(found.groups, found.objective))
    print()
    print(f"best of the first {found.budget} trials, which all {len(names)} studies have; intervals: 95 %, bootstrap")
    for line in (*statements(found), *found.notes):
        print(line)
    print()
    console.print(models_table(models))
    print("the best model of each study" + ("; predictions measured here, in one thread of the CPU" if several else ""))
    write_comparison(found, models, target)
    print(f"Figures (PNG, PDF), studies.csv, models.csv and best.csv: {target}{os.sep}")


def _prediction_costs(run_ids: list[str], stores: "Stores") -> dict[str, "Cost"]:
    """What predictions of the models of runs cost here; a line says why one cannot be measured, which is left out."""
    from bdqm_tune.models.prediction_time import prediction_cost
    from bdqm_tune.progress import note

    found = {}
    for run_id in run_ids:
        try:
            found[run_id] = prediction_cost(run_id, stores)
        except BdqmError as error:
            note(f"bdqm-tune: the time of predictions is not measured: {error}")
    return found
