"""Figures of what trials cost and when they ran: their numbers, counted otherwise, and what is drawn of them."""

import numpy as np
import pandas as pd
import pytest

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.durations import durations, hours_saved
from bdqm_tune.analysis.figures.history import optimisation_history, random_baseline
from bdqm_tune.analysis.figures.hypervolume import hypervolume, hypervolume_history
from bdqm_tune.analysis.figures.pareto import pareto, with_costs
from bdqm_tune.analysis.figures.timeline import running, spans, timeline, utilisation

MAE = "val_energy_mae"


def trials(n: int = 30, workers: int = 3) -> pd.DataFrame:
    """Each worker's trials follow one another, and every third is pruned; the last one still runs."""
    random = np.random.default_rng(0)
    state = np.array(["pruned" if i % 3 == 2 else "complete" for i in range(n)], dtype=object)
    state[-1] = "running"
    seconds = random.uniform(10, 90, n)
    start = pd.Series(0.0, range(n))
    free = np.zeros(workers)
    for i in range(n):
        start[i] = free[i % workers]
        free[i % workers] += seconds[i] + 1
    begin = pd.Timestamp("2026-01-01") + pd.to_timedelta(start, unit="s")
    frame = pd.DataFrame({"number": range(n), "state": state, MAE: random.lognormal(size=n), "started": begin})
    frame = frame.assign(ended=begin + pd.to_timedelta(seconds, unit="s"), trial_seconds=seconds)
    frame = frame.assign(epochs=np.where(state == "pruned", 10.0, 60.0), n_parameters=random.integers(100, 9000, n))
    frame.loc[n - 1, ["ended", MAE]] = [pd.NaT, np.nan]
    return frame.assign(worker=[f"w{i % workers}" for i in range(n)], host="node", sampler="random", given=False)


def test_hours_saved() -> None:
    frame = trials()
    pruned = frame[frame["state"] == "pruned"]
    found = hours_saved(frame)
    assert found.trials == len(pruned)
    assert found.saved == pytest.approx(sum(row.trial_seconds / 10 * 50 for row in pruned.itertuples()) / 3600)
    ended = frame[frame["state"] != "running"]
    assert found.spent == pytest.approx(ended["trial_seconds"].sum() / 3600)


def test_hours_saved_by_pruning_at_the_usual_end_are_none() -> None:
    frame = trials().assign(epochs=60.0)
    assert hours_saved(frame).saved == 0


def test_durations_count_every_trial() -> None:
    frame = trials()
    ax = durations(frame)
    assert sum(bar.get_height() for bar in ax.patches) == (frame["state"] != "running").sum()  # type: ignore[attr-defined]
    assert ax.get_xlabel() == "duration of a trial (s)"
    assert any("saved" in text.get_text() for text in ax.texts)
    assert "no trial has ended yet" in durations(frame.assign(trial_seconds=np.nan)).texts[0].get_text()


def test_spans_overlap_in_no_lane() -> None:
    rows = spans(trials(40, workers=4).assign(worker=lambda frame: frame["worker"].replace("w1", "w0")))
    assert rows["lane"].nunique() == 4  # one worker has two
    assert rows.groupby("lane")["worker"].nunique().max() == 1
    for _, lane in rows.groupby("lane"):
        assert (lane["start"].to_numpy()[1:] >= lane["end"].to_numpy()[:-1]).all()
    assert len(rows) == 39


def test_running_counts_those_that_run() -> None:
    rows = spans(trials())
    counts = running(rows)
    for moment in np.linspace(0.5, rows["end"].max() - 0.5, 50):
        expected = ((rows["start"] <= moment) & (rows["end"] > moment)).sum()
        assert counts.loc[counts["seconds"] <= moment, "trials"].iloc[-1] == expected
    assert counts["trials"].iloc[-1] == 0
    area = (counts["trials"].to_numpy()[:-1] * np.diff(counts["seconds"])).sum()
    assert utilisation(rows) == pytest.approx(area / (3 * rows["end"].max()))


def test_timeline_draws_a_bar_a_trial() -> None:
    upper, lower = timeline(trials()).axes
    bars = {str(drawn.get_label()): len(drawn.get_paths()) for drawn in upper.collections}
    assert bars == {"complete (20)": 20, "pruned (9)": 9}
    assert [label.get_text() for label in upper.get_yticklabels()] == ["node 1", "node 2", "node 3"]
    assert lower.get_xlabel() == "time since the first trial began (min)"
    assert "utilisation" in lower.texts[0].get_text()
    assert "no trial has ended" in timeline(trials().head(0)).axes[0].texts[0].get_text()
    many = timeline(trials(200, workers=60)).axes[0]
    assert many.get_ylabel() == "60 lanes"


def test_time_per_atom() -> None:
    frame = with_costs(trials(), atoms=500)
    assert frame["microseconds"].iloc[0] == pytest.approx(1e6 * frame["trial_seconds"].iloc[0] / 60 / 500)
    assert with_costs(trials(), None)["microseconds"].isna().all()
    assert with_costs(trials().assign(epochs=0.0), 5)["microseconds"].isna().all()


