"""The lock box: for which models the test split of a study was opened, and why more than once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import optuna

from bdqm_tune.errors import BadInput
from bdqm_tune.study.objectives import objectives_of
from bdqm_tune.study.study import SIGNATURE
from bdqm_tune.units import metric_unit, shown

OPENING = "test_opening_"  # and a number: attributes of a study


@dataclass(frozen=True)
class Opening:
    """The test split opened for one model of a study."""

    number: int  # 1: the first of the study
    time: str  # ISO 8601, UTC
    model: str  # `trial 18`, or `the ensemble of trials 18, 0, 15`
    model_run_id: str  # in which the model is
    test_digest: str
    reason: str  # why it was opened again; empty for the first
    run_id: str = ""  # of the evaluation, in MLflow; empty: it did not come to its end
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether the evaluation came to its end."""
        return bool(self.run_id)


def openings(study: optuna.Study) -> list[Opening]:
    """All of a study, the first first."""
    attributes = study.user_attrs
    return [Opening(**attributes[name]) for name in sorted(attributes) if name.startswith(OPENING)]


def next_opening(study: optuna.Study, model: str, model_run_id: str, test_digest: str, reason: str = "") -> Opening:
    """What opening the test split for this model would be; nothing is put on record.

    The same model again gives nothing new to choose from: that is the opening that it had.

    Raises:
        BadInput: it was opened for another model, and no reason is given.
    """
    earlier, reason = openings(study), reason.strip()
    for one in earlier:
        if (one.model_run_id, one.test_digest) == (model_run_id, test_digest):
            return one
    if earlier and not reason:
        raise BadInput(_refusal(study, model, earlier))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Opening(len(earlier) + 1, now, model, model_run_id, test_digest, reason if earlier else "")


def put_on_record(study: optuna.Study, opening: Opening) -> None:
    """Write it into the study, in the place of what was written of it before."""
    study.set_user_attr(f"{OPENING}{opening.number:03d}", asdict(opening))


def reasons(found: Sequence[Opening]) -> list[str]:
    """Why the test split was opened again, each time that it was."""
    return [one.reason for one in found if one.reason]


def headline(metrics: Mapping[str, float], objective: str) -> list[str]:
    """The names of the metrics that stand for an evaluation: of the objective first, of energies per atom first."""
    energies = ["test_energy_mae_per_atom", "test_energy_mae"]
    names = ["test_forces_mae", *energies] if objective == "val_forces_mae" else [*energies, "test_forces_mae"]
    return [name for name in names if name in metrics]


def _refusal(study: optuna.Study, model: str, earlier: Sequence[Opening]) -> str:
    first = earlier[0]
    signature = study.user_attrs.get(SIGNATURE)
    names = headline(first.metrics, objectives_of(signature)[0] if signature else "")[:1]
    errors = [(name, *shown(first.metrics[name], metric_unit(name))) for name in names]
    shown_errors = ", ".join(f"{name} {value:.4g} {unit}" for name, value, unit in errors)
    result = shown_errors or "an evaluation that did not come to its end"
    again = f", and {len(earlier) - 1} more times" if len(earlier) > 1 else ""
    return (
        f"the test split of study {study.study_name!r} was opened on {first.time} for {first.model} "
        f"(run {first.model_run_id}: {result}){again}; to evaluate {model} too would be to choose by the test split. "
        '--reopen "REASON" does it, and the reason stays on record with this and all later evaluations'
    )
