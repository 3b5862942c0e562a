"""Readers that a configuration names: imported, never anything else."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

__all__ = ["Reader", "reader_fault", "resolve_reader"]

Reader = Callable[..., tf.data.Dataset]

_DEEPMIND_PACKAGE = "multi_object_datasets"
# Where a reader that is named in a config may come from.
_READER_PACKAGES = (_DEEPMIND_PACKAGE, f"iodine.{_DEEPMIND_PACKAGE}")


def reader_fault(reader: Any) -> str | None:
  """Says what is wrong with a reader's name; None: nothing, or no name."""
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
  """Imports the reader of that name; raises ValueError if it cannot."""
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
  # What a module has merely imported is no reader.
  home = str(getattr(function, "__module__", ""))
  if not callable(function) or not home.startswith(_READER_PACKAGES):
    raise ValueError(
      f"reader={reader!r}: {module_name} has no function {function_name!r}."
    )
  return function


@contextlib.contextmanager
def _tensorflow_1_api() -> Iterator[None]:
  """Gives modules that are imported here TensorFlow 1's API as `tensorflow`.

  DeepMind's readers use names such as `tf.FixedLenFeature`.
  """
  tensorflow = sys.modules["tensorflow"]
  sys.modules["tensorflow"] = tf.compat.v1
  try:
    yield
  finally:
    sys.modules["tensorflow"] = tensorflow
