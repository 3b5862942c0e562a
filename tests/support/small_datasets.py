"""Datasets of a few scenes that are made in memory."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from iodine.data import opening
from iodine.data.pipeline import IODINEDataset
from iodine.errors import ConfigError


@dataclasses.dataclass(eq=False, kw_only=True)
class Clips(IODINEDataset):
  """Videos of three frames without masks; pixels tell scene and frame."""

  num_true_objects = None
  num_frames = 3
  count: int = 5

  def examples(self):
    number = np.arange(self.count, dtype=np.uint8)[:, None] * 10
    frame = number + np.arange(3, dtype=np.uint8)
    images = np.tile(frame[:, :, None, None, None], [1, 1, 8, 10, 3])
    return tf.data.Dataset.from_tensor_slices({"image": images})


@dataclasses.dataclass(eq=False, kw_only=True)
class Blobs(IODINEDataset):
  """Scenes of up to two objects in two frames, with factors."""

  num_true_objects = 3
  num_channels = 1
  num_frames = 2
  factors = {"number": (tf.float32, 1)}
  count: int = 6
  source: int = 0

  def __post_init__(self):
    super().__post_init__()
    self.opened = 0

  def examples(self):
    self.opened += 1
    count = self.count
    owner = np.random.default_rng(0).integers(0, 3, [count, 2, 7, 9])
    owner[1:2] = 0  # a scene without objects
    owner[2:3] = np.minimum(owner[2:3], 1)
    owner[3:4, 0] = 0  # objects in the second frame alone
    mask = owner[:, :, None] == np.arange(3)[:, None, None]
    number = np.arange(count, dtype=np.float32)
    return tf.data.Dataset.from_tensor_slices(
      {
        "image": np.uint8(owner * 100)[..., None],
        "mask": np.uint8(255 * mask)[..., None],
        "factors": {"number": np.tile(number[:, None], [1, 3])},
        "not used": number,
      }
    )

  def _source(self):
    return self.source


def fault(dataset: IODINEDataset) -> str:
  """Reads a dataset that must fail; returns the one line of the error."""
  with (
    pytest.raises(ConfigError) as caught,
    opening.data_errors_as_config_errors(dataset),
  ):
    list(dataset("eval"))
  text = str(caught.value)
  assert text.startswith("data: ")
  assert "\n" not in text
  return text
