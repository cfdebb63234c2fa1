"""The caption of each figure of a report."""

from collections.abc import Sequence

from bdqm_tune.analysis.reporting.document import Block, Picture

CAPTIONS = {
    "history": "The error of every trial and the best so far, in the order of the trials.",
    "curves": "The validation error of the trials by epoch.",
    "importance": "How much each hyperparameter counts, by two methods; docs/figures.md says how they differ.",
    "slices": "Each hyperparameter against the error.",
    "contour": "The two numbers that count most; where no trial is near, nothing is drawn.",
    "parallel": "A line a complete trial: what the best ones share is seen where they meet.",
    "pareto": "The Pareto front: the trials that no other beats in both error and cost.",
    "durations": "How long trials took, and what pruning saved, by an estimate.",
    "timeline": "The trials of each worker, and how many ran at the same time.",
    "parity": "Predicted against true energies of the test structures.",
    "parity_per_atom": "Predicted against true energies per atom of the test structures.",
    "force_parity": "Predicted against true components of the forces on the atoms of the test structures.",
    "force_error_distribution": "The errors of the forces' components, and the share of them with a smaller one.",
    "element_force_errors": "The error of the forces on the atoms of an element, with 95 % intervals.",
    "error_distribution": "The errors per atom on the test split, and the share of structures with a smaller one.",
    "element_errors": "The error of the test structures that hold an element, with 95 % intervals.",
    "calibration": "The share of true energies within the ensemble's intervals, against what is stated.",
    "spread": "The error on the test split against what the members of the ensemble disagree by.",
}


def pictures(names: Sequence[str], drawn: Sequence[str]) -> list[Block]:
    """Those of the figures that were drawn."""
    return [Picture(name, CAPTIONS[name]) for name in names if name in drawn]
