"""Training, new or continued."""

import logging
from collections.abc import Mapping
from typing import Any

from iodine import training
from iodine.config import resolution
from iodine.data.datasets import IODINEDataset
from iodine.errors import ConfigError
from iodine.runs import loading
from iodine.training.replicas import Distribution

__all__ = ["build_trainer"]

_LOG = logging.getLogger(__name__)


def build_trainer(
  entries: Mapping[str, Any],
  dataset: IODINEDataset,
  distribution: Distribution | None = None,
) -> training.Trainer:
  """Builds model and optimizer, with all variables that the data call for."""
  distribution = distribution or Distribution()
  if distribution.num_sub_batches > 1:
    _LOG.info(
      "The %s images of a step: %s sub-batches on %s devices of %s processes",
      dataset.batch_size,
      distribution.num_sub_batches,
      distribution.num_replicas,
      distribution.num_workers,
    )
  model = resolution.build_part(entries, "model")
  if model.num_frames > dataset.num_frames:
    raise ConfigError(
      f"model: needs {model.num_frames} frames of a scene, but the dataset "
      f"{dataset.name} has {dataset.num_frames}"
    )
  with distribution.scope():
    trainer = training.Trainer(
      model,
      resolution.build_part(entries, "optimizer"),
      entries["seed"],
      distribution,
    )
    loading.initialize(trainer, dataset)
  return trainer
