"""Draw the pictures of docs/figures.md: tune small studies on the built-in data, and draw all that analysis/ can.

python scripts/gallery.py [FOLDER]

Takes some minutes on two cores. FOLDER (default docs/figures) gets the pictures, small enough for a repository.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdqm_tune.analysis.comparison import compare_studies
from bdqm_tune.analysis.drawings import study_drawings
from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.comparison import comparison
from bdqm_tune.analysis.figures.coverage import calibration, spread
from bdqm_tune.analysis.figures.errors import element_errors, error_distribution, per_element
from bdqm_tune.analysis.figures.learning import learning_curve
from bdqm_tune.analysis.figures.parity import parity
from bdqm_tune.config.config import load_config
from bdqm_tune.evaluation.evaluation import evaluate_best, evaluate_ensemble
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import assemble, record_ensemble
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.database_urls import sqlite_url
from bdqm_tune.study.results import load_results
from bdqm_tune.tuning.tune import tune

REPEATS, TRIALS, EPOCHS = 4, 16, 27  # of the studies that are compared
STUDY_TRIALS = 48
FRACTIONS = (0.9, 0.8, 0.6, 0.2)  # of the structures, that validate; the rest trains
DPI, MOST_BYTES = 110, 150_000


def tuned(stores: Stores, name: str, data: dict[str, object] | None = None, **study: object) -> None:
    """Tune one study on the built-in data."""
    options = {"name": name, "n_trials": TRIALS, **study}
    config = load_config(
        None, {"study": options, "training": {"epochs": EPOCHS}, "data": {"validation": data or {}}, "": {"cohort": 2}}
    )
    tune(prepare(config, stores.home), config, stores)
    print(f"tuned {name}", file=sys.stderr, flush=True)


def drawings(stores: Stores) -> dict[str, Callable[[], Figure | Axes]]:
    """Tune and evaluate, and give every figure by its name, drawn when it is called."""
    tuned(stores, "gallery", n_trials=STUDY_TRIALS)
    for seed in range(REPEATS):
        for sampler in ("tpe", "random"):
            tuned(stores, f"{sampler}-{seed}", sampler=sampler, seed=seed)
        tuned(stores, f"unpruned-{seed}", pruner="none", seed=seed)
    for fraction in FRACTIONS:
        for seed in range(2):
            tuned(stores, f"size-{fraction}-{seed}", {"fraction": fraction}, seed=seed, n_trials=6)
    results = load_results(stores, "gallery")
    found: dict[str, Callable[[], Figure | Axes]] = dict(study_drawings(results, load_results(stores, "random-0")))
    names = [f"{kind}-{seed}" for kind in ("tpe", "random", "unpruned") for seed in range(REPEATS)]
    compared = compare_studies([load_results(stores, name) for name in names])
    sizes = compare_studies(
        [load_results(stores, f"size-{fraction}-{seed}") for fraction in FRACTIONS for seed in range(2)]
    ).studies.rename(columns={"best": "mae"})
    errors = evaluate_best(stores, "gallery").errors
    record_ensemble(stores, assemble(stores, "gallery"))
    ensemble = evaluate_ensemble(stores, "gallery", "latest", reopen="the gallery shows both")
    coverage = ensemble.coverage
    assert coverage is not None
    return found | {
        "comparison": lambda: comparison(compared.by_trials, compared.by_epochs, compared.studies),
        "learning": lambda: learning_curve(sizes, style.label(style.MAE)),
        "parity": lambda: parity(errors, per_atom=True),
        "error_distribution": lambda: error_distribution(errors),
        "element_errors": lambda: per_element(element_errors(errors)),
        "calibration": lambda: calibration(coverage, ensemble.metrics["coverage"]),
        "spread": lambda: spread(ensemble.errors, per_atom=True),
    }


def picture(drawn: Figure | Axes, file: Path) -> None:
    """Write a small PNG: few colours are enough for a figure. Raises ValueError if it is too large all the same."""
    from PIL import Image

    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None
    with style.theme():
        figure.savefig(file, dpi=DPI)
    Image.open(file).convert("RGB").quantize(96).save(file, optimize=True)
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, more than {MOST_BYTES}")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bdqm-") as scratch:
        stores = Stores(Path(scratch) / "home", tracking=sqlite_url(Path(scratch) / "mlflow.db"))
        for name, draw in drawings(stores).items():
            picture(draw(), folder / f"{name}.png")
            plt.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
