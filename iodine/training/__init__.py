"""One training step: the trainer, the optimizer, the replicas."""

import iodine.quiet_tensorflow

from iodine.training.optimizer import (
  Adam,
  ExponentialDecay,
  Optimizer,
  global_step_of_optimizer,
  make_optimizer,
)
from iodine.training.trainer import Trainer

__all__ = [
  "Adam",
  "ExponentialDecay",
  "Optimizer",
  "Trainer",
  "global_step_of_optimizer",
  "make_optimizer",
]
