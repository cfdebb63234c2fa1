"""Which hyperparameters the validation MAE depended on."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.figures import style

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 5  # complete ones; of fewer, a forest of random trees tells nothing


def compute_importance(study: optuna.Study, seed: int = 0) -> pd.DataFrame:
    """Share of the variance of the MAE's logarithm that each hyperparameter explains alone, by fANOVA.

    The logarithm, of the MAE and of what is searched on a logarithmic scale: else one diverged trial, or the upper
    tenth of the range of lr, would be all that counts. A trial that does not have a hyperparameter (dropout_rate
    without dropout) counts with the middle of its range, or the most frequent choice: fANOVA (Hutter, Hoos &
    Leyton-Brown, ICML 2014) needs a value, and one that is the same for all explains nothing by itself.

    Args:
        study: only its complete trials count.
        seed: of the forest.

    Returns:
        hyperparameter, importance (sum 1, largest first); empty where fewer than `MIN_TRIALS` trials are complete or
        nothing differs among them.
    """
    import optuna

    empty = pd.DataFrame({"hyperparameter": pd.Series(dtype=str), "importance": pd.Series(dtype=float)})
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    values = {trial.number: trial.value for trial in trials if trial.value is not None and 0 < trial.value < math.inf}
    trials = [trial for trial in trials if trial.number in values]
    columns = {name: _column(trials, name) for name in sorted({name for trial in trials for name in trial.params})}
    columns = {name: column for name, column in columns.items() if not column[1].single()}
    if len(trials) < MIN_TRIALS or not columns or len(set(values.values())) == 1:
        return empty
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # "a new study created" is none of the user's
    try:
        table = optuna.create_study()
        for row, trial in enumerate(trials):
            table.add_trial(
                optuna.create_trial(
                    params={name: values[row] for name, (values, _) in columns.items()},
                    distributions={name: distribution for name, (_, distribution) in columns.items()},
                    value=math.log10(values[trial.number]),
                )
            )
    finally:
        optuna.logging.set_verbosity(verbosity)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(table, evaluator=evaluator)
    return pd.DataFrame({"hyperparameter": list(shares), "importance": [float(share) for share in shares.values()]})


def _column(trials: list[optuna.trial.FrozenTrial], name: str) -> tuple[list[Any], BaseDistribution]:
    """One hyperparameter's value in every trial, and one distribution that holds them all.

    A study that was taken up again may have searched another range, and enqueued values may lie outside of it.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    given = [trial.params.get(name) for trial in trials]
    values = [value for value in given if value is not None]
    spaces = [trial.distributions[name] for trial in trials if name in trial.distributions]
    numeric = [space for space in spaces if isinstance(space, FloatDistribution | IntDistribution)]
    if not numeric:
        names = [str(value) for value in values]
        usual = Counter(names).most_common(1)[0][0]
        return [usual if value is None else str(value) for value in given], CategoricalDistribution(sorted(set(names)))
    scale = math.log10 if numeric[0].log else float  # Optuna keeps kind and scale the same over a study
    low = scale(min([space.low for space in numeric] + values))
    high = scale(max([space.high for space in numeric] + values))
    return [(low + high) / 2 if value is None else scale(value) for value in given], FloatDistribution(low, high)


def parameter_importance(importances: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw importances as bars, the largest on top.

    Args:
        importances: hyperparameter, importance (share, 0 to 1).
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes(height=max(1.6, 0.5 + 0.2 * len(importances)))
        if importances.empty:
            style.note(ax, f"no importances: they need {MIN_TRIALS} complete trials\nwith different results")
        else:
            rows = importances.sort_values("importance", ascending=False)
            color = style.STATES["complete"].color
            sns.barplot(
                data=rows, x="importance", y="hyperparameter", orient="y", color=color, width=0.7, saturation=1, ax=ax
            )
            for position, share in enumerate(rows["importance"]):
                ax.annotate(
                    f"{share:.2f}",
                    (share, position),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                )
            ax.set_xlim(0, 1.12 * rows["importance"].max() or 1)
            ax.tick_params(axis="y", length=0)
        ax.set(xlabel="importance (share of the variance of log MAE)", ylabel="")
    return ax
