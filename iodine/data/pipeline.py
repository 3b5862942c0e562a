"""The base of all input pipelines: filter, cache, shuffle, batch, preprocess.

Dimensions: B batch, T frames, L true entities, H height, W width, C channels,
n size of a factor.

A batch is a dict:
  image: [B, T, H, W, C] float32 in [0, 1]; T is 1 but for videos.
  mask: [B, T, L, H, W, 1] uint8 in {0, 1}; the background entities come first.
  visibility: [B, L] float32 in {0, 1}, 1 for entities that are present, the
    background included.
  factors: {name: [B, L, n]}, the generative factors.
All but `image` are left out where a dataset has no masks.

(reference: modules/data.py)
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import tensorflow as tf

from iodine import checks
from iodine.data import preprocessing, stream
from iodine.data.cache import SceneCache
from iodine.data.stream import Position
from iodine.tfrecords import inspection

__all__ = ["IODINEDataset", "NoSceneError", "Position"]

_LOG = logging.getLogger(__name__)

_SEED_LIMIT = 2**31 - 1  # TensorFlow takes seeds modulo this number.
_SUBSETS = ("train", "summary", "eval")
# Options that do not change a scene.
_NOT_IN_CACHE_KEY = (
  "batch_size",
  "shuffle_buffer",
  "seed",
  "skip",
  "take",
  "cache_dir",
  "name",
)
# A cache's key holds the module that a class had when caches were introduced.
_CACHED_AS = {
  "iodine.data.datasets": "iodine.modules.data",
  "iodine.data.hdf5": "iodine.modules.hdf5",
  "iodine.data.image_folder": "iodine.modules.image_folder",
}


class NoSceneError(ValueError):
  """The filter and `skip` leave no scene."""


_Dataset = TypeVar("_Dataset", bound="IODINEDataset")


@dataclasses.dataclass(eq=False, kw_only=True)
class IODINEDataset(abc.ABC):
  """Filters, shuffles, batches and preprocesses scenes.

  A dataset of one's own is a subclass with one method, `examples`, and the
  class attributes that say what it gives:

  ```
  class Clips(IODINEDataset):
    num_true_objects = None  # it has no masks
    num_frames = 10

    def examples(self):  # of {"image": [10, 96, 96, 3] uint8}
      clips = tfds.load("clips", split="train")
      return clips.map(lambda clip: {"image": clip["video"][:10]})

  dataset = Clips(batch_size=4, image_dim=(64, 64))
  ```

  Attributes:
    batch_size: B.
    image_dim: (H, W) that images and masks are resized to, by bilinear and by
      nearest-neighbour interpolation.
    crop_region: ((top, bottom), (left, right)) in pixels of the stored image,
      cut out before resizing; None: the whole image.
    shuffle_buffer: Number of scenes to draw from at random, each held in
      memory as it is in a batch; None: no shuffling.
    max_num_objects: Scenes with more foreground objects are left out; None: no
      bound. The background is no object.
    min_num_objects: Likewise for scenes with fewer.
    grayscale: Whether to replace the channels by their mean.
    seed: Of the order in training, from 0 to 2**31 - 2. None draws one at
      random; the attribute then holds what was drawn.
    skip: Number of scenes to leave out at the start, counted after the filter
      and before shuffling.
    take: Number of scenes to use after these; None: all.
    cache_dir: Folder for preprocessed scenes, which take the size of
      `batch_spec` each; None: no cache. The first training writes them all;
      later ones, with the same files and options, read them, in an order that
      mixes the whole file.
    name: Of the dataset.
    num_true_objects: L; None: there are no masks.
    num_background_entities: How many of the L are background; they come first.
    num_channels: C.
    num_frames: T.
    factors: {name: (dtype, n)}.

  Raises:
    ValueError: lists every argument of a wrong type or an impossible value.
  """

  # Without annotations these are no fields of the dataclass; some instances set
  # their own.
  num_true_objects = cast("int | None", 1)
  num_background_entities = 1
  num_channels = 3
  num_frames = 1
  factors = cast("dict[str, tuple[tf.DType, int]]", {})

  batch_size: int
  image_dim: Sequence[int]
  crop_region: Sequence[Sequence[int]] | None = None
  shuffle_buffer: int | None = 1000
  max_num_objects: int | None = None
  min_num_objects: int | None = None
  grayscale: bool = False
  seed: int | None = None
  skip: int = 0
  take: int | None = None
  cache_dir: str | None = None
  name: str = "dataset"

  def __post_init__(self):
    faults = [fault for fault in self._faults() if fault]
    if faults:
      raise ValueError(f"{type(self).__name__}: " + "\n  ".join(faults))
    self.image_dim = tuple(self.image_dim)
    if self.crop_region is not None:
      self.crop_region = tuple(tuple(side) for side in self.crop_region)
    if self.seed is None:
      self.seed = secrets.randbelow(_SEED_LIMIT)
    if self.grayscale:
      self.num_channels = 1
    self._numbered: tf.data.Dataset | None = None
    self._has_scenes = False

  @abc.abstractmethod
  def examples(self) -> tf.data.Dataset:
    """Opens the scenes as they are stored.

    Returns:
      An unbatched dataset of dicts:
        image: [h, w, C] or [T, h, w, C] uint8, of static shape.
        mask: [L, h, w, 1] or [T, L, h, w, 1] uint8, 255 where an entity owns
          the pixel, else 0, background first; absent if `num_true_objects` is
          None.
        visibility: [L] float32, optional; else an entity is present if it owns
          a pixel, and the background always is.
        factors: {name: [L] or [L, n]}, for the names in `factors`; absent if
          there are none.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is not what it should be.
    """

  def estimated_num_examples(self) -> int | None:
    """About how many scenes are stored; None: unknown. Opens the files."""
    return None

  def prepare(self) -> None:  # noqa: B027
    """Makes missing files, where a dataset can; this one does nothing.

    Raises:
      OSError: if they cannot be written.
    """

  def variant(self: _Dataset, **options: Any) -> _Dataset:
    """The same scenes with other options, on what is open already.

    Args:
      **options: new values of batch_size, shuffle_buffer, seed, skip, take,
        cache_dir or name: options that do not change a scene.

    Returns:
      Another dataset.

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
      NoSceneError: if none is left after `min_num_objects`,
        `max_num_objects` and `skip`.
      ValueError: if the subset is unknown, or a file is not what it should be.
    """
    if subset == "train":
      return self.batches().map(lambda batch, _: batch)
    if subset not in _SUBSETS:
      raise ValueError(f"subset={subset!r}: expected one of {_SUBSETS}.")
    scenes = self._scenes()
    if subset == "eval":
      return scenes.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)
    # A file of fewer scenes fills its batch by repetition.
    scenes = scenes.take(self.batch_size).repeat()
    batch = next(iter(scenes.batch(self.batch_size, drop_remainder=True)))
    return tf.data.Dataset.from_tensors(batch).repeat()

  def batches(self, position: Position = stream.START) -> tf.data.Dataset:
    """Opens the training stream at a given place.

    The stream depends on the files, the filter, `seed`, `shuffle_buffer` and
    `batch_size`, on whether there is a `cache_dir`, and on nothing else. With
    the same of these, starting at the position that came with a batch gives
    the batches that followed it. The scenes used in the epoch until then are
    read again and thrown away.

    Args:
      position: Where to start.

    Returns:
      A dataset of pairs: a batch, and the `Position` after it.

    Raises:
      FileNotFoundError: if a file does not exist.
      OSError: if the cache cannot be written.
      ValueError: if the position is impossible, or as for `__call__`.
    """
    start = stream.check_position(position)
    self.build_cache()
    order, to_scene = self._training_order()
    return stream.batches(order, to_scene, self.batch_size, start)

  def build_cache(
    self, on_progress: Callable[[int], object] = lambda num_read: None
  ) -> None:
    """Writes all preprocessed scenes to `cache_dir`, if they are not there.

    Args:
      on_progress: Called with the number of stored scenes read so far, those
        included that the filter leaves out.

    Raises:
      FileNotFoundError: if a file does not exist.
      OSError: if the cache cannot be written. Nothing is left behind.
      ValueError: if a file is not what it should be.
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
    """Describes a batch.

    Args:
      batch_size: B; None: the dataset's own.

    Returns:
      The structure of a batch with a `tf.TensorSpec` for each tensor.
    """
    batch = self.batch_size if batch_size is None else batch_size
    return tf.nest.map_structure(
      lambda spec: tf.TensorSpec([batch, *spec.shape], spec.dtype),
      self._scene_spec(),
    )

  def has_wanted_objects(self, example: dict) -> tf.Tensor:
    """Tells whether a scene passes the filter.

    Args:
      example: A scene of `examples`.

    Returns:
      Scalar bool: whether its number of foreground objects is from
      `min_num_objects` to `max_num_objects`.
    """
    count = preprocessing.num_objects(example, self.num_background_entities)
    low, high = self.min_num_objects, self.max_num_objects
    high = count.dtype.max if high is None else high
    return tf.logical_and(count >= (low or 0), count <= high)

  def image_batch(self, images: Any) -> dict[str, tf.Tensor]:
    """Makes a batch of one's own images, without masks and factors.

    Args:
      images: [H, W, C] or [B, H, W, C], uint8, or float in [0, 1].

    Returns:
      A batch with no entry but `image`, [B, 1, H, W, C] float32.

    Raises:
      ValueError: if the shape, the type or the range does not fit.
    """
    shape = (*self.image_dim, self.num_channels)
    return {"image": preprocessing.convert_images(images, shape)}

  def _source(self) -> Any:
    """What the stored scenes depend on beside the options, for JSON.

    A changed file must change it.
    """
    return None

  def _faults(self) -> Iterator[str | None]:
    """Yields what is wrong with the arguments (and None)."""
    int_fault = checks.int_fault
    yield int_fault("batch_size", self.batch_size, 1)
    yield int_fault("shuffle_buffer", self.shuffle_buffer, 1, optional=True)
    yield int_fault("skip", self.skip, 0)
    yield int_fault("take", self.take, 1, optional=True)
    yield int_fault("seed", self.seed, 0, _SEED_LIMIT - 1, optional=True)
    yield checks.image_dim_fault(self.image_dim)
    yield checks.crop_fault(self.crop_region)
    yield checks.flag_fault("grayscale", self.grayscale)
    yield checks.path_fault("cache_dir", self.cache_dir, optional=True)
    yield from checks.bound_faults(
      self.min_num_objects, self.max_num_objects, self._most_objects()
    )

  def _most_objects(self) -> int | None:
    """The most foreground objects of a scene, if one can tell unopened."""
    if self.num_true_objects is None:
      return None
    return self.num_true_objects - self.num_background_entities

  def remaining_crop(self) -> Sequence[Sequence[int]] | None:
    """What is left of `crop_region` to cut out of what `examples` gives."""
    return self.crop_region

  def _scene_spec(self) -> dict[str, Any]:
    """The structure of one preprocessed scene."""
    size = (*self.image_dim, self.num_channels)
    spec: dict[str, Any] = {
      "image": tf.TensorSpec([self.num_frames, *size], tf.float32)
    }
    if self.num_true_objects is not None:
      entities = self.num_true_objects
      spec["mask"] = tf.TensorSpec(
        [self.num_frames, entities, *self.image_dim, 1], tf.uint8
      )
      spec["visibility"] = tf.TensorSpec([entities], tf.float32)
      spec["factors"] = {
        name: tf.TensorSpec([entities, size], dtype)
        for name, (dtype, size) in self.factors.items()
      }
    return spec

  def _cache(self) -> SceneCache:
    options = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in _NOT_IN_CACHE_KEY
    }
    cls = type(self)
    module = _CACHED_AS.get(cls.__module__, cls.__module__)
    key = {
      "dataset": f"{module}.{cls.__qualname__}",
      "options": {name: repr(value) for name, value in options.items()},
      "source": self._source(),
    }
    assert self.cache_dir is not None
    return SceneCache(self.cache_dir, self.name, self._scene_spec(), key)

  def _scene(self, example: dict) -> dict[str, Any]:
    scene = preprocessing.preprocess(
      example,
      self.image_dim,
      self.remaining_crop(),
      self.grayscale,
      self.num_background_entities,
    )
    scene = {"factors": {}, **scene}
    return {name: scene[name] for name in self._scene_spec()}

  def _checked_examples(self) -> tf.data.Dataset:
    """Opens pairs of a stored scene's place and itself, filtered."""
    if self._numbered is None:
      examples = self.examples()
      self._check_spec(examples.element_spec)
      self._numbered = examples.enumerate()
      if self.min_num_objects is not None or self.max_num_objects is not None:
        self._numbered = self._numbered.filter(
          lambda _, example: self.has_wanted_objects(example)
        )
    return self._numbered

  def _check_spec(self, spec: Mapping[str, tf.TensorSpec]) -> None:
    channels = "C" if self.grayscale else str(self.num_channels)
    dims = {"image": f"H W {channels}"}
    if self.num_true_objects is not None:
      dims["mask"] = f"{self.num_true_objects} H W 1"
    bounds = {
      "min_num_objects": self.min_num_objects,
      "max_num_objects": self.max_num_objects,
    }
    preprocessing.check_scene_spec(
      type(self).__name__,
      spec,
      dims,
      self.num_frames,
      self.remaining_crop(),
      {key: value for key, value in bounds.items() if value is not None},
    )

  def has_scenes(self) -> bool:
    """Whether filter and `skip` leave a scene to use. Opens the files.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file is not what it should be.
    """
    try:
      self._scenes()
    except NoSceneError:
      return False
    return True

  def _scenes(self) -> tf.data.Dataset:
    """Opens the preprocessed scenes to use, in the order of the files."""
    if self.cache_dir is not None:
      cache = self._cache()
      if cache.num_scenes() is not None:
        self._check_cache(cache)
        return cache.read(self.skip, self.take).map(
          cache.unpack, num_parallel_calls=tf.data.AUTOTUNE
        )
    examples = self._checked_examples().map(lambda _, example: example)
    examples = examples.skip(self.skip)
    if self.take is not None:
      examples = examples.take(self.take)
    if not self._has_scenes:
      self._check_first_scene(examples)
      self._has_scenes = True
    return examples.map(self._scene, num_parallel_calls=tf.data.AUTOTUNE)

  def _training_order(self) -> tuple[Callable, Callable]:
    """Returns (epoch -> its scenes in some form, that form -> scene).

    Both are for use in a graph. Scenes of the cache are shuffled as they are
    stored, so that those to skip need not be unpacked.
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
      # Another seed than that of the other shuffling, which would correlate.
      records = cache.read_mixed(self.skip, self.take, -1 - epoch)
      return stream.shuffled(records, epoch, seed, buffer)

    return order, cache.unpack

  def _check_first_scene(self, examples: tf.data.Dataset) -> None:
    """Raises ValueError if there is no scene or it cannot be read.

    An endless repetition of nothing would never return.
    """
    try:
      found = any(True for _ in examples.take(1))
    except inspection.READ_ERRORS as error:
      raise ValueError(inspection.explain(error, str(self))) from None
    if not found:
      raise NoSceneError(self._no_scene_left())

  def _check_cache(self, cache: SceneCache) -> None:
    """Raises ValueError if no scene of it is to be used."""
    if (cache.num_scenes() or 0) <= self.skip:
      raise NoSceneError(self._no_scene_left())

  def _no_scene_left(self) -> str:
    return (
      f"{self} has no scene left with "
      f"min_num_objects={self.min_num_objects}, "
      f"max_num_objects={self.max_num_objects} (the background does not "
      f"count) and skip={self.skip}. Relax these."
    )

  def __str__(self) -> str:
    return type(self).__name__
