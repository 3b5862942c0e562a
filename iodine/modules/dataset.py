"""The base of all input pipelines: filter, shuffle, batch, preprocess.

Dimensions: B batch, T time (always 1 here), L true entities, H height, W
width, C channels, n size of a factor.

A batch is a dict:
  image: [B, 1, H, W, C] float32 in [0, 1].
  mask: [B, 1, L, H, W, 1] float32 in {0, 1}; the background entities come
    first.
  visibility: [B, L] float32 in {0, 1}, 1 for entities that are present, the
    background included.
  factors: {name: [B, L, n]}, the generative factors.

(reference: modules/data.py)
"""

from __future__ import annotations

import abc
import dataclasses
import numbers
import operator
import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf

from iodine.modules.readers import Reader, reader_fault, resolve_reader

__all__ = ["IODINEDataset", "Position"]

_SEED_LIMIT = 2**31 - 1  # TensorFlow takes seeds modulo this number.
_SUBSETS = ("train", "summary", "eval")


class Position(NamedTuple):
  """A place in the endless stream of training scenes.

  Attributes:
    epoch: Number of whole passes before, an int64 scalar.
    offset: Number of scenes already used in this epoch, an int64 scalar.
  """

  epoch: Any = 0
  offset: Any = 0


_START = Position(epoch=0, offset=0)


