"""The base of all input pipelines: filter, preprocess, cache, shuffle, batch.

Dimensions: B batch, T frames, L true entities, H height, W width, C channels,
n size of a factor.

A batch is a dict:
  image: [B, T, H, W, C] float32 in [0, 1]; T is 1 except for videos.
  mask: [B, T, L, H, W, 1] uint8 in {0, 1}, background entities first.
  visibility: [B, L] float32, 1 for background and present entities, else 0.
  factors: {name: [B, L, n]}, the generative factors.
  modified: [B, L] float32, 1 for objects that a shift has modified, else 0;
    only with a shift that modifies objects.
Without masks, `image` is the only entry.

(reference: modules/data.py)
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tensorflow as tf

from iodine import checks
from iodine.data import preprocessing, stream
from iodine.data.cache import SceneCache
from iodine.data.scenes import StoredScenes
from iodine.data.stream import Position
from iodine.tfrecords import inspection

__all__ = ["IODINEDataset", "NoSceneError", "Position"]

_LOG = logging.getLogger(__name__)

_SEED_LIMIT = 2**31 - 1  # TensorFlow reduces seeds modulo this number.
# TensorFlow makes room for a shuffle buffer's scenes as it begins to read.
_MOST_BUFFER = 10_000_000
_SUBSETS = ("train", "summary", "eval")
# Options that do not change a scene.
_NOT_IN_CACHE_KEY = (
  "batch_size",
  "shuffle_buffer",
  "seed",
  "skip",
  "take",
  "cache_dir",
  "verify",
  "name",
)
# Cache keys use the modules that classes were in when caches were introduced.
_CACHED_AS = {
  "iodine.data.datasets": "iodine.modules.data",
  "iodine.data.hdf5": "iodine.modules.hdf5",
  "iodine.data.image_folder": "iodine.modules.image_folder",
  "iodine.data.shapes3d": "iodine.modules.data",
}


class NoSceneError(ValueError):
  """No scene is left after filter and `skip`."""


_Dataset = TypeVar("_Dataset", bound="IODINEDataset")


@dataclasses.dataclass(eq=False, kw_only=True)
class IODINEDataset(StoredScenes):
  """Filters, shuffles, batches and preprocesses scenes.

  Your own dataset is a subclass with a method `examples` and the class
  attributes that describe its scenes:

  ```
  class Clips(IODINEDataset):
    num_true_objects = None  # no masks
    num_frames = 10

    def examples(self):  # {"image": [10, 96, 96, 3] uint8}
      clips = tfds.load("clips", split="train")
      return clips.map(lambda clip: {"image": clip["video"][:10]})

  dataset = Clips(batch_size=4, image_dim=(64, 64))
  ```

  Attributes:
    batch_size: B.
    image_dim: (H, W) after resizing: bilinear for images, nearest-neighbour for
      masks.
    crop_region: ((top, bottom), (left, right)) in stored pixels, cropped before
      resizing; None: the whole image.
    shuffle_buffer: number of preprocessed scenes in the shuffle buffer, held in
      memory; None: no shuffling.
    max_num_objects: most foreground objects of a scene; None: no limit.
    min_num_objects: fewest foreground objects of a scene; None: no limit.
    grayscale: whether to replace the channels by their mean.
    shift: a distribution shift: a name of `shifts.SHIFTS`, a mapping of `name`
      and options, or a `shifts.Shift`; None: none.
    half_pixel_centers: whether resizing samples pixels at their centres, as
      Slot Attention's published code does, or like TensorFlow 1; see
      `preprocessing.resize`.
    seed: seed of the training order, from 0 to 2**31 - 2; None: drawn at random
      and stored here.
    skip: number of scenes to skip, after filtering and before shuffling.
    take: number of scenes to use after these; None: all.
    cache_dir: folder for preprocessed scenes, each the size of `batch_spec`;
      None: no cache. The first training run writes them; later runs with the
      same files and options read them, shuffled across the whole file.
    verify: whether a training run reads every byte of the files when it starts,
      to compare them when it is continued, and not samples alone.
    name: name of the dataset, which files and folders get.
    num_true_objects: L; None: no masks.
    num_background_entities: how many of the L entities are background.
    num_channels: C.
    num_frames: T.
    factors: {name: (dtype, n)}.
    occluder_gray: of the shift "occlusion", in [0, 1].

  Raises:
    ValueError: lists every argument of a wrong type or an impossible value.
  """

  batch_size: int
  shuffle_buffer: int | None = 1000
  seed: int | None = None
  skip: int = 0
  take: int | None = None
  cache_dir: str | None = None
  verify: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.seed is None:
      self.seed = secrets.randbelow(_SEED_LIMIT)
    self._has_scenes = False

  def variant(self: _Dataset, **options: Any) -> _Dataset:
    """Returns a copy with other options; files are not opened again.

    Args:
      **options: batch_size, shuffle_buffer, seed, skip, take, cache_dir,
        verify or name, the options that do not change a scene.

    Raises:
      ValueError: if an option would change a scene.
    """
    if unknown := sorted(options.keys() - set(_NOT_IN_CACHE_KEY)):
      raise ValueError(f"{unknown}: expected some of {_NOT_IN_CACHE_KEY}")
    other = copy.copy(self)
    for name, value in options.items():
      setattr(other, name, value)
    other._has_scenes = False
    return other

  def with_stored_masks(self: _Dataset) -> _Dataset:
    """Returns a copy whose masks are cropped, but not resized. Opens the files.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is invalid.
    """
    other = self.variant(cache_dir=None)
    if self.num_true_objects is not None:
      _, spec = self._checked_examples().element_spec
      other._mask_dim = preprocessing.cropped_size(
        spec["mask"].shape[-3:-1], self.remaining_crop()
      )
    return other

  def __call__(self, subset: str = "train") -> tf.data.Dataset:
    """Opens the dataset, in eager mode.

    Args:
      subset: "train": endless full batches, reshuffled each epoch; a batch may
        span two epochs. "summary": the first `batch_size` scenes as one batch,
        repeated endlessly. "eval": one pass in file order; the last batch may
        be smaller.

    Returns:
      A dataset of batches.

    Raises:
      FileNotFoundError: if a file does not exist.
      NoSceneError: if no scene is left after filter and `skip`.
      ValueError: if the subset is unknown or a file is invalid.
    """
    if subset == "train":
      return self.batches().map(lambda batch, _: batch)
    if subset not in _SUBSETS:
      raise ValueError(f"subset={subset!r}: expected one of {_SUBSETS}.")
    scenes = self._scenes()
    if subset == "eval":
      return scenes.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)
    # Too few scenes are repeated to fill the batch.
    scenes = scenes.take(self.batch_size).repeat()
    batch = next(iter(scenes.batch(self.batch_size, drop_remainder=True)))
    return tf.data.Dataset.from_tensors(batch).repeat()

  def batches(self, position: Position = stream.START) -> tf.data.Dataset:
    """Opens the training stream at a given position.

    The stream depends only on the files, the filter, `seed`, `shuffle_buffer`,
    `batch_size` and whether there is a `cache_dir`. With these unchanged, it
    resumes exactly after the batch that a position came with; scenes already
    used in that epoch are re-read and skipped.

    Args:
      position: where to start.

    Returns:
      A dataset of pairs: a batch, and the `Position` after it.

    Raises:
      FileNotFoundError: if a file does not exist.
      OSError: if the cache cannot be written.
      ValueError: if the position is impossible, or as in `__call__`.
    """
    start = stream.check_position(position)
    self.build_cache()
    order, to_scene = self._training_order()
    return stream.batches(order, to_scene, self.batch_size, start)

  def build_cache(
    self, on_progress: Callable[[int], object] = lambda num_read: None
  ) -> None:
    """Writes all preprocessed scenes to `cache_dir`, unless they are there.

    Args:
      on_progress: called with the number of scenes read, before the filter.

    Raises:
      FileNotFoundError: if a file does not exist.
      OSError: if the cache cannot be written; nothing is left behind.
      ValueError: if a file is invalid.
    """
    if self.cache_dir is None:
      return
    cache = self._cache()
    if cache.num_scenes() is not None:
      return
    examples = self._checked_examples()
    self._check_first_scene(examples.map(lambda _, example: example))
    _LOG.info("Writing preprocessed scenes to %s", cache.path)
    cache.write(
      examples.map(
        lambda place, example: (place, self._scene(example)),
        num_parallel_calls=tf.data.AUTOTUNE,
      ),
      on_progress,
    )
    _LOG.info("Wrote %s scenes", cache.num_scenes())

  def batch_spec(self, batch_size: int | None = None) -> dict[str, Any]:
    """Returns a `tf.TensorSpec` for each tensor of a batch.

    Args:
      batch_size: B; None: the dataset's own.
    """
    batch = self.batch_size if batch_size is None else batch_size
    scene = self._scene_spec()
    if self._shift is not None:
      scene = self._shift.shifted_spec(scene)
    return tf.nest.map_structure(
      lambda spec: tf.TensorSpec([batch, *spec.shape], spec.dtype), scene
    )

  def image_batch(self, images: Any) -> dict[str, tf.Tensor]:
    """Makes a batch of your own images, without masks and factors.

    Args:
      images: [H, W, C] or [B, H, W, C], uint8, or float in [0, 1].

    Returns:
      A batch with one entry, `image`: [B, 1, H, W, C] float32.

    Raises:
      ValueError: if the shape, dtype or range is wrong.
    """
    shape = (*self.image_dim, self.num_channels)
    return {"image": preprocessing.convert_images(images, shape)}

  def _faults(self) -> Iterator[str | None]:
    int_fault = checks.int_fault
    yield checks.size_fault(
      "batch_size", self.batch_size, most=checks.MOST_BATCH
    )
    yield checks.size_fault(
      "shuffle_buffer", self.shuffle_buffer, 1, _MOST_BUFFER, optional=True
    )
    yield int_fault("skip", self.skip, 0)
    yield int_fault("take", self.take, 1, optional=True)
    yield int_fault("seed", self.seed, 0, _SEED_LIMIT - 1, optional=True)
    yield from super()._faults()
    yield checks.flag_fault("verify", self.verify)
    yield checks.path_fault("cache_dir", self.cache_dir, optional=True)

  def _cache(self) -> SceneCache:
    options = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in _NOT_IN_CACHE_KEY
    }
    if not self.half_pixel_centers:  # as in caches of before there was a choice
      options.pop("half_pixel_centers")
    # Scenes are shifted as they are read from the cache, most often.
    options.pop("shift")
    self.check_shift()
    if self._shift is not None:
      if (change := self._shift.cache_key(self)) is not None:
        options["shift"] = change
    cls = type(self)
    module = _CACHED_AS.get(cls.__module__, cls.__module__)
    key = {
      "dataset": f"{module}.{cls.__qualname__}",
      "options": {name: repr(value) for name, value in options.items()},
      "source": self._source(),
    }
    assert self.cache_dir is not None
    return SceneCache(self.cache_dir, self.name, self._scene_spec(), key)

  def has_scenes(self) -> bool:
    """Whether a scene is left after filter and `skip`. Opens the files.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is invalid.
    """
    try:
      self._scenes()
    except NoSceneError:
      return False
    return True

  def num_before(self, other: IODINEDataset, most: int) -> int:
    """How many of its first scenes come before any that `other` has, too.

    Opens the files.

    Args:
      other: scenes of the same files, with another filter or `skip`; at least
        one.
      most: where to stop.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is invalid.
    """
    start, _ = next(iter(other._checked_examples().skip(other.skip)))

    def is_own(place: tf.Tensor, example: dict) -> tf.Tensor:
      return (place < start) | ~other.has_wanted_objects(example)

    scenes = self._checked_examples().skip(self.skip).take(most)
    own = scenes.take_while(is_own).map(lambda place, _: place)
    return sum(1 for _ in own)

  def _scenes(self) -> tf.data.Dataset:
    """Opens the preprocessed scenes to use, in file order."""
    if self.cache_dir is not None:
      cache = self._cache()
      if cache.num_scenes() is not None:
        self._check_cache(cache)
        return cache.read(self.skip, self.take).map(
          lambda number, record: self._shifted(number, cache.unpack(record)),
          num_parallel_calls=tf.data.AUTOTUNE,
        )
    examples = self._checked_examples().map(lambda _, example: example)
    examples = examples.enumerate().skip(self.skip)
    if self.take is not None:
      examples = examples.take(self.take)
    if not self._has_scenes:
      self._check_first_scene(examples)
      self._has_scenes = True
    return examples.map(
      lambda number, example: self._shifted(number, self._scene(example)),
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  def _training_order(self) -> tuple[Callable, Callable]:
    """Returns (epoch -> its scenes in some form, that form -> scene).

    Both are for use in a graph. Cached scenes are shuffled in packed form, so
    skipped ones are never unpacked.
    """
    seed, buffer = self.seed or 0, self.shuffle_buffer
    if self.cache_dir is None:
      scenes = self._scenes()
      return (
        lambda epoch: stream.shuffled(scenes, epoch, seed, buffer),
        lambda scene: scene,
      )
    cache = self._cache()
    self._check_cache(cache)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
      if buffer is None:
        return cache.read(self.skip, self.take)
      stream.set_graph_seed(seed)
      # Not the seed of the other shuffle, or the two would correlate.
      records = cache.read_mixed(self.skip, self.take, -1 - epoch)
      return stream.shuffled(records, epoch, seed, buffer)

    return order, lambda scene: self._shifted(scene[0], cache.unpack(scene[1]))

  def _check_first_scene(self, examples: tf.data.Dataset) -> None:
    """Raises ValueError if there is no scene or it cannot be read.

    Repeating an empty dataset would never return.
    """
    try:
      found = any(True for _ in examples.take(1))
    except inspection.READ_ERRORS as error:
      raise ValueError(inspection.explain(error, str(self))) from None
    if not found:
      raise NoSceneError(self._no_scene_left())

  def _check_cache(self, cache: SceneCache) -> None:
    """Raises ValueError if `skip` leaves no scene of it."""
    if (cache.num_scenes() or 0) <= self.skip:
      raise NoSceneError(self._no_scene_left())

  def _no_scene_left(self) -> str:
    shift = "" if self._shift is None else f", shift={self._shift}"
    return (
      f"{self} has no scene left with "
      f"min_num_objects={self.min_num_objects}, "
      f"max_num_objects={self.max_num_objects} (the background does not "
      f"count){shift} and skip={self.skip}. Relax these."
    )
