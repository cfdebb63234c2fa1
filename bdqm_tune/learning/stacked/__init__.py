"""Training of many networks together on one device: their weights are stacked, one product serves all of them."""

from bdqm_tune.learning.stacked.epochs import StackedEpochs, can_stack
from bdqm_tune.learning.stacked.stack import Stack

__all__ = ["Stack", "StackedEpochs", "can_stack"]
