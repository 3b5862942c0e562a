"""Input pipelines for the standard datasets.

See `IODINEDataset` for what they share, including the format of batches.
(reference: modules/data.py)
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from iodine import checks
from iodine.data.clevrtex import ClevrTex
from iodine.data.flat_hdf5 import FlatHDF5
from iodine.data.hdf5 import HDF5
from iodine.data.image_folder import ImageFolder
from iodine.data.movi import MOVi
from iodine.data.pipeline import IODINEDataset, NoSceneError, Position
from iodine.data.ravens import RAVENS
from iodine.data.record_files import Reader, RecordDataset
from iodine.data.shapes3d import Shapes3D
from iodine.data.sketchy import Sketchy
from iodine.multi_object_datasets import (
  cater_with_masks,
  clevr_with_masks,
  multi_dsprites,
  objects_room,
  tetrominoes,
)
from iodine.synthetic import generation, sprites, sprites_reader

__all__ = [
  "CATER",
  "CLEVR",
  "CLEVRProperties",
  "ClevrTex",
  "FlatHDF5",
  "HDF5",
  "IODINEDataset",
  "ImageFolder",
  "MOVi",
  "MultiDSprites",
  "NoSceneError",
  "ObjectsRoom",
  "Position",
  "RAVENS",
  "RecordDataset",
  "Shapes3D",
  "Sketchy",
  "Sprites",
  "Tetrominoes",
]

_NUM_SPRITES = 20_000  # written if the file is missing

_LOG = logging.getLogger(__name__)

_BUCKET = "https://storage.googleapis.com/multi-object-datasets"


@dataclasses.dataclass(eq=False, kw_only=True)
class CLEVR(RecordDataset):
  """CLEVR with masks.

  Factors: color, shape and size are counted from 1 (0: no object); position is
  `pixel_coords`, the position in the stored image and the depth.
  """

  num_true_objects = clevr_with_masks.MAX_NUM_ENTITIES
  download_url = f"{_BUCKET}/clevr_with_masks/clevr_with_masks_train.tfrecords"
  synthetic_command = "clevr --scenes 5000"
  occluder_gray = 0.2
  factors = {
    "color": (tf.uint8, 1),
    "shape": (tf.uint8, 1),
    "size": (tf.uint8, 1),
    "position": (tf.float32, 3),
    "rotation": (tf.float32, 1),
  }

  image_dim: Sequence[int] = (128, 128)
  crop_region: Sequence[Sequence[int]] | None = ((29, 221), (64, 256))
  name: str = "clevr"

  def expected_features(self) -> dict[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""
    return clevr_with_masks.features

  def _default_reader(self) -> Reader:
    return clevr_with_masks.dataset

  def _factors(self, example: dict) -> dict[str, tf.Tensor]:
    return {
      "color": example["color"],
      "shape": example["shape"],
      "size": example["size"],
      "position": example["pixel_coords"],
      "rotation": example["rotation"],
    }


@dataclasses.dataclass(eq=False, kw_only=True)
class CLEVRProperties(CLEVR):
  """CLEVR with masks, whole images, with what set prediction predicts.

  Factors: location is the position in scene units, (x, y, z); material is 1 or
  2 (0: no object); the others are those of `CLEVR`.
  """

  factors = {
    **CLEVR.factors,
    "location": (tf.float32, 3),
    "material": (tf.uint8, 1),
  }

  crop_region: Sequence[Sequence[int]] | None = None
  name: str = "clevr_properties"

  def _factors(self, example: dict) -> dict[str, tf.Tensor]:
    location = tf.stack([example["x"], example["y"], example["z"]], axis=1)
    own = {"location": location, "material": example["material"]}
    return {**super()._factors(example), **own}


@dataclasses.dataclass(eq=False, kw_only=True)
class MultiDSprites(RecordDataset):
  """Multi-dSprites.

  Attributes:
    dataset_variant: "binarized", "colored_on_grayscale" or
      "colored_on_colored". Determines `num_true_objects`, `num_channels`, the
      size of the factor `color` and `download_url`.
  """

  dataset_variant: str = "colored_on_grayscale"
  image_dim: Sequence[int] = (64, 64)
  name: str = "multi_dsprites"

  def __post_init__(self):
    _check_variant(self, multi_dsprites.MAX_NUM_ENTITIES)
    self.num_true_objects = multi_dsprites.MAX_NUM_ENTITIES[
      self.dataset_variant
    ]
    self.num_channels = 1 if self.dataset_variant == "binarized" else 3
    self.download_url = (
      f"{_BUCKET}/multi_dsprites/"
      f"multi_dsprites_{self.dataset_variant}.tfrecords"
    )
    self.synthetic_command = (
      f"multi_dsprites --variant {self.dataset_variant} --scenes 20000"
    )
    self.factors = {
      "color": (tf.float32, self.num_channels),
      "shape": (tf.float32, 1),
      "scale": (tf.float32, 1),
      "x": (tf.float32, 1),
      "y": (tf.float32, 1),
      "orientation": (tf.float32, 1),
    }
    super().__post_init__()

  def expected_features(self) -> dict[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""
    return multi_dsprites.feature_descriptions(
      multi_dsprites.MAX_NUM_ENTITIES[self.dataset_variant],
      self.dataset_variant == "binarized",
    )

  def _default_reader(self) -> Reader:
    return multi_dsprites.dataset

  def _reader_args(self) -> tuple[str, ...]:
    return (self.dataset_variant,)


@dataclasses.dataclass(eq=False, kw_only=True)
class Tetrominoes(RecordDataset):
  """Tetrominoes.

  Factors: position is (row, column) of the top left corner in pixels.
  """

  num_true_objects = tetrominoes.MAX_NUM_ENTITIES
  download_url = f"{_BUCKET}/tetrominoes/tetrominoes_train.tfrecords"
  synthetic_command = "tetrominoes --scenes 10000"
  factors = {
    "color": (tf.float32, 3),
    "shape": (tf.float32, 1),
    "position": (tf.float32, 2),
  }

  image_dim: Sequence[int] = (35, 35)
  name: str = "tetrominoes"

  def expected_features(self) -> dict[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""
    return tetrominoes.features

  def _default_reader(self) -> Reader:
    return tetrominoes.dataset

  def _factors(self, example: dict) -> dict[str, tf.Tensor]:
    return {
      "color": example["color"],
      "shape": example["shape"],
      "position": tf.stack([example["x"], example["y"]], axis=1),
    }


@dataclasses.dataclass(eq=False, kw_only=True)
class Sprites(RecordDataset):
  """Small synthetic scenes of squares and discs; see `iodine.synthetic`.

  Factors: position is (row, column) of the top left corner in pixels, shape is
  1 for a square and 2 for a disc, size is the side or the diameter in pixels.
  """

  num_true_objects = sprites.MAX_NUM_ENTITIES
  synthetic_command = "sprites --scenes 20000"
  factors = {
    "color": (tf.float32, 3),
    "shape": (tf.float32, 1),
    "size": (tf.float32, 1),
    "position": (tf.float32, 2),
  }

  image_dim: Sequence[int] = sprites.IMAGE_SIZE
  name: str = "sprites"

  def expected_features(self) -> dict[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""
    return sprites_reader.features

  def prepare(self) -> None:
    """Generates the file if it is missing; there is no download."""
    if not isinstance(self.path, str) or os.path.exists(self.path):
      return
    _LOG.info("Writing %s scenes to %s", f"{_NUM_SPRITES:,}", self.path)
    generation.write_tfrecords(
      pathlib.Path(self.path),
      sprites.FEATURES,
      sprites.sample_scenes,
      num_scenes=_NUM_SPRITES,
      seed=0,
    )

  def _default_reader(self) -> Reader:
    return sprites_reader.dataset

  def _factors(self, example: dict) -> dict[str, tf.Tensor]:
    return {
      "color": example["color"],
      "shape": example["shape"],
      "size": example["size"],
      "position": tf.stack([example["x"], example["y"]], axis=1),
    }


@dataclasses.dataclass(eq=False, kw_only=True)
class ObjectsRoom(RecordDataset):
  """Objects Room. It has no factors.

  The files do not store visibility: it is 1 for entities that own a pixel and
  for the four background entities (sky, floor and two walls).

  Attributes:
    dataset_variant: "train", "six_objects", "empty_room" or
      "identical_color". Determines `num_true_objects` and `download_url`.
  """

  num_background_entities = 4

  dataset_variant: str = "train"
  image_dim: Sequence[int] = (64, 64)
  name: str = "objects_room"

  def __post_init__(self):
    _check_variant(self, objects_room.MAX_NUM_ENTITIES)
    self.num_true_objects = objects_room.MAX_NUM_ENTITIES[self.dataset_variant]
    split = "" if self.dataset_variant == "train" else "test_"
    self.download_url = (
      f"{_BUCKET}/objects_room/"
      f"objects_room_{split}{self.dataset_variant}.tfrecords"
    )
    self.synthetic_command = (
      f"objects_room --variant {self.dataset_variant} --scenes 10000"
    )
    super().__post_init__()

  def expected_features(self) -> dict[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""
    return objects_room.feature_descriptions(
      objects_room.MAX_NUM_ENTITIES[self.dataset_variant]
    )

  def _default_reader(self) -> Reader:
    return objects_room.dataset

  def _reader_args(self) -> tuple[str, ...]:
    return (self.dataset_variant,)


@dataclasses.dataclass(eq=False, kw_only=True)
class CATER(RecordDataset):
  """CATER with masks: videos of moving objects, for a sequential model.

  It has no factors; the camera and the objects' positions are ignored. The
  files do not store visibility: it is 1 for the background and for entities
  that own a pixel in any frame.

  Attributes:
    num_frames: T, how many leading frames of a video to use. A sequential model
      needs one more than its refinement steps.
  """

  num_true_objects = cater_with_masks.MAX_NUM_ENTITIES
  download_url = (
    f"{_BUCKET}/cater_with_masks/"
    "cater_with_masks_train.tfrecords-00000-of-00100 (and so on)"
  )

  num_frames: int = cater_with_masks.SEQUENCE_LENGTH  # type: ignore
  image_dim: Sequence[int] = (64, 64)
  shuffle_buffer: int | None = 100
  name: str = "cater"

  def examples(self) -> tf.data.Dataset:
    """Opens the files; see `IODINEDataset.examples`."""
    return super().examples().map(self._first_frames)

  def expected_features(self) -> dict[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""
    return cater_with_masks.feature_descriptions()

  def _default_reader(self) -> Reader:
    return cater_with_masks.dataset

  def _first_frames(self, example: dict) -> dict[str, Any]:
    cut = {name: example[name][: self.num_frames] for name in ("image", "mask")}
    return {**example, **cut}

  def _faults(self) -> Iterator[str | None]:
    yield from super()._faults()
    yield checks.int_fault(
      "num_frames", self.num_frames, 1, cater_with_masks.SEQUENCE_LENGTH
    )


def _check_variant(
  dataset: MultiDSprites | ObjectsRoom, choices: dict[str, int]
) -> None:
  if dataset.dataset_variant not in choices:
    raise ValueError(
      f"{type(dataset).__name__}: "
      f"dataset_variant={dataset.dataset_variant!r}: expected one of "
      f"{list(choices)}"
    )
