"""Which hyperparameters the validation MAE depended on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bdqm_tune.analysis.figures import style

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 5  # complete ones; of fewer, a random forest learns nothing
MOST_TRIALS = 500  # evenly over the study; a forest of 1000 takes 20 s, and says the same
METHODS = ("fANOVA", "PED-ANOVA")


def compute_importance(
    trials: pd.DataFrame,
    spaces: Mapping[str, Sequence[BaseDistribution]],
    objective: str = style.MAE,
    seed: int = 0,
) -> pd.DataFrame:
    """How much each hyperparameter alone counts, by two methods.

    fANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014): its share of the variance of the MAE's logarithm, over the whole
    space. PED-ANOVA (Watanabe, Bansal & Hutter, IJCAI 2023): what marks the best tenth of the trials, of few trials
    the best five or the better half, from all others. The logarithm, of the MAE and of what is searched on a
    logarithmic scale: else one diverged trial, or the upper tenth of the range of lr, would be all that counts. A
    trial that does not have a hyperparameter (dropout_rate without dropout) counts with the middle of its range, or
    the most frequent choice: both need a value, and one that is the same for all explains nothing by itself.

    Args:
        trials: one row a trial: state, the objective, and a column per hyperparameter; only complete ones count.
        spaces: what each hyperparameter was searched in.
        objective: what the trials are judged by, as its column is called.
        seed: of the forest.

    Returns:
        hyperparameter, importance, method: of each method the sum is 1, the largest first; empty where fewer than
        `MIN_TRIALS` trials are complete or nothing differs among them.
    """
    import optuna

    values = trials[objective].astype(float)
    rows = trials[(trials["state"] == "complete") & (values > 0) & np.isfinite(values)]
    rows = rows.sort_values("number").iloc[:: -(-len(rows) // MOST_TRIALS) or 1]
    columns = {name: _column(rows[name], spaces[name]) for name in sorted(spaces) if name in rows and rows[name].any()}
    columns = {name: column for name, column in columns.items() if not column[1].single()}
    if len(rows) < MIN_TRIALS or not columns or rows[objective].nunique() == 1:
        return pd.DataFrame(
            {"hyperparameter": pd.Series(dtype=str), "importance": pd.Series(dtype=float), "method": []}
        )
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # "a new study created" is none of the user's
    try:
        table = optuna.create_study()
        distributions = {name: distribution for name, (_, distribution) in columns.items()}
        for row, value in enumerate(rows[objective]):
            params = {name: values[row] for name, (values, _) in columns.items()}
            table.add_trial(optuna.create_trial(params=params, distributions=distributions, value=math.log10(value)))
        evaluators = (
            optuna.importance.FanovaImportanceEvaluator(seed=seed),
            optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, MIN_TRIALS / len(rows)))),
        )
        shares = [optuna.importance.get_param_importances(table, evaluator=evaluator) for evaluator in evaluators]
    finally:
        optuna.logging.set_verbosity(verbosity)
    return pd.DataFrame(
        [
            (name, float(share), method)
            for method, found in zip(METHODS, shares, strict=True)
            for name, share in found.items()
        ],
        columns=["hyperparameter", "importance", "method"],
    )


def _column(given: pd.Series, spaces: Sequence[BaseDistribution]) -> tuple[list[Any], BaseDistribution]:
    """One hyperparameter's value in every trial, and one distribution that holds them all.

    A study that was taken up again may have searched another range, and enqueued values may lie outside of it.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numeric = [space for space in spaces if isinstance(space, FloatDistribution | IntDistribution)]
    if not numeric:
        names = given.dropna().astype(str)
        usual = Counter(names).most_common(1)[0][0]
        return [usual if pd.isna(value) else str(value) for value in given], CategoricalDistribution(sorted(set(names)))
    scale = math.log10 if numeric[0].log else float  # Optuna keeps kind and scale the same over a study
    low = scale(min([space.low for space in numeric] + given.dropna().tolist()))
    high = scale(max([space.high for space in numeric] + given.dropna().tolist()))
    return [(low + high) / 2 if pd.isna(value) else scale(value) for value in given], FloatDistribution(low, high)


def parameter_importance(importances: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw importances as bars, the largest on top, those of both methods side by side.

    Args:
        importances: hyperparameter, importance (share, 0 to 1), method.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        names = importances.groupby("hyperparameter")["importance"].mean().sort_values(ascending=False).index
        ax = ax or style.new_axes(height=max(1.8, 0.7 + 0.28 * len(names)))
        ax.set(xlabel="importance (share)", ylabel="")
        if importances.empty:
            style.note(ax, f"no importances: they need {MIN_TRIALS} complete trials\nwith different results")
            return ax
        methods = [method for method in METHODS if method in set(importances["method"])]
        width = 0.8 / len(methods)
        looks = {"fANOVA": (style.STATES["complete"].color, ""), "PED-ANOVA": ("0.75", "////")}
        meaning = {"fANOVA": "fANOVA: variance of log MAE", "PED-ANOVA": "PED-ANOVA: to be among the best"}
        for i, method in enumerate(methods):
            found = importances[importances["method"] == method].set_index("hyperparameter")["importance"]
            shares = found.reindex(names).fillna(0.0)
            places = np.arange(len(names)) + (i - (len(methods) - 1) / 2) * width
            color, hatch = looks[method]
            ax.barh(
                places, shares, width, color=color, hatch=hatch, edgecolor="white", linewidth=0.3, label=meaning[method]
            )
            for place, share in zip(places, shares, strict=True):
                ax.annotate(
                    f"{share:.2f}", (share, place), xytext=(2, 0), textcoords="offset points", va="center", fontsize=7
                )
        ax.set_yticks(range(len(names)), [style.shortened(name) for name in names])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.15 * importances["importance"].max() or 1)
        ax.tick_params(axis="y", length=0, labelsize=7)
        style.legend_above(ax, columns=1)
    return ax
