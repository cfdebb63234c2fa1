"""Studies whose descriptor is searched: what a trial records, repeats and leaves on the disk."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.analysis.figures.importance import compute_importance
from bdqm_tune.analysis.figures.slices import slices
from bdqm_tune.analysis.tables import table
from bdqm_tune.backends.native import NativeBackend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.descriptors import GMP, store
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.results import load_results
from bdqm_tune.study.search_space import enqueued, grid
from bdqm_tune.study.study import load_study
from bdqm_tune.study.trial_result import TrialResult
from bdqm_tune.tuning.tune import tune
from tests.forked import Forked
from tests.marks import few

Run = Callable[..., Any]

FIXED = {"num_layers": 1, "num_nodes": 4, "batch_size": 8, "activation": "tanh", "batchnorm": False, "dropout": False}
SEARCH: dict[str, Any] = {
    "descriptor.name": {"choice": ["gmp", "gmp_groups"]},
    "descriptor.orders": {"choice": [[0, 1], [0]]},
    "descriptor.groups": {"choice": [{0: [1]}, {0: [1], 2: [1, 2]}]},
    "descriptor.sigmas": {"int": [2, 3]},
    "descriptor.cutoff": {"float": [3.0, 4.0], "step": 1.0},
    "descriptor.scaling": {"choice": ["log", "standardise"]},
}


def folder_of(study: Any, number: int, tmp_path: Path) -> Path:
    run_id = study.get_trials()[number].user_attrs["mlflow_run_id"]
    (tmp_path / f"run-{number}").mkdir()
    return Path(MlflowClient().download_artifacts(run_id, "", str(tmp_path / f"run-{number}")))


def test_a_trial_is_of_its_own_descriptor_in_all_that_is_recorded(run: Run, stores: Stores, tmp_path: Path) -> None:
    groups = {"search": SEARCH, "training": {"epochs": 3}}
    study, results = run(study={"n_trials": 8, "pruner": "none", "sampler": "random"}, **groups)
    assert {result.state for result in results} == {"complete"}
    first, *others = study.get_trials()
    assert first.params["descriptor.name"] == "gmp"  # the configured one, as far as it lies in the search space
    assert first.params["descriptor.orders"] == "[0, 1]"
    assert first.params["descriptor.cutoff"] == 4.0
    assert {trial.params["descriptor.name"] for trial in others} == {"gmp", "gmp_groups"}
    features = set()
    for trial in study.get_trials():
        own = {name: value for name, value in trial.params.items() if name.startswith("descriptor.")}
        assert ("descriptor.groups" in own) == (own["descriptor.name"] == "gmp_groups") != ("descriptor.orders" in own)
        recorded = MlflowClient().get_run(trial.user_attrs["mlflow_run_id"]).data.params
        assert {name: recorded[name.replace(".", "_")] for name in own} == {k: str(v) for k, v in own.items()}
        folder = folder_of(study, trial.number, tmp_path)
        settings = NetworkPotential.load(folder / "model").descriptor.settings
        assert (settings["name"], settings["cutoff"]) == (own["descriptor.name"], own["descriptor.cutoff"])
        assert len(settings["sigmas"]) == own["descriptor.sigmas"]
        repeated = yaml.safe_load((folder / "config.yaml").read_text())
        assert not [name for name in repeated["search"] if name.startswith("descriptor.")]
        assert repeated["descriptor"]["scaling"] == own["descriptor.scaling"]
        features.add(tuple(sorted((name, value) for name, value in own.items() if name != "descriptor.scaling")))
    assert len(list((stores.home / "features").iterdir())) == len(features)

    number = next(trial.number for trial in others if trial.params["descriptor.name"] == "gmp_groups")
    for name, place in (("again", 0), ("small", 8)):  # in a study of its own, and in the same
        again = load_config(tmp_path / f"run-{number}" / "config.yaml", {"study": {"name": name}})
        repeats: list[TrialResult] = []
        tune(prepare(again, stores.home), again, stores, lambda result, _, found=repeats: found.append(result))
        assert [(repeat.number, repeat.value) for repeat in repeats] == [(place, results[number].value)]


def test_the_best_model_is_evaluated_and_the_figures_show_the_descriptor(run: Run, stores: Stores) -> None:
    study, _ = run(study={"n_trials": 8, "pruner": "none"}, search=SEARCH, training={"epochs": 3})
    assert evaluate_best(stores, "small").trial == study.best_trial.number
    found = load_results(stores, "small")
    searched = {"descriptor.name", "descriptor.orders", "descriptor.sigmas", "descriptor.cutoff", "descriptor.scaling"}
    assert searched <= set(found.hyperparameters)
    assert searched & set(compute_importance(found.trials, found.spaces)["hyperparameter"])
    labels = {ax.get_xlabel() for ax in slices(found.trials, found.hyperparameters).axes}
    assert {"descriptor.orders", "descriptor.cutoff (Å)"} <= labels
    assert table(found.trials, found.hyperparameters, 8, width=400).row_count == 8


@pytest.mark.parametrize("sampler", few(["tpe", "grid"], ["cmaes", "random", "gp", "qmc"]))
def test_every_sampler_searches_descriptors(run: Run, sampler: str) -> None:
    study, results = run(
        study={"n_trials": 7, "sampler": sampler, "pruner": "halving"}, training={"epochs": 3}, search=FIXED | SEARCH
    )
    assert [result.number for result in results] == list(range(7))
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in study.get_trials())
    assert len({tuple(sorted(trial.params.items())) for trial in study.get_trials()}) > 3


def test_the_grid_holds_each_descriptor_once(configure: Callable[..., Config]) -> None:
    rest = FIXED | {"lr": 1e-3, "gamma": 0.5, "step_size": 9}
    points = grid(configure(search=rest | SEARCH), 36)
    # (2 lists of orders or 2 of groups) × 2 numbers of widths × 2 cutoffs × 2 scalings
    assert len(points) == 32 == len({tuple(sorted(point.items())) for point in points})


def test_forces_are_trained_with_the_derivatives_of_each_descriptor(run: Run, stores: Stores) -> None:
    search = FIXED | {"descriptor.orders": {"choice": [[0], [0, 1]]}}
    _, results = run(
        study={"n_trials": 2, "sampler": "grid"} | {"pruner": "none"},
        training={"epochs": 2, "forces": True},
        search=search | {"lr": 1e-3, "gamma": 0.5, "step_size": 9},
    )
    assert all(result.val_forces_mae > 0 for result in results)
    kinds = sorted(path.suffix for path in (stores.home / "features").iterdir())
    assert kinds == [".derivatives"] * 2 + [".npy"] * 2


def test_enqueued_descriptors_are_tried_first(configure: Callable[..., Config]) -> None:
    entries = [{"descriptor.name": "gmp_groups", "descriptor.groups": {0: [1]}}, {"descriptor.orders": "[0]"}]
    first, second = enqueued(configure(search=SEARCH, study={"enqueue": entries}), 36)
    assert (first["descriptor.name"], first["descriptor.groups"]) == ("gmp_groups", '{"0": [1]}')
    assert "descriptor.orders" not in first
    assert (second["descriptor.name"], second["descriptor.orders"], second["descriptor.sigmas"]) == ("gmp", "[0]", 3)
    for entry, message in (
        ({"descriptor.orders": [2]}, r"orders=\[2\] is outside the search space"),
        ({"descriptor.solid": False}, "solid=False, but the study fixes it to True"),
    ):
        with pytest.raises(BadInput, match=message):
            enqueued(configure(search=SEARCH, study={"enqueue": [entry]}), 36)


def test_a_default_of_another_kind_is_left_to_the_sampler(configure: Callable[..., Config]) -> None:
    (first,) = enqueued(configure(descriptor={"sigmas": [0.5, 1.0], "cutoff": None}, search={
        "descriptor.sigmas": {"int": [2, 3]}, "descriptor.cutoff": {"float": [3.0, 4.0]}
    }), 36)  # fmt: skip
    assert not {"descriptor.sigmas", "descriptor.cutoff"} & first.keys()


def test_the_study_is_the_same_whatever_is_searched_of_its_descriptor(run: Run, stores: Stores) -> None:
    cutoffs = {"descriptor.cutoff": {"float": [3.0, 4.0], "step": 1.0}}
    short = {"training": {"epochs": 1}}
    run(study={"n_trials": 1}, search=cutoffs, **short)
    run(study={"n_trials": 1}, search={"descriptor.cutoff": {"float": [2.0, 5.0], "step": 1.0}}, **short)
    run(study={"n_trials": 1}, descriptor={"cutoff": 3.0}, **short)
    run(study={"n_trials": 1}, search=cutoffs | {"descriptor.sigmas": {"int": [2, 3]}}, **short)
    for groups, message in (
        ({"search": cutoffs, "descriptor": {"orders": [0]}}, "other descriptor"),
        ({"search": {"descriptor.cutoff": {"choice": [3.0, 4.0]}}}, r"search\.descriptor\.cutoff: study 'small'"),
    ):
        with pytest.raises(BadInput, match=message):
            run(study={"n_trials": 1}, **groups, **short)
    assert len(load_study(stores, "small").get_trials()) == 4


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"descriptor.orders": {"choice": [[0], [1, 1]]}},
            r"orders=\[1, 1\]: .* must be different",
        ),
        (
            {"descriptor.name": {"choice": ["gmp", "symmetry_functions"]}, "descriptor.elements": {"choice": [["Cu"]]}},
            r"descriptor.name=symmetry_functions.*: .*Au",
        ),
    ],
)
def test_a_descriptor_that_cannot_be_made_is_found_before_any_trial(
    configure: Callable[..., Config], stores: Stores, search: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=f"search: a trial could have .*{message}"):
        prepare(configure(search=search), stores.home)
    assert not stores.home.exists()


def test_preparing_computes_no_features_that_no_trial_may_want(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure(search=SEARCH)
    dataset = prepare(config, tmp_path)
    assert not (tmp_path / "features").exists()
    options = config.descriptor.model_copy(update={"orders": [0]})
    described = dataset.described_by(options)
    expected = np.concatenate([GMP([0], described.descriptor.settings["sigmas"], 4.0).compute(atoms)
                               for atoms in dataset.train.structures.atoms])  # fmt: skip
    assert np.array_equal(described.train.features, expected)
    assert (described.digest, described.scale, described.config.descriptor) == (dataset.digest, dataset.scale, options)


def test_the_tensors_of_the_latest_descriptors_are_kept(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(search=SEARCH, study={"name": "kept"})
    dataset = prepare(config, tmp_path)
    backend = NativeBackend(config, dataset)
    three = [
        dataset.described_by(config.descriptor.model_copy(update={"cutoff": cutoff})) for cutoff in (3.0, 3.5, 4.0)
    ]
    kept = [backend._on_device(one) for one in three]
    assert [backend._on_device(one) is data for one, data in zip(three, kept, strict=True)] == [True] * 3
    taken = kept[0].room.taken
    assert taken == 4 * sum(np.size(split.features) for split in (three[0].train, three[0].validation))
    monkeypatch.setattr(MemoryBudget, "on", lambda *_: MemoryBudget(2 * taken))
    fourth = dataset.described_by(config.descriptor.model_copy(update={"cutoff": 4.5}))
    assert backend._on_device(fourth) is backend._on_device(fourth)
    assert backend._on_device(three[2]) is kept[2]
    assert backend._on_device(three[0]) is not kept[0]


def test_amptorch_is_refused_in_one_line(configure: Callable[..., Config], tmp_path: Path) -> None:
    from bdqm_tune.backends import make_backend

    config = configure(search=SEARCH).updated({"": {"backend": "amptorch"}})
    with pytest.raises(BadInput, match=r"backend amptorch: .*fix search\.descriptor\.name, .*or use --backend native"):
        make_backend(config, prepare(config, tmp_path))


def test_trials_side_by_side_share_their_descriptors(run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = store._write, list[str]()

    def counted(path: Path, *given: Any) -> None:
        written.append(path.name)
        time.sleep(0.2)
        write(path, *given)

    monkeypatch.setattr(store, "_write", counted)
    search = FIXED | {
        "descriptor.orders": {"choice": [[0], [0, 1]]},
        "descriptor.scaling": SEARCH["descriptor.scaling"],
    }
    study, results = run(
        study={"n_trials": 6, "sampler": "random", "pruner": "none"},
        training={"epochs": 2},
        search=search,
        **{"": {"cohort": 3}},
    )
    assert {result.state for result in results} == {"complete"}
    assert len(written) == len({trial.params["descriptor.orders"] for trial in study.get_trials()})
    assert sorted(path.name for path in (stores.home / "features").iterdir()) == sorted(written)


COUNTING = """
import time
from bdqm_tune.cli.main import main
from bdqm_tune.descriptors import store

