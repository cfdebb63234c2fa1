"""`jobs/site.toml`: what is read, and what is refused in one line."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bdqm_tune.cli import jobs
from bdqm_tune.errors import BadInput
from bdqm_tune.services.pbs import Pbs, pbs_memory
from bdqm_tune.services.site import Resources, load_site
from bdqm_tune.services.slurm import Slurm
from bdqm_tune.services.submission import SCHEDULERS, check_times

EXAMPLE = Path(__file__).parents[2] / "jobs" / "site.toml"


def written(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example with some texts replaced."""
    text = EXAMPLE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "site.toml"
    path.write_text(text)
    return path


def test_the_example_is_valid_and_known_to_be_one() -> None:
    assert load_site(EXAMPLE).is_example
    changes = {("", "account"): ("--account", "gts-me"), ("tune", "walltime"): ("--walltime", "1:30:00")}
    site = load_site(EXAMPLE, changes)
    assert not site.is_example
    assert (site.scheduler, site.account, site.warning, site.flags("tune")) == ("slurm", "gts-me", 120, [])
    assert (site.tune.walltime, site.tune.cores, site.tune.gpu_type, site.tune.gpu_count) == ("1:30:00", 6, "V100", 1)
    assert (site.servers.gpu_type, site.servers.gpu_count) == ("", 0)


def test_values_are_the_schedulers_to_judge(tmp_path: Path) -> None:
    """What Slurm's and PBS's own pages write reaches them as it is."""
    for key, old, values in (
        ("walltime", '"8:00:00"', ("2-00:00:00", "1-12", "1-12:30", "90", "UNLIMITED")),
        ("memory", '"32G"', ("1T", "0", "32GB", "32000", "32gb", "1.5T")),
        ("gpu", '"V100:1"', ("nvidia_a100_2g.10gb:1", "a100-80gb:2", "h100", "2", "")),
    ):
        for value in values:
            site = load_site(written(tmp_path, (old, f'"{value}"')))
            assert getattr(site.tune, key) == value
    site = load_site(written(tmp_path, ('"8:00:00"', "90"), ('"V100:1"', "2"), ('"32G"', "32_000")))
    assert (site.tune.walltime, site.tune.gpu_count, site.tune.memory) == ("90", 2, "32000"), "numbers without quotes"


def test_kinds_and_numbers_of_gpus() -> None:
    for text, kind, count in (
        ("h100", "h100", 1),
        ("a100-80gb:2", "a100-80gb", 2),
        ("1g.10gb:3", "1g.10gb", 3),
        ("4", "", 4),
        ("gpu:V100:1", "V100", 1),
        ("0", "", 0),
        ("none", "", 0),
    ):
        resources = Resources(walltime="1:00", cores=1, memory="1G", gpu=text)
        assert (resources.gpu_type, resources.gpu_count, bool(resources.gpu)) == (kind, count, count > 0), text


def test_further_flags_are_those_of_all_jobs_then_those_of_one(tmp_path: Path) -> None:
    path = written(tmp_path, ("extra = []", 'extra = ["--constraint=a b"]'), ("cores = 6", 'cores = 6\nextra = ["-x"]'))
    assert load_site(path).flags("tune") == ["--constraint=a b", "-x"]
    assert load_site(path).flags("servers") == ["--constraint=a b"]


