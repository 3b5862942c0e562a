"""One training step: the trainer, the optimizer, the replicas."""

from iodine.training.optimizer import (
  Adam,
  ExponentialDecay,
  global_step_of_optimizer,
  make_optimizer,
)
from iodine.training.trainer import Trainer

__all__ = [
  "Adam",
  "ExponentialDecay",
  "Trainer",
  "global_step_of_optimizer",
  "make_optimizer",
]
