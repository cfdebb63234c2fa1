"""A scheduler from a package of one's own: the example of docs/schedulers.md, installed as its page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdqm_tune.cli.main import app
from bdqm_tune.errors import BadInput
from bdqm_tune.services.jobspec import JobSpec
from bdqm_tune.services.site import load_site
from bdqm_tune.services.submission import make_scheduler
from tests.jobs.conftest import write_site

PAGE = Path(__file__).parents[2] / "docs" / "schedulers.md"
BSUB = """#!/bin/bash
echo "$BDQM_SUBMISSION $BDQM_WALLTIME $*" >> "$REPORT"
echo "Hello; 3 jobs may run"
echo "Job <512> is submitted to queue <normal>."
"""
BJOBS = """#!/bin/bash
[ "${@: -1}" = 512 ] || { echo "Job <${@: -1}> is not found" >&2; exit 255; }
echo "512|1|RUN|node7|0:58"
echo "512|2|PEND|-|-"
echo "512|3|DONE|node7|-"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's package, on the path as `pip install --target` leaves it, and LSF's commands."""
    for kind, name in (("toml", "pyproject.toml"), ("python", "bdqm_tune_lsf.py")):
        (text,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        (tmp_path / "package").mkdir(exist_ok=True)
        (tmp_path / "package" / name).write_text(text)
    target = tmp_path / "site-packages"
    command = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", *command, str(tmp_path / "package")], check=True)
    monkeypatch.syspath_prepend(str(target))
    for name, text in (("bsub", BSUB), ("bjobs", BJOBS), ("bkill", "#!/bin/bash\necho killed $1 >> $REPORT\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("REPORT", str(tmp_path / "report"))
    yield tmp_path
    sys.modules.pop("bdqm_tune_lsf", None)


def test_the_example_of_the_documentation_works(installed: Path) -> None:
    lsf = make_scheduler("lsf")
    lsf.check()
    site = load_site(write_site(installed / "site.toml", walltime="8:00"))
    spec = JobSpec("tune", Path("/p"), site, installed, 3)
    assert lsf.submit(spec) == "512"
    (line,) = (installed / "report").read_text().splitlines()
    assert re.match(r"lsf-\w{8} 28800 -J bdqm-tune\[1-3\] -n 1 -R span\[hosts=1\] -W 8:00 -M 500M -o ", line)
    assert line.endswith(f"{installed}/bdqm-tune-%J_%I.out bash /p/jobs/tune.pbs")
    running, waiting = lsf.states(["512", "999"])
    assert (running.job_id, running.state, running.node, running.time_left) == ("512[1]", "running", "node7", "0:58")
    assert (waiting.job_id, waiting.state) == ("512[2]", "pending")
    lsf.cancel("999")
    lsf.cancel("512")
    assert (installed / "report").read_text().splitlines()[1:] == ["killed 512"]


def test_submit_uses_it(installed: Path, workdir: Path) -> None:
    site = write_site(installed / "site.toml", walltime="8:00")
    site.write_text(site.read_text().replace('scheduler = "slurm"', 'scheduler = "lsf"'))
    options = ["submit", "--site", str(site), "--workers", "2", "--study", "a b", "--dry-run"]
    result = CliRunner().invoke(app, options, catch_exceptions=False)
    assert "bsub -J 'bdqm-tune[1-2]' -n 1" in result.output


def test_a_package_that_does_not_load_is_named(installed: Path) -> None:
    (installed / "site-packages" / "bdqm_tune_lsf.py").write_text("import nothing_of_this_name")
    with pytest.raises(
        BadInput,
        match="scheduler 'lsf': bdqm_tune_lsf:Lsf does not load: ModuleNotFoundError: No module named 'nothing_of",
    ):
        make_scheduler("lsf")
    with pytest.raises(BadInput, match="unknown scheduler 'sge'; there are: slurm, pbs, pbspro, local, lsf"):
        make_scheduler("sge")
