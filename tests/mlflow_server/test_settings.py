"""What a user may ask of `services up` by variables."""

from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.settings import Settings, choose
from bdqm_tune.mlflow_server.tracking import Address, command


@pytest.mark.parametrize(("given", "processes"), [({}, 1), ({"BDQM_MLFLOW_PROCESSES": "3"}, 3)])
def test_mlflows_server_has_as_many_processes_as_asked_for(given: dict[str, str], processes: int) -> None:
    choices = choose("127.0.0.1", Settings(), given)
    line = command(ServerPaths(Path()), Address("127.0.0.1", "127.0.0.1", 5000), choices.names, choices.processes)
    assert line[line.index("--workers") + 1] == str(processes)


@pytest.mark.parametrize("given", ["0", "-1", "two", "9", "1.5"])
def test_other_numbers_of_processes_are_refused(given: str) -> None:
    with pytest.raises(BadInput, match=f"BDQM_MLFLOW_PROCESSES={given} is no number from 1 to 8"):
        choose("127.0.0.1", Settings(), {"BDQM_MLFLOW_PROCESSES": given})
