"""Real worker processes that sleep instead of training, on real servers: every trial is run, and once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
from benchmarks import workers
from benchmarks.servers import Servers, servers

WORKERS, TRIALS, EPOCHS = 8, 2, 9


@pytest.fixture
def running(require: Callable[[str], None], tmp_path: Path) -> Iterator[Servers]:
    require("mariadb")
    with servers(tmp_path) as found:
        prepare(load_config(), found.stores.home)
        yield found


@pytest.mark.soak
def test_eight_workers_run_each_trial_once(
    running: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = []
    check = workers._problems

    def kept(*given: Any) -> list[str]:
        checks.append(given)
        return check(*given)

    monkeypatch.setattr(workers, "_problems", kept)
    result = workers.measure(running, WORKERS, TRIALS, EPOCHS, 0.5, n_processes=4)
    workers.show(result)
    assert result["problems"] == []
    assert result["trials"] == WORKERS * TRIALS
    assert "16 trials of 4 s, 9 epochs: none lost, none doubled" in capsys.readouterr().out
    (given,) = checks
    *where, expected, epochs, found = given
    found[0].ended.append(found[1].ended[0])
    assert "17 ends of 16 trials, not of 16 (1 times)" in check(*where, expected, epochs, found)
    del found[0].ended[-1], found[1].ended[0]
    lost = check(*where, expected, epochs, found)
    assert lost == ["15 ends of 15 trials, not of 16 (1 times)"]
    assert "metrics" in " ".join(check(*where, expected, epochs + 1, found))
    workers.show(result | {"problems": lost})
    assert "9 epochs: NOT as it should be" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="15 ends"):
        workers.stop_if_lost(result | {"problems": lost})
