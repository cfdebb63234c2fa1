"""Commands in messages work as they are, whatever the study is called."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import pytest
import typer
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from bdqm_tune.cli.main import app
from bdqm_tune.errors import argument
from bdqm_tune.tracking.client import gc_command
from tests.commands import Call

PROGRAMS: dict[str, Any] = {"bdqm-tune": typer.main.get_command(app), "mlflow": mlflow.cli.cli}
NAMES = ("first try (water)", "-x 'y' $HOME")
PLACEHOLDERS = {"N": "0", "FILE": "a.xyz", "ID": "0123"}


def parsed(hint: str) -> tuple[str, list[Any]]:
    """The subcommand of a hint, as the program's own parser understands it, and the values of its parameters.

    Raises:
        click.UsageError: it does not.
    """
    program, *arguments = [PLACEHOLDERS.get(word, word) for word in shlex.split(hint)]
    command, names = PROGRAMS[program], [program]
    while hasattr(command, "commands"):  # until it is no group
        name, *arguments = arguments
        command = command.get_command(click.Context(command), name)  # which knows aliases, as `mlflow ui`
        names.append(name)
    with command.make_context(names[-1], arguments) as context:
        return " ".join(names), list(context.params.values())


def hints(text: str) -> dict[str, list[Any]]:
    """The parameters of the commands in a message, by subcommand."""
    commands = re.findall(r"`((?:bdqm-tune|mlflow) [a-z][^`]*)`", text)
    return dict(parsed(command) for command in commands)


@pytest.mark.parametrize("name", NAMES)
def test_hints_name_the_study(call: Call, files: dict[str, str], name: str) -> None:
    tune = ["tune", "--train", files["train"], "--test", files["test"], "--epochs", "1", "--n-trials", "2"]
    tune += ["--set", "descriptor.sigmas=2", "--set", "descriptor.orders=[0]", "--study"]
    one, several = name, f"{name} of several"
    for study, command, naming in (
        (one, [*tune, one, "--pruner", "none"], ["evaluate"]),
        (one, ["evaluate", "--study", one, "--ensemble", "latest"], ["ensemble"]),
        (one, ["ensemble", "--study", one, "--best", "2", "--coverage", "0.5"], ["evaluate"]),
        (one, ["front", "--", one], ["status"]),
        (several, [*tune, several, "--objectives", "val_energy_mae,n_parameters"], ["front"]),
        (several, ["status", "--", several], ["front"]),
        (several, ["compare", "--", several], ["front"]),
        (several, ["evaluate", "--study", several], ["front"]),
        (several, ["front", "--", several], ["confirm", "evaluate", "register"]),
    ):
        _, out, err = call(*command)
        found = [hint for hint, values in hints(out + err).items() if study in values]
        assert found == [f"bdqm-tune {each}" for each in naming], out + err
    _, out, err = call("register", "--study", one, "--name", "water (old)")
    found_values = hints(out + err)
    assert "models:/water (old)@champion" in found_values["bdqm-tune predict"]
    assert "models:/water (old)@champion" in found_values["mlflow models serve"]


def test_what_is_deleted_is_removed_for_good_by_the_command_that_is_printed(
    call: Call, files: dict[str, str], workdir: Path
) -> None:
    """The runs have datasets, which `mlflow gc` removes as well."""
    tune = ["tune", "--train", files["train"], "--epochs", "1", "--n-trials", "1", "--study", NAMES[0]]
    assert call(*tune, "--set", "descriptor.sigmas=2", "--set", "descriptor.orders=[0]")[0] == 0
    code, out, _ = call("delete-study", NAMES[0], "--yes")
    assert code == 0
    command = re.findall("`(mlflow gc [^`]*)`", out)[-1]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(workdir)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    experiments = MlflowClient().search_experiments(ViewType.ALL)
    assert [each.name for each in experiments] == ["Default"]
    assert not [file for file in (workdir / "mlruns").rglob("*") if file.is_file()]


def test_garbage_collection_names_the_store_or_the_server() -> None:
    store = "sqlite:////a b/mlflow.db"
    subcommand, values = parsed(gc_command(store, "01,02").strip("`"))
    assert subcommand == "mlflow gc"
    assert values.count(store) == 2
    assert "01,02" in values
    assert gc_command("https://node:5000") == "`mlflow gc` where MLflow's server is"


@pytest.mark.parametrize("name", ["oc20", *NAMES])
def test_a_name_is_one_argument(name: str) -> None:
    subcommand, values = parsed(f"bdqm-tune status {argument(name)}")
    assert subcommand == "bdqm-tune status"
    assert name in values
