"""bdqm-tune: tuning of atomistic neural-network potentials."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdqm_tune.api import (
        confirm,
        evaluate,
        export_n2p2,
        load_amptorch_checkpoint,
        load_calculator,
        load_ensemble,
        load_n2p2,
        load_results,
        prepare,
        register,
        tune,
    )

__all__ = [
    "confirm",
    "evaluate",
    "export_n2p2",
    "load_amptorch_checkpoint",
    "load_calculator",
    "load_ensemble",
    "load_n2p2",
    "load_results",
    "prepare",
    "register",
    "tune",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy, because what these need takes seconds to import and `bdqm-tune --help` needs none of it.
    if name in __all__:
        from bdqm_tune import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
