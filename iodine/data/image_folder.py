"""Your own images: a folder of files, with or without masks."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import image_files, stream
from iodine.data.pipeline import IODINEDataset

__all__ = ["ImageFolder"]

_LOG = logging.getLogger(__name__)

_MASKS = "masks"
# A mask with more labels is a photograph, or was resized by interpolation.
_MAX_OBJECTS = 255


class _File(NamedTuple):
  path: str
  size: int
  mtime_ns: int


class _Files(NamedTuple):
  """Contents of a folder.

  Attributes:
    images: the image files, sorted by name.
    masks: the mask of each image; empty if there are none.
  """

  images: tuple[_File, ...]
  masks: tuple[_File, ...]


@dataclasses.dataclass(eq=False)
class ImageFolder(IODINEDataset):
  """The images of a folder, sorted by name, each one a scene.

  Files named .png, .jpg, .jpeg, .bmp, .webp or .gif are images; other files,
  hidden files and subfolders are ignored. Sizes and formats may differ, see
  `image_files.load_image`: every image is resized to `image_dim`, which
  distorts it unless `crop_region` has the same aspect ratio.

  Masks are optional: if there is a subfolder `masks`, each image NAME.jpg needs
  a mask masks/NAME.png of the size of the displayed image. Its pixels are
  integer labels (see `image_files.load_labels`): 0 is the background, and every
  other label is an object. Labels need not be consecutive: an image's objects
  are its entities from 1 on, in label order. L is 1 plus the largest number of
  objects in an image, at most 256. Objects outside `crop_region`, or lost when
  the mask is resized, do not count. There are no factors.

  The headers of all images, and all masks, are read before the first scene.
  Training shuffles the whole folder; `shuffle_buffer` images are held in memory
  only if scenes are cached or filtered by number of objects.

  Attributes:
    path: path of the folder, made absolute; "~" is expanded. None: not set yet,
      enough to describe the dataset but not to read it.
  """

  path: str | os.PathLike | None
  _: dataclasses.KW_ONLY
  name: str = "folder"

  def __post_init__(self):
    super().__post_init__()
    if self.path is not None:
      self.path = os.path.abspath(os.path.expanduser(self.path))

  @functools.cached_property
  def num_true_objects(self) -> int | None:  # type: ignore[override]
    """L; None: no masks."""
    if self.path is None or not os.path.isdir(os.path.join(self.path, _MASKS)):
      return None
    return self._num_entities(self._files())

  def examples(self) -> tf.data.Dataset:
    """Opens the files; see `IODINEDataset.examples`."""
    files = self._files()
    self._num_entities(files)
    return _paths(files).map(self._load, num_parallel_calls=tf.data.AUTOTUNE)

  def stored_files(self) -> list[str]:
    """The images, then their masks."""
    files = self._files()
    return [file.path for file in (*files.images, *files.masks)]

  def estimated_num_examples(self) -> int:
    """The number of images."""
    return len(self._files().images)

  def _training_order(self) -> tuple[Callable, Callable]:
    """Shuffles names, not images, unless images are filtered or cached."""
    bounds = (self.min_num_objects, self.max_num_objects)
    is_filtered = bounds != (None, None)
    if is_filtered or self.cache_dir is not None or self.shuffle_buffer is None:
      return super()._training_order()
    self._scenes()  # raises errors early
    paths = _paths(self._files()).skip(self.skip)
    if self.take is not None:
      paths = paths.take(self.take)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
      stream.set_graph_seed(self.seed or 0)
      return paths.shuffle(
        paths.cardinality(), seed=epoch, reshuffle_each_iteration=False
      )

    return order, lambda names: self._scene(self._load(names))

  def _load(self, paths: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Reads a scene; for use in a graph."""

    def load_image(path: bytes) -> np.ndarray:
      return image_files.load_image(
        os.fsdecode(path), self.image_dim, self.grayscale, self.crop_region
      )

    def load_owners(path: bytes) -> np.ndarray:
      return _owners(os.fsdecode(path), self.image_dim, self.crop_region)

    image = tf.numpy_function(load_image, [paths["image"]], tf.uint8)
    shape = [*self.image_dim, self.num_channels]
    example = {"image": tf.ensure_shape(image, shape)}
    if "mask" in paths:
      owners = tf.numpy_function(load_owners, [paths["mask"]], tf.int32)
      owners = tf.ensure_shape(owners, self.image_dim)
      entities = tf.range(self.num_true_objects)[:, None, None]
      mask = tf.cast(owners == entities, tf.uint8) * 255
      example["mask"] = mask[..., tf.newaxis]
    return example

  def _files(self) -> _Files:
    """Lists the folder; raises FileNotFoundError or ValueError."""
    if self.path is None:
      raise ValueError(
        "ImageFolder: no path; name the folder of the images, as in "
        "data.path=DIR."
      )
    path = os.fspath(self.path)
    images = _list(path, image_files.IMAGE_SUFFIXES)
    if not images:
      raise ValueError(
        f"ImageFolder: {path} holds no image, that is, no file that ends "
        f"in {' or '.join(image_files.IMAGE_SUFFIXES)}. (Folders within it "
        "are not searched.)"
      )
    masks = os.path.join(path, _MASKS)
    if not os.path.isdir(masks):
      return _Files(tuple(images.values()), ())
    return _with_masks(images, masks)

  def _num_entities(self, files: _Files) -> int | None:
    """Returns L; raises ValueError for invalid files."""
    return _num_entities(files, self.image_dim, self.crop_region)

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path, optional=True)
    yield from super()._faults()

  def _most_objects(self) -> None:
    return None  # Known only from the files.

  def remaining_crop(self) -> None:
    """None: `examples` crops, because the sizes of images may differ."""
    return None

  def _source(self) -> Any:
    return self._files()

  def __str__(self) -> str:
    return f"ImageFolder: {self.path}"


