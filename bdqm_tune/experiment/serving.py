"""The name under which models of earlier versions know `bdqm_tune.models.serving`: it is written in each of them."""

from bdqm_tune.models.serving import _load_pyfunc

__all__ = ["_load_pyfunc"]
