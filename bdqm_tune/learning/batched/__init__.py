"""The batched (GPU) trainer: many networks train together, with one batched product a layer for all of them."""

from bdqm_tune.learning.batched.epochs import BatchedEpochs, can_batch
from bdqm_tune.learning.batched.trainer import BatchedTrainer
from bdqm_tune.learning.batched.verdict import Case, Verdict

__all__ = ["BatchedEpochs", "BatchedTrainer", "Case", "Verdict", "can_batch"]
