"""The published amptorch: what it has in common with the native backend, and what it cannot do."""

from collections.abc import Mapping
from typing import Any

from bdqm_tune.config.backends import Declaration
from bdqm_tune.config.descriptor_options import counts
from bdqm_tune.config.descriptor_search import with_option
from bdqm_tune.config.hyperparameters import AMPOPT_SEARCH, TRIED_FIRST, Hyperparameters, completed_search
from bdqm_tune.config.options import with_training_option


def _complete(content: Mapping[str, Any]) -> Mapping[str, Any]:
    content = with_option(content, "smooth_cutoff", False)  # which amptorch does not have
    content = with_training_option(content, "energy_loss", "total")
    content = with_training_option(content, "forces", False)  # with which it takes many times longer
    content = with_training_option(content, "energy_stage", 1.0)
    return with_training_option(content, "stress", False)  # which it does not train on


def _check(config: Any) -> None:
    if config.training.energy_loss == "per_atom":
        raise ValueError("training.energy_loss: amptorch's loss is of total energies; leave it out or set it to total")
    if config.training.energy_stage < 1:
        raise ValueError("training.energy_stage: amptorch's loss does not change; leave it out or set it to 1")
    space = config.descriptor_spaces.get("smooth_cutoff")
    possible = [config.descriptor.smooth_cutoff] if space is None else space.choices
    if True in possible and counts("smooth_cutoff", config.descriptor.model_dump()):
        raise ValueError("descriptor.smooth_cutoff: amptorch has no smooth cutoff; leave it out or set it to false")


AMPTORCH = Declaration(
    name="amptorch",
    meaning="the published amptorch, where it is installed: the same networks and descriptors, trained by its loop",
    hyperparameters=Hyperparameters,
    make="bdqm_tune.backends.amptorch:AmptorchBackend",
    load="bdqm_tune.learning.network_potential:NetworkPotential.load",
    features=True,
    forces=(True, False, "auto"),
    stress=(False,),
    searches={"ampopt": AMPOPT_SEARCH},
    complete_search=completed_search,
    tried_first=TRIED_FIRST,
    complete=_complete,
    check=_check,
)
