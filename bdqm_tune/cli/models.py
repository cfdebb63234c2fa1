"""The commands that use a study's models: evaluate, make an ensemble, predict. Heavy imports happen inside them."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bdqm_tune.cli.shared import (
    AllowUnknown,
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
    unknown_elements_shown,
)
from bdqm_tune.errors import BadInput

EVALUATE_EXAMPLE = (
    "`bdqm-tune evaluate --study oc20`, `bdqm-tune evaluate --study oc20 --trial 7`, "
    '`bdqm-tune evaluate --study oc20 --ensemble latest --reopen "ensemble planned"`'
)
ENSEMBLE_EXAMPLE = "`bdqm-tune ensemble --study oc20 --best 5`"
PREDICT_EXAMPLE = (
    "`bdqm-tune predict runs:/0123abcd/model slab.xyz --out predicted.xyz`, "
    "`bdqm-tune predict models:/oc20@champion slab.xyz`"
)

# The same as --allow-unknown-elements for MLproject, whose parameters all have a value.
UnknownElements = Annotated[str, typer.Option("--unknown-elements", metavar="true|false", hidden=True)]
LabelName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Name in the file; a virial has `virial` in it.",
        show_default="as the model's study had it",
    ),
]
Reopen = Annotated[
    str, typer.Option(metavar="REASON", help="Why the test split is opened for one more model; stays on record.")
]


def evaluate(
    study: StudyName = "",
    ensemble: Annotated[
        str, typer.Option(metavar="RUN_ID", help="Evaluate this ensemble of the study; or `latest`.")
    ] = "",
    trial: PickedTrial = "",
    reopen: Reopen = "",
    file: Annotated[
        str,
        typer.Option("--file", metavar="FILE", help="Evaluate on this labelled file, and leave the test split sealed."),
    ] = "",
    train: Train = "",
    out: Out = "",
    allow_unknown_elements: AllowUnknown = False,
    unknown_elements: UnknownElements = "",
    as_json: Json = False,
) -> None:
    """Evaluate the best trial's model, or an ensemble, on the test split: for one model of a study, on record.

    With --file, on any other labelled structures instead, for as many models as you like, also on record."""
    from bdqm_tune.analysis.evaluation import evaluation_lines
    from bdqm_tune.config.config import Study
    from bdqm_tune.evaluation.evaluation import evaluate_best, evaluate_ensemble
    from bdqm_tune.progress import note

    if unknown_elements not in ("", "true", "false"):
        raise BadInput(f"allow_unknown_elements must be true or false, got {unknown_elements!r}")
    allow_unknown_elements |= unknown_elements == "true"
    picked = picked_trial(trial, ensemble)
    name = study or Study().name
    if file:
        if reopen:
            raise BadInput("--reopen is for the test split, which --file leaves sealed; give one of them")
        with unknown_elements_shown():
            _evaluate_file(name, file, picked, ensemble, train, out, as_json, allow_unknown_elements)
        return
    folder = files_folder(name, out)  # before the evaluation, so that nothing is recorded whose files have no place
    if folder is not None and ensemble and out.endswith(os.sep):
        folder = files_folder(name, f"{folder / 'ensemble'}")
    stores = stores_here()
    options: dict[str, Any] = {"reopen": reopen, "train": train, "allow_unknown_elements": allow_unknown_elements}
    with unknown_elements_shown():
        evaluation = (
            evaluate_ensemble(stores, name, ensemble, **options)
            if ensemble
            else evaluate_best(stores, name, trial=picked, **options)
        )
    if as_json:
        model = {"trials": list(evaluation.trials)} if evaluation.trial is None else {"trial": evaluation.trial}
        opening = evaluation.opening
        record = {"study": evaluation.study, **model, "opening": opening.number, "opened": opening.time}
        print(json.dumps(record | {"repeated": evaluation.repeated, **evaluation.metrics, "run_id": evaluation.run_id}))
    else:
        print("\n".join(evaluation_lines(evaluation)))
    if folder is not None:
        from bdqm_tune.analysis.evaluation import write_evaluation

        for path in write_evaluation(evaluation, folder):
            evaluation.log_artifact(path)
        (note if as_json else print)(
            f"tables, test_metrics.json and figures: {folder}{os.sep}, and run {evaluation.run_id}"
        )


def _evaluate_file(
    name: str,
    file: str,
    trial: int | None,
    ensemble: str,
    train: str,
    out: str,
    as_json: bool,
    allow_unknown_elements: bool,
) -> None:
    from bdqm_tune.analysis.evaluation import set_lines
    from bdqm_tune.evaluation.evaluation import chosen, chosen_ensemble
    from bdqm_tune.evaluation.further_set import evaluate_file, write_set
    from bdqm_tune.progress import note

    folder = files_folder(name, out)
    choose = chosen_ensemble(ensemble) if ensemble else chosen(trial)
    found = evaluate_file(stores_here(), name, file, choose, train, allow_unknown_elements)
    if as_json:
        record = {"study": found.study, "model": found.model, "file": found.file}
        print(json.dumps(record | found.metrics | {"run_id": found.run_id}))
    else:
        print("\n".join(set_lines(found)))
    if folder is not None:
        write_set(found, folder)
        (note if as_json else print)(f"tables and set_metrics.json: {folder}{os.sep}, and run {found.run_id}")


def picked_trial(trial: str, ensemble: str) -> int | None:
    """The number of the trial to evaluate; None: the study's. Raises BadInput if there is an ensemble as well."""
    if trial and ensemble:
        raise BadInput("--trial and --ensemble are two models; evaluate one of them")
    return trial_number(trial)


