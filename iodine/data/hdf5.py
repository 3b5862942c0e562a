"""Scenes from HDF5 files in the layout of EfficientMORL."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.data import image_files
from iodine.data.pipeline import IODINEDataset

__all__ = ["HDF5"]

_SLICE_BYTES = 2**26  # read at a time, approximately


class _Layout(NamedTuple):
  """Contents of a split of a file.

  Attributes:
    num_scenes: N.
    image_shape: (h, w, C).
    num_entities: L; None: no masks.
    scenes_per_slice: number of scenes to read at a time.
  """

  num_scenes: int
  image_shape: tuple[int, int, int]
  num_entities: int | None
  scenes_per_slice: int


@dataclasses.dataclass(eq=False)
class HDF5(IODINEDataset):
  """Scenes from an HDF5 file in the layout of EfficientMORL's datasets.

  The file has a group for each split, such as `train`, `val` and `test`, with
  up to three datasets (pemami4911/EfficientMORL: lib/datasets.py):
    imgs: [N, h, w, C] whole numbers from 0 to 255; C is 1 or 3.
    masks: [N, L, h, w, 1], optional; nonzero where an entity owns the pixel,
      background first. (Only the first of several channels counts.)
    factors: [N, L, F], optional: F numbers for each entity.

  It is read in slices of several scenes; this needs the package h5py. An entity
  is visible if it owns a pixel.

  The stored images are not cropped: for CLEVR, set `crop_region` to
  ((29, 221), (64, 256)). Its F factors are x, y, z, rotation, size, material,
  shape, color and visibility (EfficientMORL: eval.py), so `factor_columns` may
  be {"position": [0, 1, 2], "size": [4]}.

  Attributes:
    path: path of the file, made absolute; "~" is expanded.
    split: name of the group.
    factor_columns: {name of a factor: its columns among the F}; None: no
      factors.
    images_key: what the file calls `imgs`.
  """

  images_key = "imgs"

  path: str | os.PathLike
  _: dataclasses.KW_ONLY
  split: str = "train"
  factor_columns: Mapping[str, Sequence[int]] | None = None
  name: str = "hdf5"

  def __post_init__(self):
    super().__post_init__()
    self.path = os.path.abspath(os.path.expanduser(self.path))
    self.factors = {
      name: (tf.float32, len(columns))
      for name, columns in (self.factor_columns or {}).items()
    }

  @functools.cached_property
  def num_true_objects(self) -> int | None:  # type: ignore[override]
    """L; None: no masks. Opens the file."""
    return self._layout.num_entities

  @functools.cached_property
  def num_channels(self) -> int:  # type: ignore[override]
    """C. Opens the file, unless `grayscale` decides."""
    return self._layout.image_shape[2]

  def examples(self) -> tf.data.Dataset:
    """Opens the file; see `IODINEDataset.examples`."""
    layout = self._layout
    starts = tf.data.Dataset.range(
      0, layout.num_scenes, layout.scenes_per_slice
    )
    return starts.map(self._load).prefetch(1).unbatch()

  def stored_files(self) -> list[str]:
    """The one file."""
    return [os.fspath(self.path)]

  def estimated_num_examples(self) -> int:
    """The number of scenes in the split."""
    return self._layout.num_scenes

  @functools.cached_property
  def _layout(self) -> _Layout:
    with self._opened() as group:
      return self._check_layout(group)

  def _load(self, start: tf.Tensor) -> dict[str, Any]:
    """Reads the slice that starts at a scene; for use in a graph."""
    _, (height, width, channels), entities, _ = self._layout
    specs = {"imgs": tf.TensorSpec([None, height, width, channels], tf.uint8)}
    if entities is not None:
      shape = [None, entities, height, width, 1]
      specs["masks"] = tf.TensorSpec(shape, tf.uint8)
    if self.factor_columns:
      specs["factors"] = tf.TensorSpec([None, entities, None], tf.float32)
    tensors = tf.numpy_function(
      lambda start: self._read(start, list(specs)),
      [start],
      [spec.dtype for spec in specs.values()],
    )
    scenes = {
      name: tf.ensure_shape(tensor, specs[name].shape)
      for name, tensor in zip(specs, tensors, strict=True)
    }
    names = {"imgs": "image", "masks": "mask"}
    example = {names[key]: scenes[key] for key in names if key in scenes}
    if self.factor_columns:
      example["factors"] = {
        name: tf.gather(scenes["factors"], list(columns), axis=-1)
        for name, columns in self.factor_columns.items()
      }
    return example

  def _read(self, start: int, names: Sequence[str]) -> list[np.ndarray]:
    """Reads a slice of each of the datasets."""
    scenes = slice(start, start + self._layout.scenes_per_slice)
    with self._opened() as group:
      keys = {"imgs": self.images_key}
      return [
        _READERS[name](group[keys.get(name, name)], scenes) for name in names
      ]

  @contextlib.contextmanager
  def _opened(self) -> Iterator[Any]:
    """Opens the file and yields the group; failures become one-line errors."""
    h5py = _h5py()
    if not os.path.exists(self.path):
      raise FileNotFoundError(f"HDF5: there is no file {self.path}.")
    if os.path.isdir(self.path):
      raise ValueError(f"HDF5: {self.path} is a folder. Name a file in it.")
    try:
      with h5py.File(self.path, "r") as file:
        group = file.get(self.split)
        if not isinstance(group, h5py.Group):
          raise ValueError(
            f"{self.path} has no group split={self.split!r}; there is: "
            f"{', '.join(file) or 'nothing'}."
          )
        _check_home(group, self.path)
        yield group
    except (OSError, KeyError, RuntimeError) as error:
      raise ValueError(f"{self.path}: {_reason(self.path, error)}.") from None

  def _check_layout(self, group: Any) -> _Layout:
    """Raises ValueError unless the datasets are consistent."""
    count, height, width, channels = self._shape(group, self.images_key, 4)
    images = group[self.images_key]
    if channels not in (1, 3):
      raise _unfit(images, "[N, h, w, C] with 1 or 3 channels C")
    _check_pixels(images, height * width)
    num_entities, scene_bytes = None, height * width * channels
    if "masks" in group:
      num_entities = self._shape(group, "masks", 5)[1]
      expected = (count, num_entities, height, width)
      if group["masks"].shape[:4] != expected or num_entities < 2:
        raise _unfit(
          group["masks"],
          f"[N, L, h, w, 1], like {self.images_key} {images.shape}, with L of "
          "2 or more entities",
        )
      _check_pixels(group["masks"], height * width * num_entities)
      scene_bytes += height * width * num_entities
    if self.factor_columns:
      num_factors = 1 + max(max(x) for x in self.factor_columns.values())
      shape = self._shape(group, "factors", 3)
      if shape[:2] != (count, num_entities) or shape[2] < num_factors:
        raise _unfit(
          group["factors"],
          f"[N, L, F] = [{count}, {num_entities}, {num_factors} or more], "
          "which is what masks and factor_columns call for",
        )
    per_slice = max(_SLICE_BYTES // max(scene_bytes, 1), 1)
    chunk = (images.chunks or [1])[0]
    if per_slice > chunk:  # whole chunks, which may be compressed
      per_slice -= per_slice % chunk
    return _Layout(count, (height, width, channels), num_entities, per_slice)

  def _shape(self, group: Any, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a dataset; raises ValueError unless it can be read."""
    dataset = group.get(name)
    if not isinstance(dataset, _h5py().Dataset):
      raise ValueError(
        f"{self.path}: split {group.name} has no dataset {name!r}; there is: "
        f"{', '.join(group) or 'nothing'}."
      )
    _check_home(dataset, self.path)
    _check_storage(dataset, self.path)
    if len(dataset.shape or ()) != rank:
      raise _unfit(dataset, f"{rank} dimensions")
    return dataset.shape

  def _faults(self) -> Iterator[str | None]:
    yield checks.path_fault("path", self.path)
    yield from super()._faults()
    yield checks.path_fault("split", self.split)
    columns = self.factor_columns
    if columns is not None and not _are_columns(columns):
      yield (
        f"factor_columns={columns!r}: expected a mapping from names to lists "
        "of columns counted from 0, such as {'position': [0, 1]}, or None"
      )

  def _most_objects(self) -> None:
    return None  # Known only from the file.

  def _source(self) -> Any:
    stat = os.stat(self.path)
    return [self.path, stat.st_size, stat.st_mtime_ns]

  def __str__(self) -> str:
    return f"HDF5: {self.path}, {self.split}"