def _paths(files: _Files) -> tf.data.Dataset:
  """The paths of each scene: {"image": path}, with masks also "mask"."""
  paths = {"image": [os.fsencode(file.path) for file in files.images]}
  if files.masks:
    paths["mask"] = [os.fsencode(file.path) for file in files.masks]
  return tf.data.Dataset.from_tensor_slices(paths)


def _list(folder: str, suffixes: Sequence[str]) -> dict[str, _File]:
  """Visible files with one of the suffixes: {name: file}, sorted."""
  try:
    with os.scandir(folder) as entries:
      found = [
        entry
        for entry in entries
        if entry.name.lower().endswith(tuple(suffixes))
        and not entry.name.startswith(".")
      ]
  except FileNotFoundError:
    raise FileNotFoundError(
      f"ImageFolder: there is no folder {folder}."
    ) from None
  except NotADirectoryError:
    raise ValueError(
      f"ImageFolder: {folder} is a file. Name the folder that it is in."
    ) from None
  return {
    entry.name: _stamp(entry)
    for entry in sorted(found, key=lambda entry: entry.name)
  }


def _stamp(entry: os.DirEntry) -> _File:
  try:
    stat = entry.stat()
  except FileNotFoundError:  # a dangling link; reading it will fail
    return _File(entry.path, 0, 0)
  return _File(entry.path, stat.st_size, stat.st_mtime_ns)


def _with_masks(images: Mapping[str, _File], folder: str) -> _Files:
  """Finds the mask of each image; raises ValueError if one is missing."""
  masks = {
    os.path.splitext(name)[0]: file
    for name, file in _list(folder, [".png"]).items()
  }
  names = [os.path.splitext(name)[0] for name in images]
  missing = [name for name in names if name not in masks]
  if missing:
    raise ValueError(
      f"ImageFolder: {len(missing)} of {len(names)} images have no mask; the "
      f"first that is missing is {os.path.join(folder, missing[0])}.png. Add "
      f"the masks, or rename {folder} to train without any."
    )
  owners = collections.Counter(names)
  shared = next((name for name in names if owners[name] > 1), None)
  if shared is not None:
    raise ValueError(
      f"ImageFolder: {owners[shared]} images share the mask "
      f"{masks[shared].path}. Give them names of their own."
    )
  return _Files(tuple(images.values()), tuple(masks[name] for name in names))


@functools.lru_cache(maxsize=8)
def _num_entities(
  files: _Files, size: tuple[int, int], crop_region: Any
) -> int | None:
  """Reads the headers of all images, and all masks.

  Args:
    files: files of the folder; results are cached by modification time.
    size: (H, W) to resize masks to.
    crop_region: as in the dataset.

  Returns:
    L; None if there are no masks.

  Raises:
    ValueError: names the first invalid file and counts the others.
  """

  def check(index: int) -> int | str:
    mask = files.masks[index].path if files.masks else None
    try:
      return _check_files(files.images[index].path, mask, size, crop_region)
    except (OSError, ValueError) as error:
      return str(error)

  with futures.ThreadPoolExecutor() as pool:
    results = list(pool.map(check, range(len(files.images))))
  faults = [result for result in results if isinstance(result, str)]
  if faults:
    raise ValueError(
      f"{faults[0]} ({len(faults)} of {len(results)} images cannot be used.)"
    )
  if not files.masks:
    return None
  most = max(result for result in results if isinstance(result, int))
  _LOG.info("The masks have up to %d objects", most - 1)
  return most


def _check_files(
  image: str, mask: str | None, size: Sequence[int], crop_region: Any
) -> int:
  """Returns the number of entities; raises ValueError for invalid files."""
  stored = image_files.image_size(image, crop_region)
  if mask is None:
    return 1
  stored_mask = image_files.image_size(mask)
  if stored_mask != stored:
    raise ValueError(
      f"{mask}: {stored_mask[0]} rows and {stored_mask[1]} columns, but the "
      f"image has {stored[0]} and {stored[1]}."
    )
  count = 1 + int(_owners(mask, size, crop_region).max())
  if count > 1 + _MAX_OBJECTS:
    raise ValueError(
      f"{mask}: {count - 1} labels are more than {_MAX_OBJECTS}. Do its pixels "
      "hold the numbers of objects? Smoothing or JPEG makes up new ones."
    )
  return count


def _owners(mask: str, size: Sequence[int], crop_region: Any) -> np.ndarray:
  """Reads which entity owns each pixel: [H, W] int32, 0 for the background."""
  labels = image_files.load_labels(mask, size, crop_region)
  # Background first, even if there is none.
  _, ranks = np.unique(np.append(0, labels), return_inverse=True)
  return ranks[1:].reshape(labels.shape).astype(np.int32)
