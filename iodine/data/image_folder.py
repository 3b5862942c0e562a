"""Your own images: a folder of files, with or without masks."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import image_files, preprocessing
from iodine.data.scene_files import SceneFiles

__all__ = ["ImageFolder"]

_LOG = logging.getLogger(__name__)

_MASKS = "masks"
# A mask with more labels is a photograph, or was resized by interpolation.
_MAX_OBJECTS = 255
_MOST_NAMES = 5  # in a line


class _File(NamedTuple):
  path: str
  size: int
  mtime_ns: int


class _Files(NamedTuple):
  """Contents of a folder.

  Attributes:
    images: the image files, sorted by name.
    masks: the mask of each image; empty if there are none.
    left_out: lines on what else there is.
  """

  images: tuple[_File, ...]
  masks: tuple[_File, ...]
  left_out: tuple[str, ...]


@dataclasses.dataclass(eq=False)
class ImageFolder(SceneFiles):
  """The images of a folder, sorted by name, each one a scene.

  PNG, JPEG, BMP, WebP and GIF files are images, whatever their names. Other
  files and subfolders are left out, which is logged; hidden ones are left out
  without a word. Sizes and formats may differ, see
  `image_files.load_image`: every image is resized to `image_dim`, which
  distorts it unless `crop_region` has the same aspect ratio.

  Masks are optional: if there is a subfolder `masks`, each image NAME.jpg needs
  a mask masks/NAME.png of the size of the displayed image. (Names may differ in
  their Unicode form.) Its pixels are integer labels, see
  `image_files.load_labels`: 0 is the background, and every other label is an
  object. Labels need not be consecutive: an image's objects are its entities
  from 1 on, in label order. L is 1 plus the largest number of
  objects in an image, at most 256. Objects outside `crop_region`, or lost when
  the mask is resized, do not count. There are no factors.

  The headers of all images, and all masks, are read before the first scene.

  Attributes:
    path: path of the folder, made absolute; "~" is expanded. None: not set yet,
      enough to describe the dataset but not to read it.
    ignore_label: label of pixels that belong to no entity, not even to the
      background, such as 255 for the borders of Pascal VOC; scores that compare
      masks leave them out. None: there are none.
  """

  path: str | os.PathLike | None
  _: dataclasses.KW_ONLY
  ignore_label: int | None = None
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

  def _names(self) -> tf.data.Dataset:
    files = self._files()
    self._num_entities(files)
    return _paths(files)

  def stored_files(self) -> list[str]:
    """The images, then their masks."""
    files = self._files()
    return [file.path for file in (*files.images, *files.masks)]

  def estimated_num_examples(self) -> int:
    """The number of images."""
    return len(self._files().images)

  def _load(self, paths: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Reads a scene; for use in a graph."""

    def load_image(path: bytes) -> np.ndarray:
      return image_files.load_image(
        os.fsdecode(path), self.image_dim, self.grayscale, self.crop_region
      )

    def load_owners(path: bytes) -> np.ndarray:
      return _owners(
        os.fsdecode(path), self.image_dim, self.crop_region, self.ignore_label
      )

    image = tf.numpy_function(load_image, [paths["image"]], tf.uint8)
    shape = [*self.image_dim, self.num_channels]
    example = {"image": tf.ensure_shape(image, shape)}
    if "mask" in paths:
      owners = tf.numpy_function(load_owners, [paths["mask"]], tf.int32)
      owners = tf.ensure_shape(owners, self.image_dim)
      example["mask"] = preprocessing.masks_of_labels(
        owners, self.num_true_objects or 0
      )
    return example

  def _files(self) -> _Files:
    """Lists the folder; raises FileNotFoundError or ValueError."""
    if self.path is None:
      raise ValueError(
        "ImageFolder: no path; name the folder of the images, as in "
        "data.path=DIR."
      )
    path = os.fspath(self.path)
    images, left_out = _images(path)
    if not images:
      raise ValueError(
        f"ImageFolder: {path} holds no image (PNG, JPEG, BMP, WebP or GIF)"
        + "".join(f"; {line}" for line in left_out)
      )
    files = _Files(
      tuple(images.values()), (), tuple(f"{path}: {x}" for x in left_out)
    )
    masks = os.path.join(path, _MASKS)
    return _with_masks(files, masks) if os.path.isdir(masks) else files

  def _num_entities(self, files: _Files) -> int | None:
    """Returns L; raises ValueError for invalid files."""
    return _num_entities(
      files, self.image_dim, self.crop_region, self.ignore_label
    )

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path, optional=True)
    yield from super()._faults()
    yield checks.int_fault("ignore_label", self.ignore_label, 1, optional=True)

  def _most_objects(self) -> None:
    return None  # Known only from the files.

  def _source(self) -> Any:
    files = self._files()
    return [files.images, files.masks]

  def __str__(self) -> str:
    return f"ImageFolder: {self.path}"


def _paths(files: _Files) -> tf.data.Dataset:
  """The paths of each scene: {"image": path}, with masks also "mask"."""
  paths = {"image": [os.fsencode(file.path) for file in files.images]}
  if files.masks:
    paths["mask"] = [os.fsencode(file.path) for file in files.masks]
  return tf.data.Dataset.from_tensor_slices(paths)


def _images(folder: str) -> tuple[dict[str, _File], list[str]]:
  """Finds images by name or content.

  Returns:
    {name: file}, sorted, and a line each on files and folders that are left
    out.
  """
  images, others, folders = {}, [], []
  for entry in _scan(folder):
    name = entry.name
    if entry.is_dir():
      folders += [name] if name != _MASKS else []
    elif _may_be_read(entry) and (
      name.lower().endswith(image_files.IMAGE_SUFFIXES)
      or image_files.is_image(entry.path)
    ):
      images[name] = _stamp(entry)
    else:
      others.append(os.path.splitext(name)[1] or name)
  return images, [
    *_line(others, "file is", "files are", "not looked at"),
    *_line(folders, "folder is", "folders are", "not searched"),
  ]


