"""`jobs/site.toml`: what is read, and what is refused in one line."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

from bdqm_tune.cli import jobs
from bdqm_tune.errors import BadInput
from bdqm_tune.services.site import Resources, SchedulerName, load_site
from bdqm_tune.services.submission import SCHEDULERS

EXAMPLE = Path(__file__).parents[2] / "jobs" / "site.toml"


def test_the_example_is_valid_once_the_account_is_ones_own() -> None:
    with pytest.raises(BadInput, match="account: 'gts-YOURPI' is an example"):
        load_site(EXAMPLE)
    site = load_site(EXAMPLE, {"": {"account": "gts-me"}, "tune": {"walltime": "1:30:00"}})
    assert (site.scheduler, site.account, site.warning) == ("slurm", "gts-me", 120)
    assert (site.tune.seconds, site.tune.cores, site.tune.gpu_type, site.tune.gpu_count) == (5400, 6, "V100", 1)
    assert (site.servers.gpu_type, site.servers.gpu_count) == ("", 0)
    assert load_site(EXAMPLE, {"": {"scheduler": "local"}}).scheduler == "local"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('queue = "embers"', 'quue = "embers"', "unknown option quue; there are: scheduler, account"),
        ("cores = 6", "cores = 0", "tune.cores: Input should be greater than or equal to 1, got 0"),
        ('"8:00:00"', '"8h"', "tune.walltime: String should match pattern"),
        ('"8:00:00"', '"1:30"', "tune.walltime: must be longer than the warning of 120 s"),
        ('"V100:1"', '"V100"', "tune.gpu: String should match pattern"),
        ('"32G"', '"32"', "tune.memory: String should match pattern"),
        ('"slurm"', '"lsf"', "scheduler: Input should be 'slurm', 'pbs' or 'local', got 'lsf'"),
        ("[servers]", "[server]", "unknown option server; there are: "),
        ("[tune]", "[tune", "not valid TOML"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = EXAMPLE.read_text().replace("YOURPI", "me")
    assert old in text
    (tmp_path / "site.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=re.escape(f"site {tmp_path / 'site.toml'}: ") + ".*" + re.escape(message)):
        load_site(tmp_path / "site.toml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match="No such file or directory; it is part of the project, and --site names another"
    ):
        load_site(tmp_path / "site.toml")


def test_resources_have_a_walltime_in_seconds() -> None:
    assert Resources(walltime="2:03", cores=1, memory="1G").seconds == 123


def test_the_schedulers_that_can_be_named_are_those_that_there_are() -> None:
    names = get_args(SchedulerName)
    assert names == tuple(SCHEDULERS) == tuple(each.name for each in SCHEDULERS.values())
    (comment,) = re.findall("^scheduler = .*# (.*)", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    (help_,) = re.findall("\"(.*), in place of site.toml's", inspect.getsource(jobs))
    for text in (comment, help_):
        assert set(names) <= set(re.findall("[a-z]+", text)), text