@dataclasses.dataclass(eq=False)
class IODINEDataset(abc.ABC):
  """Filters, shuffles, batches and preprocesses scenes from TFRecord files.

  The files need not exist before the first batch is asked for.

  Attributes:
    path: The file, or a sequence of files that are read one after the other.
      Made absolute; "~" is expanded.
    batch_size: B.
    image_dim: (H, W) that images and masks are resized to, by bilinear and by
      nearest-neighbour interpolation.
    crop_region: ((top, bottom), (left, right)) in pixels of the stored image,
      cut out before resizing; None: the whole image.
    shuffle_buffer: Number of scenes to draw from at random, each held in
      memory as uint8; None: no shuffling.
    max_num_objects: Scenes with more foreground objects are left out; None: no
      bound. The background is no object.
    min_num_objects: Likewise for scenes with fewer.
    grayscale: Whether to replace the channels by their mean.
    reader: Replaces the package's own reader: a callable with the signature of
      that reader, or its dotted name within `multi_object_datasets` (DeepMind's
      package) or `iodine`; None: the package's own.
    seed: Of the order in training, from 0 to 2**31 - 2. None draws one at
      random; the attribute then holds what was drawn.
    skip: Number of scenes to leave out at the start, counted after the filter
      and before shuffling.
    take: Number of scenes to use after these; None: all.
    name: Of the dataset.
    num_true_objects: L.
    num_background_entities: How many of the L are background; they come first.
    num_channels: C.
    factors: {name: (dtype, n)}.
    download_url: Where the file can be had from, or None.
    synthetic_name: What `python -m iodine.synthetic` calls the dataset; None
      if it does not write it.

  Raises:
    ValueError: lists every argument of a wrong type or an impossible value.
  """

  # Without annotations these are no fields of the dataclass; some instances set
  # their own.
  num_true_objects = 1
  num_background_entities = 1
  num_channels = 3
  factors = cast("dict[str, tuple[tf.DType, int]]", {})
  download_url = cast("str | None", None)
  synthetic_name = cast("str | None", None)

  path: str | os.PathLike | Sequence[str | os.PathLike]
  _: dataclasses.KW_ONLY
  batch_size: int
  image_dim: Sequence[int]
  crop_region: Sequence[Sequence[int]] | None = None
  shuffle_buffer: int | None = 1000
  max_num_objects: int | None = None
  min_num_objects: int | None = None
  grayscale: bool = False
  reader: Reader | str | None = None
  seed: int | None = None
  skip: int = 0
  take: int | None = None
  name: str = "dataset"

  def __post_init__(self):
    faults = [fault for fault in self._faults() if fault]
    if faults:
      raise ValueError(f"{type(self).__name__}: " + "\n  ".join(faults))
    self.image_dim = tuple(self.image_dim)
    if self.crop_region is not None:
      self.crop_region = tuple(tuple(side) for side in self.crop_region)
    self._paths = _absolute_paths(self.path)
    self.path = self._paths[0] if len(self._paths) == 1 else self._paths
    if self.seed is None:
      self.seed = secrets.randbelow(_SEED_LIMIT)
    if self.grayscale:
      self.num_channels = 1
    self._read = resolve_reader(self.reader) or self._default_reader()
    self._has_scenes = False

  def __call__(self, subset: str = "train") -> tf.data.Dataset:
    """Opens the dataset, in eager mode.

    Args:
      subset: "train": shuffled anew in each epoch, repeated for ever, always
        `batch_size` scenes a batch; batches may span two epochs. "summary":
        the first `batch_size` scenes as one batch, repeated for ever. "eval":
        one pass in the order of the file; the last batch may be smaller.

    Returns:
      A dataset of batches.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if the subset is unknown, a file is not what it should be, or
        no scene is left after `min_num_objects`, `max_num_objects` and `skip`.
    """
    if subset == "train":
      return self.batches().map(lambda batch, _: batch)
    if subset not in _SUBSETS:
      raise ValueError(f"subset={subset!r}: expected one of {_SUBSETS}.")
    scenes = self._scenes()
    if subset == "eval":
      batches = scenes.batch(self.batch_size)
      return self._preprocessed(batches).prefetch(tf.data.AUTOTUNE)
    # A file of fewer scenes fills its batch by repetition.
    scenes = scenes.take(self.batch_size).repeat()
    batches = self._preprocessed(scenes.batch(self.batch_size, True))
    batch = next(iter(batches))
    return tf.data.Dataset.from_tensors(batch).repeat()

  def batches(self, position: Position = _START) -> tf.data.Dataset:
    """Opens the training stream at a given place.

    The stream depends on the files, the filter, `seed`, `shuffle_buffer` and
    `batch_size`, and on nothing else. With the same of these, starting at the
    position that came with a batch gives the batches that followed it. The
    scenes used in the epoch until then are read again and thrown away.

    Args:
      position: Where to start.

    Returns:
      A dataset of pairs: a batch, and the `Position` after it.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if the position is impossible, or as for `__call__`.
    """
    start = _check_position(position)
    scenes = self._scenes()

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
      order = self._shuffled(scenes, epoch).enumerate(start=1)
      order = order.skip(tf.where(epoch == start.epoch, start.offset, 0))
      return order.map(lambda used, scene: (scene, Position(epoch, used)))

    epochs = tf.data.Dataset.counter(start.epoch, dtype=tf.int64)
    batches = epochs.flat_map(one_epoch).batch(self.batch_size, True)
    batches = batches.map(
      lambda scenes, used: (
        self._preprocess(scenes),
        Position(used.epoch[-1], used.offset[-1]),
      ),
      num_parallel_calls=tf.data.AUTOTUNE,
    )
    return batches.prefetch(tf.data.AUTOTUNE)

  def batch_spec(self, batch_size: int | None = None) -> dict[str, Any]:
    """Describes a batch without opening a file.

    Args:
      batch_size: B; None: the dataset's own.

    Returns:
      The structure of a batch with a `tf.TensorSpec` for each tensor.
    """
    batch = self.batch_size if batch_size is None else batch_size
    entities = self.num_true_objects
    return {
      "image": tf.TensorSpec(
        [batch, 1, *self.image_dim, self.num_channels], tf.float32
      ),
      "mask": tf.TensorSpec(
        [batch, 1, entities, *self.image_dim, 1], tf.float32
      ),
      "visibility": tf.TensorSpec([batch, entities], tf.float32),
      "factors": {
        name: tf.TensorSpec([batch, entities, size], dtype)
        for name, (dtype, size) in self.factors.items()
      },
    }

  def image_batch(self, images: Any) -> dict[str, tf.Tensor]:
    """Makes a batch of one's own images, without masks and factors.

    Args:
      images: [H, W, C] or [B, H, W, C], uint8, or float in [0, 1].

    Returns:
      A batch with no entry but `image`, [B, 1, H, W, C] float32.

    Raises:
      ValueError: if the shape, the type or the range does not fit.
    """
    images = np.asarray(images)
    expected = (*self.image_dim, self.num_channels)
    if images.ndim not in (3, 4) or images.shape[-3:] != expected:
      raise ValueError(
        f"images: expected shape [H, W, C] = {list(expected)}, with or "
        f"without a batch axis before it, got {list(images.shape)}. Resize "
        "the images, and drop an alpha channel."
      )
    if images.dtype == np.uint8:
      images = images / np.float32(255.0)
    elif not np.issubdtype(images.dtype, np.floating):
      raise ValueError(
        f"images: expected uint8, or floats in [0, 1], got {images.dtype}."
      )
    # Written so that NaN fails as well.
    elif not (images.size and images.min() >= 0 and images.max() <= 1):
      raise ValueError(
        "images: expected floats in [0, 1], got values outside. Divide "
        "intensities up to 255 by 255."
      )
    images = images.reshape((-1, 1, *expected))
    return {"image": tf.convert_to_tensor(images, tf.float32)}

  @abc.abstractmethod
  def _default_reader(self) -> Reader:
    """Returns the package's own reader."""

  def _reader_args(self) -> tuple[str, ...]:
    """What a reader takes after the path."""
    return ()

  def _scene_factors(self, example: dict) -> dict[str, tf.Tensor]:
    """Returns {name: [L, n] or [L]} of what a reader gives for a scene."""
    return {name: example[name] for name in self.factors}

  def _faults(self) -> Iterator[str | None]:
    """Yields what is wrong with the arguments (and None)."""
    yield _path_fault(self.path)
    yield _int_fault("batch_size", self.batch_size, 1)
    yield _int_fault("shuffle_buffer", self.shuffle_buffer, 1, optional=True)
    yield _int_fault("skip", self.skip, 0)
    yield _int_fault("take", self.take, 1, optional=True)
    yield _int_fault("seed", self.seed, 0, _SEED_LIMIT - 1, optional=True)
    if not _is_pair(self.image_dim) or min(self.image_dim) < 1:
      yield (
        f"image_dim={self.image_dim!r}: expected (height, width), two "
        "positive integers"
      )
    if self.crop_region is not None:
      yield _crop_fault(self.crop_region)
    if not isinstance(self.grayscale, bool):
      yield f"grayscale={self.grayscale!r}: expected true or false"
    yield reader_fault(self.reader)
    yield from self._object_bound_faults()

  def _object_bound_faults(self) -> Iterator[str | None]:
    low, high = self.min_num_objects, self.max_num_objects
    most = self.num_true_objects - self.num_background_entities
    faults = (
      _int_fault("min_num_objects", low, 0, most, optional=True),
      _int_fault("max_num_objects", high, 0, optional=True),
    )
    yield from faults
    if any(faults) or low is None or high is None:
      return
    if low > high:
      yield (
        f"min_num_objects={low}, max_num_objects={high}: the minimum is "
        "above the maximum, which leaves no scene"
      )

  def _scenes(self) -> tf.data.Dataset:
    """Returns the scenes to use, as uint8 images in the order of the files."""
    self._check_files_exist()
    path = self._paths[0] if len(self._paths) == 1 else list(self._paths)
    examples = self._read(
      path, *self._reader_args(), map_parallel_calls=tf.data.AUTOTUNE
    )
    self._check_examples(examples.element_spec)
    if self.min_num_objects is not None or self.max_num_objects is not None:
      examples = examples.filter(self._has_wanted_objects)
    examples = examples.skip(self.skip)
    if self.take is not None:
      examples = examples.take(self.take)
    if not self._has_scenes:
      self._check_first_scene(examples)
      self._has_scenes = True
    return examples.map(self._scene, num_parallel_calls=tf.data.AUTOTUNE)

  def _shuffled(
    self, scenes: tf.data.Dataset, epoch: tf.Tensor
  ) -> tf.data.Dataset:
    """Shuffles in an order that (seed, epoch) determine; for use in a graph."""
    if self.shuffle_buffer is None:
      return scenes
    # TensorFlow pairs the seed of an operation with that of its graph. Setting
    # the latter here, for the graph of this epoch only, keeps the program's
    # global seed from changing the order.
    # TensorFlow treats the seed 0 apart, which fails beside a tensor.
    tf.random.set_seed(1 + (self.seed or 0))
    return scenes.shuffle(
      self.shuffle_buffer, seed=epoch, reshuffle_each_iteration=False
    )

  def _has_wanted_objects(self, example: dict) -> tf.Tensor:
    visible = tf.reduce_sum(self._visibility(example))
    count = tf.cast(tf.round(visible), tf.int32) - self.num_background_entities
    low = 0 if self.min_num_objects is None else self.min_num_objects
    high = (
      self.num_true_objects
      if self.max_num_objects is None
      else self.max_num_objects
    )
    return tf.logical_and(count >= low, count <= high)

  def _visibility(self, example: dict) -> tf.Tensor:
    """Returns [L] float32, made from the masks where a file has none."""
    if "visibility" in example:
      return example["visibility"]
    visible = tf.reduce_any(example["mask"] > 0, axis=[1, 2, 3])
    is_background = (
      np.arange(self.num_true_objects) < self.num_background_entities
    )
    return tf.cast(visible | is_background, tf.float32)

  def _scene(self, example: dict) -> dict[str, Any]:
    """Does what keeps a scene uint8, so that the shuffle buffer is small."""
    image, mask = example["image"], example["mask"]
    if self.crop_region is not None:
      rows, columns = (slice(*side) for side in self.crop_region)
      image, mask = image[rows, columns], mask[:, rows, columns]
    factors = self._scene_factors(example)
    return {
      "image": image,
      "mask": _resize(mask, self.image_dim, "nearest"),
      "visibility": self._visibility(example),
      "factors": {
        name: factor if factor.shape.rank == 2 else factor[:, tf.newaxis]
        for name, factor in factors.items()
      },
    }

  def _preprocess(self, scenes: dict[str, Any]) -> dict[str, Any]:
    """Turns a batch of uint8 scenes into floats of the final size."""
    image = tf.cast(scenes["image"], tf.float32) / 255.0
    image = _resize(image, self.image_dim, "bilinear")
    if self.grayscale:
      image = tf.reduce_mean(image, axis=-1, keepdims=True)
    mask = tf.cast(scenes["mask"], tf.float32) / 255.0
    return {
      **scenes,
      "image": image[:, tf.newaxis],
      "mask": mask[:, tf.newaxis],
    }

  def _preprocessed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
    return batches.map(self._preprocess, num_parallel_calls=tf.data.AUTOTUNE)

  def _check_files_exist(self) -> None:
    missing = [p for p in self._paths if not tf.io.gfile.exists(p)]
    if not missing:
      return
    lines = [f"{type(self).__name__}: there is no file {missing[0]}."]
    if len(missing) > 1:
      lines[0] += f" ({len(missing) - 1} more are missing.)"
    if self.download_url:
      lines.append(f"Download it from {self.download_url}")
    if self.synthetic_name:
      lines.append(
        f"Generate one: python -m iodine.synthetic {self.synthetic_name} "
        f"--scenes 10000 --seed 0 --output {shlex.quote(missing[0])}"
      )
    raise FileNotFoundError("\n  ".join(lines))

  def _check_examples(self, spec: dict[str, tf.TensorSpec]) -> None:
    """Raises ValueError if a reader's scenes are not what is expected."""
    absent = {"image", "mask"} - set(spec)
    if absent:
      raise ValueError(
        f"{type(self).__name__}: the reader gives no {sorted(absent)}, only "
        f"{sorted(spec)}."
      )
    height, width, channels = spec["image"].shape
    if spec["mask"].shape[0] != self.num_true_objects:
      raise ValueError(
        f"{type(self).__name__}: expected {self.num_true_objects} masks a "
        f"scene, the reader gives masks of shape {spec['mask'].shape}."
      )
    if not self.grayscale and channels != self.num_channels:
      raise ValueError(
        f"{type(self).__name__}: expected {self.num_channels} channels, the "
        f"reader gives images of shape {spec['image'].shape}."
      )
    if self.crop_region is not None:
      (_, bottom), (_, right) = self.crop_region
      if bottom > height or right > width:
        raise ValueError(
          f"{type(self).__name__}: crop_region={self.crop_region} reaches "
          f"beyond the stored image of {height} rows and {width} columns."
        )

  def _check_first_scene(self, examples: tf.data.Dataset) -> None:
    """Raises ValueError if there is no scene or it cannot be read.

    An endless repetition of nothing would never return.
    """
    where = f"{type(self).__name__}: {', '.join(self._paths)}"
    try:
      found = any(True for _ in examples.take(1))
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
      reason = error.message.splitlines()[0]
      raise ValueError(
        f"{where} cannot be read: {reason}\n  The file is damaged, or of "
        "another dataset or variant."
      ) from None
    if not found:
      raise ValueError(
        f"{where} has no scene left with "
        f"min_num_objects={self.min_num_objects}, "
        f"max_num_objects={self.max_num_objects} (the background does not "
        f"count) and skip={self.skip}. Relax these."
      )


