"""One training step: the trainer, the optimizer, the replicas."""

import iodine.quiet_tensorflow

from iodine.training.curriculum import Curriculum
from iodine.training.optimizer import (
  Adam,
  Optimizer,
  RMSprop,
  make_optimizer,
)
from iodine.training.schedules import (
  ExponentialDecay,
  Schedule,
  global_step_of_optimizer,
)
from iodine.training.trainer import Trainer

__all__ = [
  "Adam",
  "Curriculum",
  "ExponentialDecay",
  "Optimizer",
  "RMSprop",
  "Schedule",
  "Trainer",
  "global_step_of_optimizer",
  "make_optimizer",
]
