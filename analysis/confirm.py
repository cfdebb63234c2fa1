"""Confirm the best configurations of a study with other seeds: the table, and the champion.

python -m analysis.confirm --study STUDY
python -m analysis.confirm --study STUDY --best 5 --seeds 5 --random run
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.secrets import without_secrets

if TYPE_CHECKING:
    from bdqm_tune.experiment.confirm import Options

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: python -m analysis.confirm --study oc20 --best 5 --seeds 5")
def confirm(
    study: Annotated[str, typer.Option(help="Name of the study.")] = "",
    best: Annotated[str, typer.Option(metavar="N", help="Configurations to train anew; default: 5.")] = "",
    trial: Annotated[
        str, typer.Option(metavar="N", help="Confirm this trial: of several objectives, one of the front.")
    ] = "",
    seeds: Annotated[str, typer.Option(metavar="N", help="Seeds for each; default: 5.")] = "",
    random: Annotated[
        str, typer.Option(help="Random search to compare with: existing (default), run, none, or a study's name.")
    ] = "",
    train: Annotated[str, typer.Option(metavar="FILE", help="The training file, if it has moved since.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; default: as the study.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: figures/STUDY.")] = None,
) -> None:
    """Train the best configurations anew with other seeds and choose the champion: the table here, finalists.csv,
    retrainings.csv and confirmation.json in a folder and as artifacts of the confirmation's run."""
    from bdqm_tune.cli_results import confirmation_options
    from bdqm_tune.config import Study

    try:
        _confirm(study or Study().name, confirmation_options(best, seeds, random, train, device, trial), out)
    except BdqmError as error:
        print(without_secrets(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)


def _confirm(name: str, options: "Options", out: Path | None) -> None:
    from analysis.compare import folder
    from bdqm_tune.cli_results import confirmation_lines
    from bdqm_tune.experiment.confirm import confirm as run
    from bdqm_tune.experiment.confirm import write_confirmation
    from bdqm_tune.progress import note
    from bdqm_tune.services.connection import find_stores

    target = folder(name, out)  # before the work, so that nothing is trained whose files have no place
    made = run(find_stores(), name, options, lambda line, done, n: note(f"{done}/{n} {line}"))
    print("\n".join(confirmation_lines(made)))
    target.mkdir(parents=True, exist_ok=True)
    names = ", ".join(path.name for path in write_confirmation(made, target))
    print(f"{names}: {target}{os.sep}, and run {made.champion.confirmation_run_id}")


if __name__ == "__main__":
    app()