def ensemble(
    study: StudyName = "",
    best: Annotated[str, typer.Option(metavar="N", help="Trials whose models it has; default: 5.")] = "",
    coverage: Annotated[
        str, typer.Option(metavar="SHARE", help="Of the true energies within its intervals; default: 0.9.")
    ] = "",
    train: Train = "",
    as_json: Json = False,
) -> None:
    """Make one model of the best trials, whose spread becomes intervals calibrated on the validation split."""
    from bdqm_tune.config.config import Study
    from bdqm_tune.models.ensembling import BEST, COVERAGE, assemble, record_ensemble
    from bdqm_tune.units import MEV

    stores = stores_here()
    members, stated = number("--best", best, int, BEST), number("--coverage", coverage, float, COVERAGE)
    made = assemble(stores, study or Study().name, members, stated, train or None)
    run_id = record_ensemble(stores, made)
    metrics: dict[str, float | str] = dict(made.metrics)
    if not as_json:  # energies per atom first, as the field quotes them
        for name in ("val_energy_mae", "val_energy_rmse", "val_energy_max_error"):
            per_atom = MEV * made.metrics[f"{name}_per_atom"]
            metrics[name] = f"{per_atom:#.4g} meV/atom ({made.metrics[name]:.4f} eV)"
            del metrics[f"{name}_per_atom"]
    print_record(
        {"study": made.study, "trials": list(made.numbers), "coverage": stated, **metrics, "run_id": run_id}, as_json
    )
    if not as_json:
        name = shlex.quote(made.study)
        print(f"\nnext: `bdqm-tune evaluate --study {name} --ensemble latest` says what the intervals hold")
        print(f"      `bdqm-tune predict {run_id} FILE` predicts with it")


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder, a run's id, `runs:/RUN_ID/model`, `models:/NAME@ALIAS` or `models:/NAME/VERSION`."
        ),
    ],
    file: Annotated[str, typer.Argument(help="Structures, any file that ASE reads.")],
    out: Annotated[
        str, typer.Option(metavar="FILE", help="Where to write them: .xyz, .extxyz or .traj.")
    ] = "predicted.xyz",
    min_covalent_ratio: Annotated[
        str,
        typer.Option(
            metavar="N", help="Least distance of two atoms over the sum of their covalent radii; 0: any; default: 0.25."
        ),
    ] = "",
    allow_unknown_elements: AllowUnknown = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Of the network: `float32` or `float64`.", show_default="that of the training"
        ),
    ] = "",
    energy_key: LabelName = "",
    forces_key: LabelName = "",
    stress_key: LabelName = "",
    as_json: Json = False,
) -> None:
    """Predict energies and forces of the structures in a file; with an ensemble also how sure they are.

    Labels that the file has stay beside the predictions, and the errors are printed."""
    from dataclasses import asdict

    from bdqm_tune.config.config import Data
    from bdqm_tune.models.prediction import predict_file
    from bdqm_tune.models.store import is_tracked
    from bdqm_tune.services.connection import Stores, home_folder
    from bdqm_tune.units import shown

    ratio = number("--min-covalent-ratio", min_covalent_ratio, float, Data().min_covalent_ratio)
    stores = stores_here() if is_tracked(model) else Stores(home_folder())
    with unknown_elements_shown():
        done = predict_file(
            model,
            file,
            Path(out),
            stores,
            precision=precision or None,
            allow_unknown_elements=allow_unknown_elements,
            min_covalent_ratio=ratio,
            energy_key=energy_key,
            forces_key=forces_key,
            stress_key=stress_key,
        )
    for line in filter(None, (done.note, *done.other_labels)):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(asdict(done)))
        return
    print(f"{done.structures} structures with {', '.join(done.columns)} (eV, eV/Å): {out}")
    for name, stored in (("energy", "eV/atom"), ("forces", "eV/Å"), ("stress", "eV/Å³")):
        after = "_per_atom" if name == "energy" else ""
        if f"{name}_mae{after}" in done.errors:
            factor, unit = shown(1.0, stored)
            mae, rmse = (factor * done.errors[f"{name}_{kind}{after}"] for kind in ("mae", "rmse"))
            label = done.compared_with[name]
            called = name if label == name else f"{name} ({label})"
            print(f"{called}: MAE {mae:.4g}, RMSE {rmse:.4g} {unit}")
