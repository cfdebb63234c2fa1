"""The section of a report in which each figure stands, and its caption."""

from collections.abc import Sequence
from typing import Literal

from bdqm_tune.analysis.reporting.document import Block, Picture

Place = Literal["search", "hyperparameters", "test", "cost"]

# Every figure of `drawings.study_drawings` and `drawings.evaluation_drawings`. In a section, they stand in the order in
# which they are drawn.
FIGURES: dict[str, tuple[Place, str]] = {
    "history": ("search", "The error of every trial and the best so far, in the order of the trials."),
    "curves": ("search", "The validation error of the trials by epoch."),
    "importance": (
        "hyperparameters",
        "How much each hyperparameter counts, by two methods; docs/figures.md says how they differ.",
    ),
    "contour": ("hyperparameters", "The two numbers that count most; where no trial is near, nothing is drawn."),
    "slices": ("hyperparameters", "Each hyperparameter against the error."),
    "parallel": ("hyperparameters", "A line a complete trial: what the best ones share is seen where they meet."),
    "durations": ("cost", "How long trials took, and what pruning saved, by an estimate."),
    "pareto": ("cost", "The Pareto front: the trials that no other beats in both error and cost."),
    "timeline": ("cost", "The trials of each worker, and how many ran at the same time."),
    "hypervolume": ("cost", "The share of the space of objectives that the trials so far dominate."),
    "parity_per_atom": ("test", "Predicted against true energies per atom of the test structures."),
    "parity": ("test", "Predicted against true energies of the test structures."),
    "error_distribution": (
        "test",
        "The errors per atom on the test split, and the share of structures with a smaller one.",
    ),
    "element_errors": ("test", "The error of the test structures that hold an element, with 95 % intervals."),
    "force_parity": ("test", "Predicted against true components of the forces on the atoms of the test structures."),
    "force_error_distribution": (
        "test",
        "The errors of the forces' components, and the share of them with a smaller one.",
    ),
    "element_force_errors": ("test", "The error of the forces on the atoms of an element, with 95 % intervals."),
    "calibration": ("test", "The share of true energies within the ensemble's intervals, against what is stated."),
    "spread": ("test", "The error on the test split against what the members of the ensemble disagree by."),
}


def pictures(section: Place, drawn: Sequence[str]) -> list[Block]:
    """The figures of a section that were drawn."""
    return [Picture(name, FIGURES[name][1]) for name in drawn if FIGURES[name][0] == section]
