"""The package in examples/plugin: installed as its README says, found, and each of its four parts used."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from optuna.trial import TrialState
from typer.testing import CliRunner

import bdqm_tune as bt
from bdqm_tune.admin.doctor import other_packages
from bdqm_tune.cli.main import app
from bdqm_tune.config.backends import find_backend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.config.descriptor_plugins import find_descriptor
from bdqm_tune.descriptors import descriptor_from_options, descriptor_from_settings
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.potential import read_potential
from bdqm_tune.models.store import load_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.jobspec import JobSpec
from bdqm_tune.services.site import load_site
from bdqm_tune.services.submission import make_scheduler, submit
from bdqm_tune.study.samplers import make_sampler
from bdqm_tune.study.study import RUN_ID, load_study
from bdqm_tune.testing import check_descriptor, check_potential
from bdqm_tune.tuning.tune import tune
from tests.jobs.conftest import write_site

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
RADIAL = {"name": "radial", "options": {"cutoff": 4.0, "n_radii": 5, "width": 0.6}}
NETWORKS = {"num_layers": 1, "num_nodes": 6, "batch_size": 8, "activation": "tanh"}
BROKEN = {
    "raises": "raise ImportError('no MACE here')",
    "leaves": "import sys; sys.exit('bye')",
    "is_none": "THING = 7",
}
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as `pip install --target` leaves it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")  # setuptools builds within it
    target = folder / "site-packages"
    command = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", *command, str(folder / "source")], check=True)
    return target


@pytest.fixture
def installed(site_packages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """On the path of this process and of those that it starts."""
    monkeypatch.syspath_prepend(str(site_packages))
    monkeypatch.setenv("PYTHONPATH", str(site_packages))
    yield site_packages
    find_backend.cache_clear()
    find_descriptor.cache_clear()
    for name in [name for name in sys.modules if name.startswith("bdqm_tune_example")]:
        del sys.modules[name]


@pytest.fixture
def configure(files: dict[str, str]) -> Callable[..., Config]:
    """`configure(study={...}, ...)`: a configuration on the small data."""
    data = {"train": files["train"], "test": files["test"]}
    return lambda **groups: load_config(None, {"data": data, "": {"cohort": 1}, **groups})


@pytest.fixture
def run(stores: Stores, configure: Callable[..., Config]) -> Run:
    """`run(study={...}, ...)`: prepare, tune, and return (study, results in order)."""

    def go(**groups: Any) -> Any:
        config, results = configure(**groups), []
        data = prepare(config, stores.home)
        return tune(data, config, stores, lambda result, _: results.append(result)), results

    return go


def structures() -> list[Atoms]:
    """A crystal and a cluster of copper and gold."""
    cell = bulk("Cu", cubic=True)
    cell.symbols[0] = "Au"
    cell.rattle(0.1, seed=3)
    return [cell, Atoms(cell.numbers, cell.positions)]


def test_doctor_lists_what_is_found_and_what_fails(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in BROKEN.items():
        (tmp_path / f"of_{name}.py").write_text(code)
    (tmp_path / "broken-1.2.dist-info").mkdir()
    (tmp_path / "broken-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
    lines = [f"{name} = of_{name}:THING" for name in BROKEN]
    groups = {"backends": [*lines, "native = of_raises:THING"], "samplers": lines}
    text = "".join(f"[bdqm_tune.{group}]\n{chr(10).join(own)}\n" for group, own in groups.items())
    (tmp_path / "broken-1.2.dist-info" / "entry_points.txt").write_text(text)

    found = {finding.message: finding.state for finding in other_packages()}
    example = "bdqm-tune-example 0.1"
    fine = [
        f"backend 'linear': bdqm_tune_example.linear:LINEAR ({example})",
        f"descriptor 'radial': bdqm_tune_example.radial:RADIAL ({example})",
        f"sampler 'halton': bdqm_tune_example.halton:make_sampler ({example})",
        f"scheduler 'spool': bdqm_tune_example.spool:Spool ({example})",
    ]
    assert [message for message, state in found.items() if state == "ok"] == fine
    wrong = "\n".join(message for message, state in found.items() if state == "warning")
    assert "backend 'raises': of_raises:THING (broken 1.2): does not load: ImportError: no MACE here" in wrong
    assert "backend 'leaves': of_leaves:THING (broken 1.2): does not load: SystemExit: bye" in wrong
    assert "backend 'is_none': of_is_none:THING (broken 1.2): declares a int, not a Declaration" in wrong
    assert "backend 'native': of_raises:THING (broken 1.2): is not used: bdqm-tune has a backend of this name" in wrong
    assert "sampler 'is_none': of_is_none:THING (broken 1.2): cannot be called" in wrong
    # Nothing else is harmed, and one that is used is refused with its reason.
    assert load_config(None, {}).declared.hyperparameters.__module__.startswith("bdqm_tune.")
    for name in ("raises", "leaves"):
        with pytest.raises(BadInput, match=rf"backend: backend '{name}': of_{name}:THING does not load: "):
            load_config(None, {"": {"backend": name}})
    assert CliRunner().invoke(app, ["--help"], catch_exceptions=False).exit_code == 0
    with pytest.raises(BadInput, match="sampler 'leaves': of_leaves:THING does not load: SystemExit: bye"):
        make_sampler("leaves", 0, 0)


def test_unknown_names_list_what_there_is(installed: Path) -> None:
    for group, option, last in (
        ("descriptor", "name", "'symmetry_functions' or 'radial'"),
        ("study", "sampler", "'nsgaii' or 'halton'"),
        ("", "backend", "command, linear"),
    ):
        with pytest.raises(BadInput, match=last):
            load_config(None, {group: {option: "nothing"}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "radial", "options": {"widht": 1}}, "unknown option 'widht' of radial; there are: cutoff, n_radii"),
        ({"name": "radial", "options": {"width": -1}}, r"width: .*greater than 0"),
        ({"name": "radial", "cutoff": 4.0}, "cutoff does not belong to radial; its options are: name, scaling"),
        ({"name": "gmp", "options": {"width": 1}}, "options does not belong to gmp"),
    ],
)
def test_options_of_the_descriptor_are_checked(installed: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_config(None, {"descriptor": content})


def test_the_descriptor_keeps_to_its_contract(installed: Path) -> None:
    options = DescriptorOptions(**RADIAL)
    assert options.model_dump()["options"] == RADIAL["options"]
    descriptor = descriptor_from_options(options, ["Cu", "Au"])
    check_descriptor(descriptor, structures())
    assert descriptor_from_settings(descriptor.settings).settings == descriptor.settings
    with pytest.raises(BadInput, match="radial does not know H, O; it was made for Cu, Au"):
        descriptor.compute(molecule("H2O"))
    with pytest.raises(BadInput, match=r"settings of descriptor radial are damaged: .*version"):
        descriptor_from_settings({"name": "radial", "elements": ["Cu"]})


def test_a_study_of_the_descriptor_by_the_native_backend(installed: Path, run: Run, stores: Stores) -> None:
    search = {**NETWORKS, "descriptor.options.width": {"float": [0.4, 0.9]}, "descriptor.options.n_radii": 4}
    groups: dict[str, Any] = {
        "descriptor": {"name": "radial", "options": {"cutoff": 4.0}},
        "training": {"forces": True, "epochs": 4},
        "search": search,
        "study": {"name": "radial", "n_trials": 2, "pruner": "none", "sampler": "random"},
    }
    study, results = run(**groups)
    assert [result.state for result in results] == ["complete"] * 2
    widths = [trial.params["descriptor.options.width"] for trial in study.trials]
    assert widths[0] == 0.5  # the default is tried first
    assert 0.4 <= widths[1] <= 0.9
    models = [load_model(f"runs:/{trial.user_attrs[RUN_ID]}/model", stores) for trial in study.trials]
    for model, width in zip(models, widths, strict=True):
        assert isinstance(model, NetworkPotential)
        assert model.descriptor.settings["width"] == width
        assert model.descriptor.n_features == 8  # two elements, four radii
    # The feature cache goes by the settings: two descriptors, two files.
    assert len(list((stores.home / "features").glob("*.npy"))) == 2
    assert np.isfinite(bt.evaluate("radial").metrics["test_forces_mae"])
    trials = bt.load_results("radial").trials
    np.testing.assert_allclose(sorted(trials["descriptor.options.width"]), sorted(widths))
    # A study is resumed by the same options, and by no others.
    run(**groups)
    with pytest.raises(BadInput, match=r"options\.cutoff|descriptor"):
        run(**groups | {"descriptor": {"name": "radial", "options": {"cutoff": 4.5}}})
    for wrong, message in (
        ({"descriptor.options.widht": {"float": [0.4, 0.9]}}, "radial has no such option; there are: cutoff"),
        ({"descriptor.options.n_radii": {"float": [2, 4]}}, "float does not fit a int"),
        ({"descriptor.options.width": {"float": [-1.0, 0.9]}}, r"a trial could have .*width=-1.0: .*greater than 0"),
    ):
        with pytest.raises(BadInput, match=message):
            run(**groups | {"search": {**NETWORKS, **wrong}})


def linear(**groups: Any) -> dict[str, Any]:
    """A configuration of the backend."""
    return {
        "": {"backend": "linear", "cohort": 1},
        "descriptor": RADIAL,
        "training": {"forces": True, "epochs": 9, "smoothing": 1},
        "search": {},
        **groups,
    }


def test_a_study_of_the_backend(installed: Path, run: Run, stores: Stores, tmp_path: Path) -> None:
    tried = [{"ridge": ridge, "force_weight": 0.3} for ridge in (1e-8, 1e-6, 1e-1, 1e-1)]
    options = {"name": "linear", "n_trials": 4, "enqueue": tried, "pruner": "halving"}
    study, results = run(**linear(study=options))
    assert "pruned" in [result.state for result in results]
    first = read = load_model(f"runs:/{study.trials[0].user_attrs[RUN_ID]}/model", stores)
    assert type(read).__name__ == "LinearPotential"
    check_potential(first, structures(), tmp_path / "model")
    records = bt.load_results("linear").curves
    assert records["val_energy_forces"].notna().all()
    evaluation = bt.evaluate("linear")
    assert evaluation.metrics["test_energy_mae"] < 0.2
    confirmed = bt.confirm("linear", best=1, seeds=2, random="none")
    assert set(confirmed.table["kind"]) == {"finalist", "default"}
    check_potential(
        Ensemble({"a": first, "b": load_model(f"runs:/{study.trials[1].user_attrs[RUN_ID]}/model", stores)}),  # type: ignore[dict-item]
        structures(),
        tmp_path / "ensemble",
        Ensemble.load,
    )
    # Two in an ensemble with a network, which has features of another descriptor.
    with pytest.raises(BadInput, match="not a linear potential that can be read"):
        (tmp_path / "model" / "potential.json").write_text(json.dumps({"backend": "linear"}))
        read_potential(tmp_path / "model")


SLOW = """
import time
from bdqm_tune.cli.main import main
from bdqm_tune.study import checkpoints
from bdqm_tune_example.linear import Run
checkpoints.EVERY, step = 0.0, Run._step
def slow(self):
    time.sleep(0.2)
    print("step", len(self.records) + 1, flush=True)
    step(self)