def _h5py() -> Any:
  try:
    import h5py  # type: ignore
  except ModuleNotFoundError:
    raise ValueError(
      "HDF5: needs the package h5py, which the extra `hdf5` installs (in a "
      "checkout: pip install '.[hdf5]')."
    ) from None
  return h5py


def _are_columns(value: Any) -> bool:
  return isinstance(value, Mapping) and all(
    isinstance(columns, Sequence)
    and columns
    and all(checks.is_int(x) and x >= 0 for x in columns)
    for columns in value.values()
  )


def _reason(path: str | os.PathLike, error: Exception) -> str:
  """What an error of HDF5 tells about a file, and the remedy."""
  text = str(error)
  if "unable to lock" in text:
    return (
      f"is locked ({text}). Another process has it open to write: wait until "
      "it is done. If none does, the file system has no locks: set "
      "HDF5_USE_FILE_LOCKING=FALSE"
    )
  if "already open for" in text:
    return (
      f"is marked as being written ({text}). Wait until that is done; if the "
      "process that wrote it was killed, `h5clear -s FILE` takes the mark away"
    )
  if isinstance(error, OSError) and error.errno is not None:
    return os.strerror(error.errno)
  if isinstance(error, OSError) and not _h5py().is_hdf5(path):
    return (
      "no HDF5 file, or its beginning is damaged. Copy or download it again"
    )
  fault = "cut off" if "truncated file" in text else "damaged or cut off"
  return f"{fault} ({text}). Copy or download it again"


