"""Adapters for the published amptorch, of July 2023: missing imports, and global state that it changes."""

import importlib.util
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from bdqm_tune.errors import BadInput, one_line

REPOSITORY = "https://github.com/ulissigroup/amptorch"
HOW_TO_GET = (
    "install it with: pip install 'bdqm-tune[amptorch]', then "
    f"pip install --no-build-isolation --no-deps git+{REPOSITORY}"
)


def import_amptorch() -> ModuleType:
    """amptorch's module `trainer`.

    Its networks import `scatter` from torch_scatter, which has to be compiled for every version of torch; where that is
    missing, torch-geometric's function of the same name and meaning replaces it, during the import only.

    Raises:
        BadInput: it cannot be imported here.
    """
    if importlib.util.find_spec("amptorch") is None:
        raise BadInput(f"backend amptorch: amptorch is not installed; {HOW_TO_GET}")
    replaced = "torch_scatter" not in sys.modules and importlib.util.find_spec("torch_scatter") is None
    try:
        with _no_warnings():
            if replaced:
                from torch_geometric.utils import scatter

                sys.modules["torch_scatter"] = module = ModuleType("torch_scatter")
                module.scatter = scatter  # type: ignore[attr-defined]
            import amptorch.trainer
    except ImportError as error:
        raise BadInput(f"backend amptorch: amptorch cannot be imported ({one_line(error)}); {HOW_TO_GET}") from None
    finally:
        if replaced:
            sys.modules.pop("torch_scatter", None)
    return amptorch.trainer


@contextmanager
def amptorchs_globals(dtype: torch.dtype) -> Iterator[None]:
    """Run code of amptorch, and restore afterwards the global state that it changes.

    This is the default dtype, the working directory, all random states, cuDNN's flags, and skorch's function that
    moves a batch to the device, which amptorch replaces.
    """
    import skorch.net
    from amptorch.utils import to_tensor

    theirs, skorchs = torch.get_default_dtype(), skorch.net.to_tensor
    folder, python_state, numpy_state = Path.cwd(), random.getstate(), np.random.get_state()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        torch.set_default_dtype(dtype)
        skorch.net.to_tensor = to_tensor
        with torch.random.fork_rng(), _no_warnings():
            yield
    finally:
        skorch.net.to_tensor = skorchs
        torch.set_default_dtype(theirs)
        os.chdir(folder)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def _no_warnings() -> Iterator[None]:
    # It calls functions of torch and setuptools that warn of their end.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