Run._step = slow
main()
"""


def test_a_killed_training_of_the_backend_resumes_from_its_checkpoint(
    installed: Path, run: Run, stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"forces": True, "epochs": 12, "smoothing": 1}
    groups = linear(training=training, study={"name": "killed", "n_trials": 1, "pruner": "none"})
    reference, _ = run(**groups | {"study": {**groups["study"], "name": "whole"}})
    Path("config.yaml").write_text(json.dumps(configure(**groups).model_dump(mode="json")))
    command = [sys.executable, "-c", SLOW, "tune", "--config", "config.yaml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert any(line.startswith("step 7") for line in worker.stdout)
        os.kill(worker.pid, signal.SIGKILL)
    assert load_study(stores, "killed").trials[0].state == TrialState.RUNNING
    from bdqm_tune_example import linear as example  # type: ignore[import-not-found]

    restored: list[int] = []
    restore = example.Run.restore
    monkeypatch.setattr(
        example.Run, "restore", lambda self, state: (restored.append(len(state.records)), restore(self, state))
    )
    study, _ = run(**groups | {"study": {**groups["study"], "enqueue": []}})
    assert restored
    assert restored[0] >= 5
    assert study.trials[0].value == reference.trials[0].value


def test_the_sampler_is_used(installed: Path, run: Run) -> None:
    options = {"name": "halton", "n_trials": 4, "enqueue": [], "sampler": "halton", "seed": 2, "pruner": "none"}
    study, _ = run(**linear(study=options, training={"forces": False, "epochs": 1}))
    # Numbers 3, 4, … of the sequence of base 2, on a logarithmic range of seven decades.
    shares = [(np.log10(trial.params["ridge"]) + 8) / 7 for trial in study.trials]
    np.testing.assert_allclose(shares, [0.75, 0.125, 0.625, 0.375], atol=1e-9)
    assert set(bt.load_results("halton").trials["sampler"]) == {"halton"}


def test_the_scheduler_submits(installed: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_scheduler("spool")
    monkeypatch.delenv("SPOOL", raising=False)
    with pytest.raises(BadInput, match="no spool here: set SPOOL"):
        spool.check()
    (workdir / "spool").mkdir()
    monkeypatch.setenv("SPOOL", str(workdir / "spool"))
    site = write_site(workdir / "site.toml")
    site.write_text(site.read_text().replace('scheduler = "slurm"', 'scheduler = "spool"'))
    assert load_site(site).scheduler == "spool"
    spec = JobSpec("tune", workdir, load_site(site), workdir / "logs", 2, {"BDQM_STUDY": "spooled"})
    job_id = submit(spool, spec, workdir).job_id
    files = sorted((workdir / "spool").iterdir())
    assert [file.suffix for file in files if "spooled" in file.read_text()] == [".job", ".job"]
    assert {file.stem.partition("_")[0] for file in files} == {job_id}
    assert [state.state for state in spool.states([job_id])] == ["pending"] * 2
    spool.cancel(job_id)
    assert spool.states([job_id]) == []