write = store._write
def counted(path, structures, descriptor):
    with open("log", "a") as log:
        log.write(f"{path.stem}\\n")
    time.sleep(0.5)
    return write(path, structures, descriptor)
store._write = counted
main()
"""


@pytest.mark.endurance
def test_workers_compute_each_descriptor_once(workdir: Path, files: dict[str, str]) -> None:
    search = FIXED | {"descriptor.orders": {"choice": [[0], [0, 1]]}, "descriptor.sigmas": {"choice": [2, 3]}}
    config = {
        "data": {"train": files["train"]},
        "descriptor": {"cutoff": 4.0},
        "training": {"epochs": 2, "forces": False},
        "search": search,
        "study": {"name": "workers", "n_trials": 5, "sampler": "random", "pruner": "none"},
    }
    (workdir / "config.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = ["-c", COUNTING, "tune", "--config", "config.yaml", "--device", "cpu"]
    workers = [Forked(command, environment) for _ in range(2)]
    ends = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], ends
    trials = load_study(Stores(workdir / ".bdqm"), "workers").get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 10
    distinct = {(trial.params["descriptor.orders"], trial.params["descriptor.sigmas"]) for trial in trials}
    assert len(distinct) >= 3
    computed = (workdir / "log").read_text().split()
    assert len(computed) == len(distinct)
    assert sorted(path.name for path in (workdir / ".bdqm" / "features").iterdir()) == sorted(
        f"{key}.npy" for key in computed
    )