def _line(
  names: Sequence[str], one: str, many: str, what: str
) -> Iterator[str]:
  """Yields "4 files are not looked at (.tif)", if there are any."""
  if not names:
    return
  distinct = list(dict.fromkeys(names))
  shown = ", ".join(distinct[:_MOST_NAMES])
  more = ", ..." if len(distinct) > _MOST_NAMES else ""
  verb = one if len(names) == 1 else many
  yield f"{len(names):,} {verb} {what} ({shown}{more})"


def _scan(folder: str) -> list[os.DirEntry]:
  """What is visible in a folder, sorted by name in either Unicode form."""
  try:
    with os.scandir(folder) as entries:
      found = [entry for entry in entries if not entry.name.startswith(".")]
  except FileNotFoundError:
    raise FileNotFoundError(
      f"ImageFolder: there is no folder {folder}."
    ) from None
  except NotADirectoryError:
    raise ValueError(
      f"ImageFolder: {folder} is a file. Name the folder that it is in."
    ) from None
  return sorted(found, key=lambda entry: (_composed(entry.name), entry.name))


def _composed(name: str) -> str:
  """The Unicode form in which names are compared: macOS stores another."""
  return unicodedata.normalize("NFC", name)


def _may_be_read(entry: os.DirEntry) -> bool:
  """False for pipes and the like; a dangling link fails when it is read."""
  return entry.is_file() or entry.is_symlink()


def _stamp(entry: os.DirEntry) -> _File:
  try:
    stat = entry.stat()
  except FileNotFoundError:  # a dangling link; reading it will fail
    return _File(entry.path, 0, 0)
  return _File(entry.path, stat.st_size, stat.st_mtime_ns)


def _with_masks(files: _Files, folder: str) -> _Files:
  """Finds the mask of each image; raises ValueError if one is missing."""
  masks, others = {}, []
  for entry in _scan(folder):
    stem, suffix = os.path.splitext(entry.name)
    if suffix.lower() == ".png" and _may_be_read(entry):
      masks[stem] = _stamp(entry)
    else:
      others.append(suffix or entry.name)
  by_form = {_composed(stem): file for stem, file in masks.items()}
  names = [_stem(file.path) for file in files.images]
  found = [masks.get(name, by_form.get(_composed(name))) for name in names]
  chosen = [file for file in found if file is not None]
  if len(chosen) < len(names):
    first = names[found.index(None)]
    raise ValueError(
      f"ImageFolder: {len(names) - len(chosen)} of {len(names)} images have no "
      f"mask; the first that is missing is {os.path.join(folder, first)}.png. "
      f"Add the masks, or rename {folder} to train without any."
    )
  mask, count = collections.Counter(chosen).most_common(1)[0]
  if count > 1:
    raise ValueError(
      f"ImageFolder: {count} images share the mask {mask.path}. Give them "
      "names of their own."
    )
  spare = sorted(
    {file.path for file in masks.values()} - {file.path for file in chosen}
  )
  left_out = [
    *_line(others, "file is", "files are", "not looked at"),
    *_line(
      [os.path.basename(path) for path in spare],
      "mask belongs",
      "masks belong",
      "to no image",
    ),
  ]
  return _Files(
    files.images,
    tuple(chosen),
    (*files.left_out, *(f"{folder}: {line}" for line in left_out)),
  )


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path))[0]


@functools.lru_cache(maxsize=8)
def _num_entities(
  files: _Files,
  size: tuple[int, int],
  crop_region: Any,
  ignore_label: int | None,
) -> int | None:
  """Reads the headers of all images, and all masks.

  Args:
    files: files of the folder; results are cached by modification time.
    size: (H, W) to resize masks to.
    crop_region: as in the dataset.
    ignore_label: as in the dataset.

  Returns:
    L; None if there are no masks.

  Raises:
    ValueError: names the first invalid file and counts the others.
  """
  for line in files.left_out:
    _LOG.info("%s", line)

  def check(index: int) -> int | str:
    mask = files.masks[index].path if files.masks else None
    try:
      return _check_files(
        files.images[index].path, mask, size, crop_region, ignore_label
      )
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
  image: str,
  mask: str | None,
  size: Sequence[int],
  crop_region: Any,
  ignore_label: int | None,
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
  owners = _owners(mask, size, crop_region, ignore_label)
  count = 1 + max(int(owners.max()), 0)
  if count > 1 + _MAX_OBJECTS:
    raise ValueError(
      f"{mask}: {count - 1} labels are more than {_MAX_OBJECTS}. Do its pixels "
      "hold the numbers of objects? Smoothing or JPEG makes up new ones."
    )
  return count


def _owners(
  mask: str, size: Sequence[int], crop_region: Any, ignore_label: int | None
) -> np.ndarray:
  """Reads which entity owns each pixel.

  Returns:
    [H, W] int32: 0 for the background, -1 for pixels to ignore.
  """
  labels = image_files.load_labels(mask, size, crop_region)
  owners = np.full(labels.shape, -1, np.int32)
  counts = np.full(labels.shape, True)
  if ignore_label is not None:
    counts = labels != ignore_label
  # Background first, even if there is none.
  _, ranks = np.unique(np.append(0, labels[counts]), return_inverse=True)
  owners[counts] = ranks[1:]
  return owners