def _resize(images: tf.Tensor, size: Sequence[int], method: str) -> tf.Tensor:
  """Resizes [N, h, w, C] in the way of TensorFlow 1.

  Output pixel i samples the input at i * h / H. (`tf.image.resize` samples at
  (i + 0.5) * h / H - 0.5, which shifts the image by up to half a pixel.)
  """
  if tuple(images.shape[1:3]) == tuple(size):
    return images
  resize = (
    tf.raw_ops.ResizeNearestNeighbor
    if method == "nearest"
    else tf.raw_ops.ResizeBilinear
  )
  return resize(
    images=images,
    size=list(size),
    align_corners=False,
    half_pixel_centers=False,
  )


def _absolute_paths(path: Any) -> tuple[str, ...]:
  """Expands "~" and makes paths absolute; a URL ("gs://...") stays as it is."""
  paths = [path] if isinstance(path, str | os.PathLike) else path
  return tuple(
    os.fspath(part)
    if "://" in os.fspath(part)
    else os.path.abspath(os.path.expanduser(part))
    for part in paths
  )


def _check_position(position: Any) -> Position:
  try:
    epoch, offset = (operator.index(count) for count in position)
    valid = epoch >= 0 and offset >= 0
  except (TypeError, ValueError):
    valid = False
  if not valid:
    raise ValueError(
      f"position={position!r}: expected a Position of two integers of at "
      "least 0, epoch and offset."
    )
  return Position(tf.constant(epoch, tf.int64), tf.constant(offset, tf.int64))


def _is_int(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
  return (
    isinstance(value, Sequence) and len(value) == 2 and all(map(_is_int, value))
  )


def _int_fault(
  name: str,
  value: Any,
  low: int,
  high: int | None = None,
  optional: bool = False,
) -> str | None:
  if value is None and optional:
    return None
  if _is_int(value) and value >= low and (high is None or value <= high):
    return None
  bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
  alternative = " or null" if optional else ""
  return f"{name}={value!r}: expected an integer {bounds}{alternative}"


def _path_fault(path: Any) -> str | None:
  paths = [path] if isinstance(path, (str, os.PathLike)) else path
  if (
    isinstance(paths, Sequence)
    and paths
    and all(isinstance(p, (str, os.PathLike)) and os.fspath(p) for p in paths)
  ):
    return None
  return f"path={path!r}: expected a file name or a list of file names"


def _crop_fault(region: Any) -> str | None:
  if (
    isinstance(region, Sequence)
    and len(region) == 2
    and all(_is_pair(side) and 0 <= side[0] < side[1] for side in region)
  ):
    return None
  return (
    f"crop_region={region!r}: expected ((top, bottom), (left, right)) in "
    "pixels, with 0 <= top < bottom and 0 <= left < right, or null"
  )
