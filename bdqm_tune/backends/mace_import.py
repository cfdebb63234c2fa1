"""mace-torch, imported when it is used and without the lasting effects of its import, and the global state it needs."""

import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch

from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.learning.potential import Precision

HOW_TO_GET = "pip install 'bdqm-tune[mace]'"
VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # lets torch.load run what a file says, in child processes too


class Mace(NamedTuple):
    """What is used of mace-torch, and of what it brings."""

    version: str
    data: Any
    modules: Any
    tools: Any
    scripts: Any  # mace.tools.scripts_utils
    Batch: Any
    DataLoader: Any
    take_step: Any
    load_foundations_elements: Any
    o3: Any  # of e3nn
    ExponentialMovingAverage: Any


@cache
def import_mace() -> Mace:
    """mace-torch.

    Raises:
        BadInput: it cannot be imported here; the message says how to get it.
    """
    if importlib.util.find_spec("mace") is None:
        raise BadInput(f"backend mace: mace-torch is not installed; {HOW_TO_GET}")
    try:
        found = _imported()
    except ImportError as error:
        raise BadInput(f"backend mace: mace-torch cannot be imported ({one_line(error)}); {HOW_TO_GET}") from None
    with warnings.catch_warnings(action="ignore"):  # that it is deprecated
        # Which kernels are fused depends on what ran before: a resumed training would differ in the last bits.
        torch.jit.set_fusion_strategy([("STATIC", 0), ("DYNAMIC", 0)])
    return found


def _imported() -> Mace:
    before = os.environ.get(VARIABLE)
    try:
        import mace  # noqa: F401  (sets the variable, nothing else)
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
    # e3nn 0.4.4 reads slices from a file of constants, and uses torch.jit.script, which is deprecated; mace prints.
    with (
        warnings.catch_warnings(action="ignore"),
        redirect_stdout(io.StringIO()),
        torch.serialization.safe_globals([slice]),
    ):
        from e3nn import o3
        from mace import data, modules, tools
        from mace.tools import scripts_utils, torch_geometric
        from mace.tools.finetuning_utils import load_foundations_elements
        from mace.tools.train import take_step
        from torch_ema import ExponentialMovingAverage
    return Mace(
        version("mace-torch"),
        data,
        modules,
        tools,
        scripts_utils,
        torch_geometric.batch.Batch,
        torch_geometric.dataloader.DataLoader,
        take_step,
        load_foundations_elements,
        o3,
        ExponentialMovingAverage,
    )


@contextmanager
def default_dtype(precision: Precision) -> Iterator[None]:
    """torch's default type for floating-point numbers, in which mace makes all it makes; it is global."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, precision))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
