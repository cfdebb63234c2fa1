"""A search space that changes between two runs of a study: each row of the table in docs/configuration.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.samplers import make_sampler
from bdqm_tune.study.search_space import known_parameters, suggest
from bdqm_tune.study.study import add_trials, check_study, load_study, next_trial, open_study
from bdqm_tune.tuning import tune as tune_module
from tests.commands import Call
from tests.marks import few

Draw = Callable[..., list[FrozenTrial]]
Space = dict[str, Any]

FIXED: Space = {"num_layers": 1, "num_nodes": 4, "activation": "tanh", "batch_size": 8, "lr": 1e-3}
LR = {"float": [1e-3, 1e-2]}
NODES = {"int": [4, 16]}
RATE = {"float": [0.1, 0.3]}
CUTOFF = {"float": [3.0, 5.0], "step": 1.0}
ALLOWED: dict[str, tuple[Space, Space]] = {
    "narrowed": ({"lr": LR}, {"lr": {"float": [2e-3, 5e-3]}}),
    "widened": ({"lr": {"float": [2e-3, 5e-3]}}, {"lr": LR}),
    "moved": ({"lr": LR}, {"lr": {"float": [2e-2, 5e-2]}}),
    "moved, logarithmic": ({"lr": LR | {"log": True}}, {"lr": {"float": [2e-2, 5e-2], "log": True}}),
    "step added": ({"num_nodes": NODES}, {"num_nodes": NODES | {"step": 4}}),
    "step of a float added": ({"lr": LR}, {"lr": LR | {"step": 3e-3}}),
    "step changed": ({"num_nodes": NODES | {"step": 4}}, {"num_nodes": NODES | {"step": 3}}),
    "step removed": ({"num_nodes": NODES | {"step": 4}}, {"num_nodes": NODES}),
    "hyperparameter added": ({"lr": LR}, {"lr": LR, "num_nodes": NODES}),
    "hyperparameter fixed": ({"lr": LR, "num_nodes": NODES}, {"lr": LR, "num_nodes": 8}),
    "choices fixed to one": ({"lr": LR, "activation": {"choice": ["tanh", "gelu"]}}, {"lr": LR, "activation": "gelu"}),
    "conditional": (
        {"dropout": True, "dropout_rate": RATE},
        {"dropout": {"choice": [True, False]}, "dropout_rate": RATE},
    ),
    "no longer conditional": (
        {"dropout": {"choice": [True, False]}, "dropout_rate": RATE},
        {"dropout": True, "dropout_rate": RATE},
    ),
    "descriptor narrowed": ({"descriptor.cutoff": CUTOFF}, {"descriptor.cutoff": {"float": [3.0, 4.0], "step": 1.0}}),
    "descriptor added": ({"lr": LR}, {"lr": LR, "descriptor.cutoff": CUTOFF}),
    "descriptor fixed": ({"lr": LR, "descriptor.cutoff": CUTOFF}, {"lr": LR, "descriptor.cutoff": 4.0}),
}
REFUSED: dict[str, tuple[Space, Space, str]] = {
    "linear to logarithmic": ({"lr": LR}, {"lr": LR | {"log": True}}, "a linear range, and now it is a logarithmic"),
    "logarithmic to linear": (
        {"num_nodes": NODES | {"log": True}},
        {"num_nodes": NODES},
        "a logarithmic range, and now it is a linear",
    ),
    "range to choices": (
        {"num_nodes": NODES},
        {"num_nodes": {"choice": [4, 8]}},
        r"a linear range, and now it is the choices \[4, 8\]",
    ),
    "choices to range": (
        {"num_nodes": {"choice": [4, 8]}},
        {"num_nodes": NODES},
        r"the choices \[4, 8\], and now it is a linear range",
    ),
    "other choices": (
        {"activation": {"choice": ["tanh", "relu"]}},
        {"activation": {"choice": ["tanh", "relu", "gelu"]}},
        r'the choices \["tanh", "relu"\], and now it is the choices \["tanh", "relu", "gelu"\]',
    ),
    "choices in another order": (
        {"activation": {"choice": ["tanh", "relu"]}},
        {"activation": {"choice": ["relu", "tanh"]}},
        r'the choices \["tanh", "relu"\], and now it is the choices \["relu", "tanh"\]',
    ),
    "descriptor's scale": (
        {"descriptor.cutoff": {"float": [3.0, 5.0]}},
        {"descriptor.cutoff": {"float": [3.0, 5.0], "log": True}},
        "search.descriptor.cutoff: .* has it as a linear range, and now it is a logarithmic",
    ),
    "descriptor's range to choices": (
        {"descriptor.cutoff": CUTOFF},
        {"descriptor.cutoff": {"choice": [3.0, 4.0]}},
        "search.descriptor.cutoff: .* has it as a linear range",
    ),
}
SAMPLERS = few(["tpe", "cmaes", "qmc", "nsgaii", "random"], ["gp"])  # the grid has tests of its own below


def enter(stores: Stores, config: Config, dataset: Dataset) -> optuna.Study:
    """The study with the configuration's trials added, as a worker does it under the study's lock."""
    existing = check_study(stores, config, dataset)
    known = known_parameters(config, len(dataset.train.structures), existing)
    study = open_study(stores, config, dataset)
    add_trials(study, config.study.n_trials, known)
    return study


@pytest.fixture
def draw(stores: Stores, configure: Callable[..., Config]) -> Draw:
    """`draw(search, n)`: run `n` trials of the study, which train nothing; returns all that it has."""
    dataset = prepare(configure(), stores.home)

    def go(search: Space, n_trials: int, sampler: str = "tpe", name: str = "small") -> list[FrozenTrial]:
        options = {"name": name, "n_trials": n_trials, "sampler": sampler, "enqueue": []}
        config = configure(search=FIXED | search, study=options)
        study = enter(stores, config, dataset)
        while (trial := next_trial(study)) is not None:
            study.tell(trial, suggest(trial, config, len(dataset.train.structures)).hyperparameters.lr)
        return load_study(stores, name).get_trials()

    return go


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_in_the_range_of_now(
    sampler: Any, objectives: int, configure: Callable[..., Config]
) -> None:
    if sampler == "cmaes" and objectives > 1:
        pytest.skip("it knows one objective")
    for then, now in ALLOWED.values():
        study = optuna.create_study(directions=["minimize"] * objectives)
        # Of TPE and the Gaussian process the first ten are drawn at random.
        for space, n_trials in ((then, 11), (now, 2)):
            config = configure(search=FIXED | space)
            study.sampler = make_sampler(sampler, 0, len(study.trials))
            for _ in range(n_trials):
                trial = study.ask()
                tried = suggest(trial, config, 36).hyperparameters
                study.tell(trial, [tried.lr, float(tried.num_nodes)][:objectives])
        for ended in study.trials[11:]:
            assert_drawn_from(now, ended.params)


def assert_drawn_from(space: Space, values: dict[str, Any]) -> None:
    searched = {name for name, entry in space.items() if isinstance(entry, dict)}
    assert values.keys() == searched - (set() if values.get("dropout", True) else {"dropout_rate"})
    for name, value in values.items():
        entry = space[name]
        if "choice" in entry:
            assert value in entry["choice"]
            continue
        low, high = entry.get("float") or entry.get("int")
        assert low <= value <= high
        if "step" in entry:
            steps = (value - low) / entry["step"]
            assert steps == pytest.approx(round(steps))


def test_a_range_may_change_and_earlier_trials_stay(draw: Draw) -> None:
    for name, (then, now) in ALLOWED.items():
        before = draw(then, 1, name=name)
        after = draw(now, 1, name=name)
        assert [trial.state for trial in after] == [TrialState.COMPLETE] * 2
        assert after[0].params == before[0].params
        assert_drawn_from(now, after[1].params)


def test_another_scale_or_other_choices_are_refused_and_nothing_is_added(draw: Draw, stores: Stores) -> None:
    for name, (then, now, message) in REFUSED.items():
        before = draw(then, 1, name=name)
        for sampler in ("tpe", "grid"):
            with pytest.raises(BadInput, match=message):
                draw(now, 1, sampler, name=name)
        assert [trial.params for trial in load_study(stores, name).get_trials()] == [before[0].params]
        assert len(draw(then, 1, name=name)) == 2  # it can be resumed as it was


def test_an_earlier_trial_outside_the_range_of_now_still_counts_as_the_best(draw: Draw, stores: Stores) -> None:
    before = draw({"lr": LR}, 3)
    draw({"lr": {"float": [2e-2, 5e-2]}}, 3)
    assert load_study(stores, "small").best_trial.params == min(before, key=lambda trial: trial.params["lr"]).params


def test_trials_that_wait_with_values_of_their_own_keep_them(
    stores: Stores, configure: Callable[..., Config], draw: Draw
) -> None:
    """Of `study.enqueue` or a grid: a worker that ended early left them."""
    first = [{"lr": 2e-3, "num_nodes": 16}, {"lr": 4e-3, "num_nodes": 4}]
    config = configure(search=FIXED | {"lr": LR, "num_nodes": NODES}, study={"n_trials": 2, "enqueue": first})
    enter(stores, config, prepare(config, stores.home))
    with pytest.raises(BadInput, match="a linear range, and now it is a logarithmic"):
        draw({"lr": LR | {"log": True}}, 1)
    trials = draw({"lr": {"float": [3e-3, 5e-3]}, "num_nodes": 8}, 1)
    assert [trial.params["lr"] for trial in trials[:2]] == [2e-3, 4e-3]
    assert [trial.user_attrs["begun_with"]["search"]["num_nodes"] for trial in trials] == [8, 8, 8]


def test_a_grid_of_now_leaves_out_what_was_tried(draw: Draw) -> None:
    choices = {"choice": ["tanh", "gelu"]}
    draw({"activation": choices, "num_layers": {"int": [1, 2]}}, 4, "grid")
    trials = draw({"activation": choices, "num_layers": {"int": [2, 4]}}, 4, "grid")
    tried = sorted((trial.params["num_layers"], trial.params["activation"]) for trial in trials)
    assert tried == [(layers, activation) for layers in (1, 2, 3, 4) for activation in ("gelu", "tanh")]
    with pytest.raises(BadInput, match="the grid has 0 points that were not tried, fewer than 1"):
        draw({"activation": choices, "num_layers": {"int": [2, 4]}}, 1, "grid")


def test_one_line_refuses_another_scale_before_anything_is_written(
    call: Call, files: dict[str, str], workdir: Path
) -> None:
    (workdir / "linear.yaml").write_text("search: {lr: {float: [1.0e-3, 1.0e-2]}}")
    (workdir / "log.yaml").write_text("search: {lr: {float: [1.0e-3, 1.0e-2], log: true}}")
    tune = ["tune", "--train", files["train"], "--epochs", "1", "--n-trials", "1", "--study", "s"]
    tune += ["--set", "descriptor.sigmas=2", "--set", "descriptor.orders=[0]"]
    assert call(*tune, "--config", "linear.yaml")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.db")}
    code, out, err = call(*tune, "--config", "log.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "search.lr: study 's' has it as a linear range, and now it is a logarithmic range" in err
    assert "go back to what it was, fix it to one value, or choose another name with --study" in err
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*.db")} == before


def test_of_two_workers_with_different_scales_at_once_the_later_is_refused(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, stores: Stores
) -> None:
    """Both have found the search space to be right before one of them had begun a trial."""
    open_tracker = tune_module.open_tracker

    def slowly(*arguments: Any, **options: Any) -> Any:
        tracker = open_tracker(*arguments, **options)
        monkeypatch.setattr(tune_module, "open_tracker", open_tracker)
        # The other one has added its trials, and has not begun any.
        monkeypatch.setattr(tune_module, "_run_waiting", lambda *_: None)
        run(search=FIXED | {"lr": LR}, study={"n_trials": 2})
        return tracker

    monkeypatch.setattr(tune_module, "open_tracker", slowly)
    with pytest.raises(BadInput, match="search.lr: study 'small' has it as a linear range"):
        run(search=FIXED | {"lr": LR | {"log": True}}, study={"n_trials": 3})
    assert [trial.state for trial in load_study(stores, "small").get_trials()] == [TrialState.WAITING] * 2
