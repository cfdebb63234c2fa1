"""The project's own trainer."""

from bdqm_tune.config.backends import Declaration
from bdqm_tune.config.hyperparameters import AMPOPT_SEARCH, TRIED_FIRST, Hyperparameters, completed_search

NATIVE = Declaration(
    name="native",
    meaning="the project's own engine: networks on the features of a descriptor",
    hyperparameters=Hyperparameters,
    make="bdqm_tune.backends.native:NativeBackend",
    load="bdqm_tune.learning.network_potential:NetworkPotential.load",
    features=True,
    folds=True,
    parallel=True,
    forces=(True, False, "partial", "auto"),
    stress=(True, False, "partial", "auto"),
    searches={"ampopt": AMPOPT_SEARCH},
    complete_search=completed_search,
    tried_first=TRIED_FIRST,
)