def test_pareto_draws_complete_trials_and_their_front() -> None:
    frame = with_costs(trials(), 500)
    complete = frame[frame["state"] == "complete"]
    for ax, cost in zip(pareto(frame).axes, ("n_parameters", "microseconds"), strict=True):
        points = np.asarray(ax.collections[0].get_offsets())
        assert points.tolist() == complete[[cost, MAE]].to_numpy(float).tolist()
        front = ax.lines[-1].get_xydata()
        assert front[:, 1].min() == complete[MAE].min()
        assert front[0, 0] == complete[cost].min()
    assert [ax.get_xlabel() for ax in pareto(frame).axes] == [
        "parameters of the network", "training time per atom and epoch (µs)",
    ]  # fmt: skip
    unknown = pareto(with_costs(trials(), None)).axes
    assert "not known" in unknown[1].texts[0].get_text()
    assert unknown[0].collections


def judged_by_three() -> pd.DataFrame:
    """Six trials: 0, 1, 4 and 5 are on the front; 4 by its time alone; 6 has not ended."""
    return pd.DataFrame(
        {
            "number": range(7),
            "state": ["complete"] * 6 + ["running"],
            MAE: [1.0, 0.5, 1.1, 2.0, 0.9, 4.0, np.nan],
            "n_parameters": [100.0, 400, 100, 200, 500, 50, np.nan],
            "time_per_atom": [4e-6, 4e-6, 5e-6, 6e-6, 1e-6, 8e-6, np.nan],
        }
    )


def test_pareto_draws_the_studys_own_objectives() -> None:
    frame, objectives = judged_by_three(), [MAE, "n_parameters", "time_per_atom"]
    size, time = pareto(frame, MAE, objectives).axes
    assert [ax.get_xlabel() for ax in (size, time)] == ["parameters of the network", "prediction time per atom (µs)"]
    for ax, cost, unit in ((size, "n_parameters", 1), (time, "time_per_atom", 1e6)):
        marked = frame.loc[[0, 1, 4, 5]]
        assert ax.lines[-1].get_xydata() == pytest.approx(np.c_[unit * marked[cost], marked[MAE]])
        assert [text.get_text() for text in ax.texts] == ["0", "1", "4", "5"]
    (only,) = pareto(frame, MAE, objectives[:2]).axes
    assert [text.get_text() for text in only.texts] == ["0", "1", "5"]
    assert "no trial is complete" in pareto(frame.tail(1), MAE, objectives).axes[0].texts[0].get_text()


def test_hypervolume_of_the_trials_so_far() -> None:
    frame = pd.DataFrame(
        {
            "number": [0, 1, 2, 3, 4],
            "state": ["complete", "failed", "complete", "complete", "complete"],
            MAE: [100.0, np.nan, 10, 1, 10],  # by their logarithms, from 0 to 1: 1, 0.5, 0, 0.5
            "n_parameters": [1000.0, np.nan, 1000 * 10**-0.5, 100, 10],  # 1, 0.75, 0.5, 0
        }
    )
    found = hypervolume_history(frame, [MAE, "n_parameters"])
    assert found["number"].tolist() == [0, 2, 3, 4]
    assert found["hypervolume"].to_numpy() == pytest.approx([0, 0.125, 0.5, 0.75])
    same = hypervolume_history(frame.assign(n_parameters=7.0), [MAE, "n_parameters"])
    assert same["hypervolume"].to_numpy() == pytest.approx([0, 0.5, 1, 1]), "by the error alone"
    assert len(hypervolume(frame, [MAE, "n_parameters"]).lines[0].get_xdata()) == 4
    assert "no trial is complete" in hypervolume(frame.head(0), [MAE, "n_parameters"]).texts[0].get_text()


def test_random_baseline_takes_the_random_samplers_trials() -> None:
    frame = trials()
    frame.loc[0, "given"], frame.loc[1, "sampler"] = True, "tpe"
    values = frame.loc[2:28, MAE]
    found = random_baseline(frame)
    assert found["n_trials"].tolist() == list(range(1, len(values) + 1))
    assert found[MAE].iloc[0] == pytest.approx(values.mean())
    assert found[MAE].iloc[-1] == pytest.approx(values.min())
    ax = optimisation_history(frame, baseline=found)
    (line,) = [line for line in ax.lines if line.get_label() == "random, expected best"]
    assert np.asarray(line.get_ydata()).tolist() == found[MAE].tolist()
    assert np.asarray(line.get_xdata()).tolist() == (found["n_trials"] - 1).tolist()
    assert random_baseline(frame.assign(sampler="tpe")).empty
    assert random_baseline(frame.drop(columns=["sampler", "given"])).empty


def test_thinned_keeps_the_best() -> None:
    frame = pd.DataFrame({MAE: np.random.default_rng(0).permutation(10_000)})
    kept = style.thinned(frame, MAE, 500)
    assert len(kept) <= 500
    assert set(range(50)) <= set(kept[MAE])
    assert kept[MAE].max() == 9999
    assert style.thinned(frame.head(10), MAE, 500).equals(frame.head(10))
