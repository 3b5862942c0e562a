"""HDF5 files that may be damaged, locked, or not hold what they should.

Dimensions: N rows of a dataset, h and w height and width, C channels.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from iodine.data import image_files

__all__ = [
  "check_pixels",
  "dataset_in",
  "opened",
  "read_images",
  "rows_per_slice",
  "unfit",
]

# Read at a time: about the first, and up to the second where chunks are long.
_SLICE_BYTES = 2**26
_MOST_SLICE_BYTES = 2**28

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(path: str | os.PathLike, group: str = "/") -> Iterator[Any]:
  """Opens a group of a file to read it.

  Args:
    path: path of the file.
    group: name of the group, what is called the split.

  Yields:
    The `h5py.Group`. What fails while it is open is told as below.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if h5py is missing, the file has no such group, or it is no HDF5
      file, damaged, cut off or locked; in one line, with the remedy.
  """
  h5py = _h5py()
  if not os.path.exists(path):
    raise FileNotFoundError(f"HDF5: there is no file {path}.")
  if os.path.isdir(path):
    raise ValueError(f"HDF5: {path} is a folder. Name a file in it.")
  try:
    with h5py.File(path, "r") as file:
      found = file.get(group)
      if not isinstance(found, h5py.Group):
        raise ValueError(
          f"{path} has no group split={group!r}; there is: "
          f"{', '.join(file) or 'nothing'}."
        )
      _check_home(found, path)
      yield found
  except (OSError, KeyError, RuntimeError) as error:
    raise ValueError(f"{path}: {_reason(path, error)}.") from None


def dataset_in(
  group: Any, name: str, ranks: Sequence[int], remedy: str = ""
) -> Any:
  """Finds a dataset of numbers.

  Args:
    group: the `h5py.Group` that it is in.
    name: its name there.
    ranks: how many dimensions it may have.
    remedy: what to do if it is missing, a sentence; "": nothing.

  Returns:
    The `h5py.Dataset`, which can be read.

  Raises:
    ValueError: if it is missing, in another file, of another rank, or holds no
      numbers that can be read.
  """
  path = group.file.filename
  dataset = group.get(name)
  if not isinstance(dataset, _h5py().Dataset):
    raise ValueError(
      f"{path}: split {group.name} has no dataset {name!r}; there is: "
      f"{', '.join(group) or 'nothing'}.{remedy and ' '}{remedy}"
    )
  _check_home(dataset, path)
  _check_storage(dataset, path)
  if len(dataset.shape or ()) not in ranks:
    raise unfit(dataset, f"{' or '.join(map(str, ranks))} dimensions")
  return dataset


def rows_per_slice(datasets: Sequence[Any], row_bytes: int) -> int:
  """How many rows to read at a time, so that each chunk is unpacked once.

  Args:
    datasets: the `h5py.Dataset`s with large rows, read together.
    row_bytes: bytes of a row of all of them.

  Returns:
    A multiple of the rows in a chunk of each, if that fits into memory; slices
    then have to begin at multiples of it. Otherwise a warning tells the remedy.
  """
  row_bytes = max(row_bytes, 1)
  rows = max(_SLICE_BYTES // row_bytes, 1)
  chunk = math.lcm(
    *(dataset.chunks[0] for dataset in datasets if dataset.chunks)
  )
  if chunk <= rows:
    return rows - rows % chunk
  if chunk * row_bytes <= _MOST_SLICE_BYTES:
    return chunk
  _LOG.warning(
    "%s: chunks of %s rows are too large to hold, so each is unpacked about %d "
    "times while the file is read once. Set data.cache_dir, or store the file "
    "in small chunks: %s",
    datasets[0].file.filename,
    f"{chunk:,}",
    math.ceil(chunk / rows),
    _repacking(datasets),
  )
  return rows


def _repacking(datasets: Sequence[Any]) -> str:
  """The command that stores datasets with a row in each chunk."""
  options = [
    f"-l {dataset.name}:CHUNK={'x'.join(map(str, (1, *dataset.shape[1:])))}"
    for dataset in datasets
  ]
  return f"h5repack {' '.join(options)} OLD NEW"


def _h5py() -> Any:
  try:
    import h5py  # type: ignore
  except ModuleNotFoundError:
    raise ValueError(
      "HDF5: needs the package h5py, which the extra `hdf5` installs (in a "
      "checkout: pip install '.[hdf5]')."
    ) from None
  return h5py


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


def check_pixels(dataset: Any, num_pixels: int) -> None:
  """Raises ValueError if a row has more pixels than any image or mask.

  A file of a few kilobytes may claim to be of any size.
  """
  if num_pixels > image_files.MAX_PIXELS:
    raise unfit(
      dataset, f"at most {image_files.MAX_PIXELS:,} pixels in a scene"
    )


def unfit(dataset: Any, expected: str) -> ValueError:
  """The error for a dataset of an unexpected shape."""
  return ValueError(
    f"{dataset.file.filename}: {dataset.name} has the shape {dataset.shape}; "
    f"expected {expected}."
  )


def read_images(dataset: Any, rows: slice) -> np.ndarray:
  """Reads rows of images.

  Args:
    dataset: the `h5py.Dataset`, [N, h, w, C].
    rows: which to read.

  Returns:
    [n, h, w, C] uint8.

  Raises:
    ValueError: if they hold other values than integers from 0 to 255.
  """
  values = dataset[rows]
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