def _check_home(part: Any, path: str | os.PathLike) -> None:
  """Raises ValueError if a link led to another file, any that can be read."""
  home = part.file.filename
  if not os.path.samefile(home, path):
    raise ValueError(
      f"{path}: {part.name} is in another file, {home}. Copy it into this one."
    )


def _check_storage(dataset: Any, path: str | os.PathLike) -> None:
  """Raises ValueError unless the file alone holds numbers that can be read."""
  filters = _h5py().h5z
  name = dataset.name
  if dataset.external or dataset.is_virtual:
    kind = "external" if dataset.external else "virtual"
    raise ValueError(
      f"{path}: the data of {name} are in other files ({kind} storage). Copy "
      "them into this one."
    )
  settings = dataset.id.get_create_plist()
  for i in range(settings.get_nfilters()):
    code, _, _, label = settings.get_filter(i)
    if not filters.filter_avail(code):
      shown = label.decode(errors="replace") or "of no name"
      raise ValueError(
        f"{path}: {name} is stored with filter {code} ({shown}), which is not "
        "installed. Set HDF5_PLUGIN_PATH to the folder of its plugin (the "
        "package hdf5plugin has many), or `h5repack -f GZIP=4` the file where "
        "it can be read."
      )
  try:
    dtype = dataset.dtype
  except (TypeError, ValueError) as error:  # NumPy has nothing like it
    raise ValueError(
      f"{path}: {name} holds no numbers that can be read ({error})."
    ) from None
  if dtype.kind not in "biuf":
    raise ValueError(
      f"{path}: {name} holds {dtype}; expected numbers. Store images and masks "
      "as uint8."
    )


def _check_pixels(dataset: Any, num_pixels: int) -> None:
  """A file of a few kilobytes may claim to be of any size."""
  if num_pixels > image_files.MAX_PIXELS:
    raise _unfit(
      dataset, f"at most {image_files.MAX_PIXELS:,} pixels in a scene"
    )


def _unfit(dataset: Any, expected: str) -> ValueError:
  return ValueError(
    f"{dataset.file.filename}: {dataset.name} has the shape {dataset.shape}; "
    f"expected {expected}."
  )


def _read_images(dataset: Any, scenes: slice) -> np.ndarray:
  values = dataset[scenes]
  if values.dtype == np.uint8:
    return values
  rounded = np.rint(values).clip(0, 255)
  if not np.array_equal(values, rounded):
    raise ValueError(
      f"{dataset.file.filename}: {dataset.name} holds {values.dtype} from "
      f"{values.min()} to {values.max()}; expected integers from 0 to 255. "
      "Store the images as uint8."
    )
  return rounded.astype(np.uint8)


def _read_masks(dataset: Any, scenes: slice) -> np.ndarray:
  return np.uint8(255) * (dataset[scenes, ..., :1] != 0)


def _read_factors(dataset: Any, scenes: slice) -> np.ndarray:
  return dataset[scenes].astype(np.float32)


_READERS = {
  "imgs": _read_images,
  "masks": _read_masks,
  "factors": _read_factors,
}