def test_what_the_scripts_read_is_what_python_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that was submitted by hand asks the same code; TOML has several ways to write one text."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    project = EXAMPLE.parents[1]
    for line, wanted in (
        ("environment = 'bdqm'", "bdqm"),
        ('  environment = "bdqm"', "bdqm"),
        ('environment\t= "b\\u0064qm"', "bdqm"),
        ('environment = """b d"""', "b d"),
        ('environment = "~/bdqm"', "/home/me/bdqm"),
        ('environment = "$SCRATCH/b"', "/scratch/b"),
    ):
        path = written(tmp_path, ('environment = ".venv"', line), ("warning = 120", "warning = 1_200"))
        assert load_site(path).environment == wanted
        done = subprocess.run(
            ["bash", "-euc", '. "$0"/jobs/common.sh; setting environment; setting warning; setting modules', project],
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "BDQM_SITE": str(path), "HOME": "/home/me"}
            | {"SCRATCH": "/scratch"},
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines() == [wanted, "1200", "anaconda3"], done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('queue = "embers"', 'quue = "embers"', "unknown option quue; there are: scheduler, account"),
        ("cores = 6", "cores = 0", "tune.cores: Input should be greater than or equal to 1, got 0"),
        (
            '"8:00:00"',
            '"8 hours"',
            "tune.walltime: must be one word of letters, digits and . : + = @ / % - _, got '8 h",
        ),
        ('"8:00:00"', '""', "tune.walltime: must not be empty"),
        ('"V100:1"', '"V100:1,x=1"', "tune.gpu: must be one word"),
        ('"8:00:00"', "08:00:00", "tune.walltime: write it in quotes, got 08:00:00"),
        ("extra = []", 'extra = ["--a\\nb"]', "extra.0: must be one line"),
        ("extra = []", 'extra = ""', "extra: Input should be a valid list"),
        ('environment = ".venv"', 'environment = ""', "environment: must not be empty"),
        ("[servers]", "[server]", "unknown option server; there are: "),
        ("[tune]", "[tune", "not valid TOML"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, (old, new))
    with pytest.raises(BadInput, match=re.escape(f"site {path}: ") + ".*" + re.escape(message)):
        load_site(path)


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.read_bytes().replace(b"\n", b"\r\n"))
    assert load_site(path) == load_site(EXAMPLE)


def test_what_an_option_gave_is_named_by_the_option() -> None:
    with pytest.raises(BadInput, match="^--walltime: must be one word of letters"):
        load_site(EXAMPLE, {("", "scheduler"): ("--scheduler", "pbs"), ("tune", "walltime"): ("--walltime", "2 h")})


def test_a_job_is_longer_than_its_warning(tmp_path: Path) -> None:
    for text in ("2", "1:30", "0:01:30"):
        site = load_site(written(tmp_path, ('"8:00:00"', f'"{text}"')))
        with pytest.raises(BadInput, match=rf"here: tune.walltime {text} is not longer than the warning of 120 s"):
            check_times(Slurm(), site, "here")
    with pytest.raises(BadInput, match=r"^--walltime 0:01:30 is not longer than the warning of 120 s"):
        check_times(Slurm(), site, "here", "tune")
    for text in ("3", "0-1", "0", "UNLIMITED"):
        check_times(Slurm(), load_site(written(tmp_path, ('"8:00:00"', f'"{text}"'))), "here")


def test_walltimes_in_seconds() -> None:
    slurm = {"90": 5400, "2:03": 123, "1:00:00": 3600, "1-12": 129_600, "1-12:30": 131_400, "2-00:00:01": 172_801}
    assert {text: Slurm().seconds(text) for text in slurm} == slurm
    assert Slurm().seconds("INFINITE") is None
    assert {text: Pbs().seconds(text) for text in ("90", "2:03", "1:00:00", "1-12")} == {
        "90": 90,
        "2:03": 123,
        "1:00:00": 3600,
        "1-12": None,
    }


def test_memory_as_pbs_writes_it() -> None:
    for text, wanted in (
        ("32G", "32gb"),
        ("32GB", "32gb"),
        ("1t", "1tb"),
        ("32000", "32000mb"),
        ("0", ""),
        ("1.5T", "1.5T"),
    ):
        assert pbs_memory(text) == wanted


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match="No such file or directory; it is part of the project, and --site names another"
    ):
        load_site(tmp_path / "site.toml")


def test_the_schedulers_that_can_be_named_are_those_that_there_are() -> None:
    names = list(SCHEDULERS)
    (comment,) = re.findall("^scheduler = .*# (.*)", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    (help_,) = re.findall("\"(.*), in place of site.toml's", inspect.getsource(jobs))
    for text in (comment, help_):
        assert set(names) <= set(re.findall("[a-z]+", text)), text
