"""The base of datasets in TFRecord files, and their readers by name."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import tensorflow as tf

from iodine import checks
from iodine.data.pipeline import IODINEDataset
from iodine.tfrecords import inspection

__all__ = ["Reader", "RecordDataset", "resolve_reader"]

Reader = Callable[..., tf.data.Dataset]

_DEEPMIND_PACKAGE = "multi_object_datasets"
# Packages that readers named in a config may come from.
_READER_PACKAGES = (_DEEPMIND_PACKAGE, f"iodine.{_DEEPMIND_PACKAGE}")


@dataclasses.dataclass(eq=False)
class RecordDataset(IODINEDataset):
  """Scenes from TFRecord files, through a reader.

  The files need not exist until the first batch is requested.

  Attributes:
    path: path of the file, or a sequence of paths to read in turn; may contain
      wildcards ("train-*-of-00100"). Made absolute; "~" is expanded.
    reader: replaces the package's own reader: a callable with the same
      signature, or its dotted name within `multi_object_datasets` (DeepMind's
      package) or `iodine`; None: the package's own.
    download_url: where to download the file, or None.
    synthetic_command: arguments of `python -m iodine.synthetic` that write such
      a file, or None.
  """

  download_url = cast("str | None", None)
  synthetic_command = cast("str | None", None)

  path: str | os.PathLike | Sequence[str | os.PathLike]
  _: dataclasses.KW_ONLY
  reader: Reader | str | None = None

  def __post_init__(self):
    super().__post_init__()
    self._paths = _absolute_paths(self.path)
    self.path = self._paths[0] if len(self._paths) == 1 else self._paths
    self._read = resolve_reader(self.reader) or self._default_reader()

  def examples(self) -> tf.data.Dataset:
    """Opens the files; see `IODINEDataset.examples`."""
    paths = self.stored_files()
    path = paths[0] if len(paths) == 1 else paths
    examples = self._read(
      path, *self._reader_args(), map_parallel_calls=tf.data.AUTOTUNE
    )
    return examples.map(self._with_factors)

  def stored_files(self) -> list[str]:
    """Lists the files, wildcards expanded.

    Raises:
      FileNotFoundError: if one does not exist.
    """
    found = [_expanded(path) for path in self._paths]
    missing = [
      path for path, files in zip(self._paths, found, strict=True) if not files
    ]
    if missing:
      raise FileNotFoundError(self._missing(missing))
    return sum(found, [])

  @abc.abstractmethod
  def expected_features(self) -> Mapping[str, tf.io.FixedLenFeature]:
    """Describes the features of one record."""

  def estimated_num_examples(self) -> int:
    """Estimates the number of scenes from the sizes of the first ones."""
    return sum(map(inspection.estimate_records, self.stored_files()))

  @abc.abstractmethod
  def _default_reader(self) -> Reader:
    """Returns the package's own reader."""

  def _reader_args(self) -> tuple[str, ...]:
    """Arguments of the reader after the path."""
    return ()

  def _factors(self, example: dict) -> dict[str, tf.Tensor]:
    """Extracts factors {name: [L, n] or [L]} from a reader's scene."""
    return {name: example[name] for name in self.factors}

  def _with_factors(self, example: dict) -> dict[str, Any]:
    scene = {
      name: example[name]
      for name in ("image", "mask", "visibility")
      if name in example
    }
    return {**scene, "factors": self._factors(example)}

  def _faults(self) -> Iterator[str | None]:
    yield checks.paths_fault("path", self.path)
    yield from super()._faults()
    yield _reader_fault(self.reader)

  def _source(self) -> Any:
    return [
      [path, stat.length, stat.mtime_nsec]
      for path in self.stored_files()
      for stat in [tf.io.gfile.stat(path)]
    ]

  def _missing(self, paths: Sequence[str]) -> str:
    lines = [f"{type(self).__name__}: there is no file {paths[0]}."]
    if len(paths) > 1:
      lines[0] += f" ({len(paths) - 1} more are missing.)"
    if self.download_url:
      lines.append(f"Download it from {self.download_url}")
    if self.synthetic_command:
      lines.append(
        f"Generate one: python -m iodine.synthetic {self.synthetic_command} "
        f"--seed 0 --output {shlex.quote(paths[0])}"
      )
    return "\n  ".join(lines)

  def __str__(self) -> str:
    return f"{type(self).__name__}: {', '.join(self._paths)}"


def _absolute_paths(path: Any) -> tuple[str, ...]:
  """Expands "~" and makes paths absolute; a URL ("gs://...") stays as it is."""
  paths = [path] if isinstance(path, str | os.PathLike) else path
  return tuple(
    os.fspath(part)
    if "://" in os.fspath(part)
    else os.path.abspath(os.path.expanduser(part))
    for part in paths
  )


def _expanded(path: str) -> list[str]:
  """The files that a path with optional wildcards matches, if any."""
  try:
    files = inspection.expand_paths(path)
  except FileNotFoundError:
    return []
  return files if tf.io.gfile.exists(files[0]) else []


def _reader_fault(reader: Any) -> str | None:
  """Error in a reader's name; None: it is correct, or not a name."""
  if reader is None or callable(reader):
    return None
  if isinstance(reader, str) and any(
    reader.startswith(f"{package}.") for package in _READER_PACKAGES
  ):
    return None
  return (
    f"reader={reader!r}: expected the dotted name of a function within "
    f"{' or '.join(_READER_PACKAGES)}, such as "
    "multi_object_datasets.tetrominoes.dataset"
  )


def resolve_reader(reader: Reader | str | None) -> Reader | None:
  """Imports a reader by name; raises ValueError if that fails."""
  if not isinstance(reader, str):
    return reader
  module_name, _, function_name = reader.rpartition(".")
  package = module_name.split(".")[0]
  is_deepmind = package == _DEEPMIND_PACKAGE
  try:
    with _tensorflow_1_api() if is_deepmind else contextlib.nullcontext():
      module = importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    if error.name == _DEEPMIND_PACKAGE:
      raise ValueError(
        f"reader={reader!r}: DeepMind's package multi_object_datasets is not "
        "installed. Install the extra `deepmind-readers` (in the checkout: "
        "pip install '.[deepmind-readers]'), or leave `reader` out to use "
        "the built-in one."
      ) from None
    raise ValueError(f"reader={reader!r}: {error}.") from None
  function = getattr(module, function_name, None)
  # Names that a module merely imports are not readers.
  home = str(getattr(function, "__module__", ""))
  if not callable(function) or not home.startswith(_READER_PACKAGES):
    raise ValueError(
      f"reader={reader!r}: {module_name} has no function {function_name!r}."
    )
  return function


@contextlib.contextmanager
def _tensorflow_1_api() -> Iterator[None]:
  """Lets modules imported inside see TensorFlow 1's API as `tensorflow`.

  DeepMind's readers use names such as `tf.FixedLenFeature`.
  """
  tensorflow = sys.modules["tensorflow"]
  sys.modules["tensorflow"] = tf.compat.v1
  try:
    yield
  finally:
    sys.modules["tensorflow"] = tensorflow
