"""Training of many networks together on one device: their weights are batched, one product serves all of them."""

from bdqm_tune.learning.batched.epochs import BatchedEpochs, can_batch
from bdqm_tune.learning.batched.trainer import BatchedTrainer

__all__ = ["BatchedEpochs", "BatchedTrainer", "can_batch"]
