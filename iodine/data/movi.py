"""MOVi: Kubric's videos of objects, as TensorFlow Datasets stores them.

Dimensions: T frames, L true entities, k instances of a video, h and w height
and width.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from iodine import checks
from iodine.data import preprocessing
from iodine.data.pipeline import IODINEDataset

__all__ = ["MOVi"]

_NUM_FRAMES = 24  # of each video
_LEVELS = ("a", "b", "c", "d", "e", "f")
_RESOLUTIONS = (128, 256, 512)
_SPLITS = ("train", "validation", "test")
# The background, and up to ten objects, or twenty that lie and three that move.
_NUM_ENTITIES = {"a": 11, "b": 11, "c": 11, "d": 24, "e": 24, "f": 24}
_EACH = "each"
_SCENE_FEATURES = ("video", "segmentations", "instances")
# {factor: (feature of an instance, its dtype, n)}
_POSITION = {"position": ("image_positions", tf.float32, 2)}
_MOVI_A = {
  "color": ("color", tf.float32, 3),
  "shape": ("shape_label", tf.uint8, 1),
  "size": ("size_label", tf.uint8, 1),
  "material": ("material_label", tf.uint8, 1),
}


@dataclasses.dataclass(eq=False, kw_only=True)
class MOVi(IODINEDataset):
  """MOVi-A to -F (Greff et al. 2022, "Kubric"): videos of 24 frames.

  Needs the package tensorflow-datasets, and the files of a level at one
  resolution, as `path`/movi_a/128x128/1.0.0. Of each video, it reads `video`
  [24, h, w, 3] uint8, `segmentations` [24, h, w, 1] uint8, where 0 is the
  background and instance i has the value i + 1, and some of `instances`, which
  are as many as a video has and are padded to L.

  Factors, 0 for entities that there are not: position is `image_positions` of
  the (first) frame, (x, y) in [0, 1]; for level a also color (red, green, blue)
  and shape, size and material, labels counted from 1.

  Attributes:
    path: folder of TensorFlow Datasets that holds `movi_a` and the like, made
      absolute; "~" is expanded. It may be a URL, such as
      "gs://kubric-public/tfds", but long reads from there break: copy it first.
    level: "a" to "f".
    resolution: rows and columns of the stored videos, 128 or 256; for level f
      also 512.
    split: "train", "validation" or, for levels c to e, "test".
    num_frames: T, how many leading frames of a video to use. A sequential model
      needs one more than its refinement steps. 1 with `frame`.
    frame: makes images of the videos: the number of the frame to use, counted
      from 0, or "each" for all frames in turn, each a scene. None: videos.
  """

  path: str | os.PathLike
  level: str = "a"
  resolution: int = 128
  split: str = "train"
  num_frames: int = _NUM_FRAMES  # type: ignore[misc]
  frame: int | str | None = None
  image_dim: Sequence[int] = (128, 128)
  shuffle_buffer: int | None = 100
  name: str = "movi"

  def __post_init__(self):
    super().__post_init__()
    path = os.fspath(self.path)
    if "://" not in path:
      path = os.path.abspath(os.path.expanduser(path))
    self.path = path
    self.num_true_objects = _NUM_ENTITIES[self.level]
    if self.frame is not None:
      self.num_frames = 1
    self._features = {**_POSITION, **(_MOVI_A if self.level == "a" else {})}
    self.factors = {
      name: (dtype, size) for name, (_, dtype, size) in self._features.items()
    }

  def examples(self) -> tf.data.Dataset:
    """Opens the files; see `IODINEDataset.examples`."""
    tfds = _tfds()
    instances = {feature for feature, _, _ in self._features.values()}
    videos = self._builder.as_dataset(
      split=self.split,
      shuffle_files=False,
      decoders=tfds.decode.PartialDecoding(
        {"video": True, "segmentations": True, "instances": instances}
      ),
      read_config=tfds.ReadConfig(
        try_autocache=False, interleave_cycle_length=1
      ),
    )
    if self.frame == _EACH:
      frames = tf.data.Dataset.range(_NUM_FRAMES)
      return videos.flat_map(
        lambda video: frames.map(
          lambda frame: self._scene_of(video, tf.range(frame, frame + 1))
        )
      )
    first = int(self.frame or 0)
    chosen = tf.range(first, first + self.num_frames, dtype=tf.int64)
    return videos.map(
      lambda video: self._scene_of(video, chosen),
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  def stored_files(self) -> list[str]:
    """The files of the split.

    Raises:
      ValueError: see `examples`.
    """
    return [str(path) for path in self._split_info.filepaths]

  def estimated_num_examples(self) -> int:
    """The number of videos, or of images."""
    count = self._split_info.num_examples
    return count * _NUM_FRAMES if self.frame == _EACH else count

  @functools.cached_property
  def _split_info(self) -> Any:
    return self._builder.info.splits[self.split]

  @functools.cached_property
  def _builder(self) -> Any:
    """Opens the folder; raises FileNotFoundError or ValueError."""
    tfds = _tfds()
    folder = self._folder()
    try:
      builder = tfds.builder_from_directory(folder)
    except Exception as error:  # whatever that package raises
      reason = str(error).strip().splitlines() or [type(error).__name__]
      raise ValueError(
        f"MOVi: {folder} cannot be read ({reason[0]}). Copy it again."
      ) from None
    self._check(builder, folder)
    return builder

  def _folder(self) -> str:
    """The folder of the newest version."""
    name = f"movi_{self.level}/{self.resolution}x{self.resolution}"
    folder = f"{self.path}/{name}"
    found = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    names = [name.rstrip("/") for name in found]  # as a URL's end
    versions = [x for x in names if x.replace(".", "").isdigit()]
    if not versions:
      raise FileNotFoundError(
        f"MOVi: there is no folder {folder} of TensorFlow Datasets. Copy it, "
        f"as in: gsutil -m cp -r gs://kubric-public/tfds/{name} "
        f"{self.path}/movi_{self.level}"
      )
    newest = max(versions, key=lambda name: [int(x) for x in name.split(".")])
    return f"{folder}/{newest}"

  def _check(self, builder: Any, folder: str) -> None:
    """Raises ValueError unless the split and the features are there."""
    if self.split not in builder.info.splits:
      raise ValueError(
        f"MOVi: {folder} has no split={self.split!r}; there is: "
        f"{', '.join(builder.info.splits) or 'nothing'}."
      )
    features = builder.info.features
    missing = [x for x in _SCENE_FEATURES if x not in features]
    if not missing:
      instances = features["instances"].feature
      names = [feature for feature, _, _ in self._features.values()]
      missing = [f"instances/{x}" for x in names if x not in instances]
    if missing:
      raise ValueError(
        f"MOVi: {folder} has no {', '.join(missing)}; it is not of MOVi-"
        f"{self.level.upper()}."
      )
    shape = features["video"].shape
    side = self.resolution
    if tuple(shape) != (_NUM_FRAMES, side, side, 3):
      raise ValueError(
        f"MOVi: {folder} has videos of the shape {tuple(shape)}; expected "
        f"{(_NUM_FRAMES, side, side, 3)}."
      )

  def _scene_of(self, video: dict, frames: tf.Tensor) -> dict[str, Any]:
    """Makes a scene of the frames of a video; for use in a graph."""
    side, entities = self.resolution, self.num_true_objects or 0
    video = self._checked(video)
    image = tf.gather(video["video"], frames)
    labels = tf.gather(video["segmentations"], frames)[..., 0]
    mask = preprocessing.masks_of_labels(labels, entities)
    shape = [self.num_frames, entities, side, side, 1]
    return {
      "image": tf.ensure_shape(image, [self.num_frames, side, side, 3]),
      "mask": tf.ensure_shape(mask, shape),
      "factors": {
        name: self._factor(name, video["instances"], frames[0])
        for name in self._features
      },
    }

  def _checked(self, video: dict) -> dict:
    """Has reading fail if there are more instances than a level has."""
    most = (self.num_true_objects or 0) - 1
    count = tf.shape(video["instances"]["image_positions"])[0]
    count = tf.maximum(
      count, tf.cast(tf.reduce_max(video["segmentations"]), tf.int32)
    )
    message = (
      f"a video has more than {most} instances, the most of movi_{self.level}"
    )
    fits = tf.debugging.assert_less_equal(count, most, message=message)
    with tf.control_dependencies([fits]):
      return tf.nest.map_structure(tf.identity, video)

  def _factor(self, name: str, instances: dict, frame: tf.Tensor) -> tf.Tensor:
    """A factor of all entities, [L, n], 0 for the background and padding."""
    feature, dtype, size = self._features[name]
    values = instances[feature]
    if name in _POSITION:
      values = values[:, frame]  # of [k, 24, 2]
    elif dtype == tf.uint8:
      values += 1  # 0 is no object
    values = tf.reshape(tf.cast(values, dtype), [-1, size])
    entities = self.num_true_objects or 0
    padding = [[1, entities - 1 - tf.shape(values)[0]], [0, 0]]
    return tf.ensure_shape(tf.pad(values, padding), [entities, size])

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path)
    yield from super()._faults()
    yield checks.choice_fault("level", self.level, _LEVELS)
    yield checks.choice_fault("resolution", self.resolution, _RESOLUTIONS)
    yield checks.choice_fault("split", self.split, _SPLITS)
    yield checks.int_fault("num_frames", self.num_frames, 1, _NUM_FRAMES)
    if self.frame != _EACH:
      yield checks.int_fault(
        "frame", self.frame, 0, _NUM_FRAMES - 1, optional=True
      )

  def _most_objects(self) -> int | None:
    return _NUM_ENTITIES.get(str(self.level), 1) - 1

  def _source(self) -> Any:
    return [
      [path, stat.length, stat.mtime_nsec]
      for path in self.stored_files()
      for stat in [tf.io.gfile.stat(path)]
    ]

  def __str__(self) -> str:
    return f"MOVi: {self.path}, movi_{self.level}, {self.split}"


def _tfds() -> Any:
  try:
    import tensorflow_datasets
  except ModuleNotFoundError:
    raise ValueError(
      "MOVi: needs the package tensorflow-datasets, which the extra `movi` "
      "installs (in a checkout: pip install '.[movi]')."
    ) from None
  return tensorflow_datasets
