"""One training step: the trainer, the optimizer, the replicas."""

from iodine.training.trainer import (
  Adam,
  ExponentialDecay,
  Trainer,
  global_step_of_optimizer,
  make_optimizer,
)

__all__ = [
  "Adam",
  "ExponentialDecay",
  "Trainer",
  "global_step_of_optimizer",
  "make_optimizer",
]
