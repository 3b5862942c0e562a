"""Weights from files of PyTorch, which need the package torch.

Only numbers are read: a file never runs code (`weights_only` of `torch.load`).
"""

import argparse
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from iodine.tf1_checkpoint import CheckpointError

__all__ = ["is_file", "read"]

# Ends of the names of files of `torch.save` and of PyTorch Lightning.
_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt")
# Where the weights are, if not at the top: of Lightning, and of SLATE's
# checkpoint.pt.tar.
_KEYS_OF_WEIGHTS = ("state_dict", "model")
# What Lightning and data-parallel training put before every name.
_PREFIXES = ("model.", "module.")


def is_file(path: str) -> bool:
  """Whether a path is, by its name, that of a file of PyTorch."""
  return path.endswith(_SUFFIXES) and pathlib.Path(path).is_file()


def read(path: str) -> dict[str, np.ndarray]:
  """Reads the weights of a file that `torch.save` wrote.

  Args:
    path: of a file with a `state_dict`, or with a dict that holds one under the
      key `state_dict` (PyTorch Lightning) or `model`.

  Returns:
    {name: value} under PyTorch's names and in its layouts, without a leading
    `model.` or `module.` that all have. Numbers of 16 bits become float32.

  Raises:
    CheckpointError: if torch is not installed, or the file is damaged, has
      anything but numbers and plain values in it, or no weights.
  """
  content = _load(path)
  for key in _KEYS_OF_WEIGHTS:
    if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
      content = content[key]
  tensors = content.items() if isinstance(content, Mapping) else ()
  values = {
    name: _array(path, name, value)
    for name, value in tensors
    if isinstance(name, str) and hasattr(value, "untyped_storage")
  }
  if not values:
    raise CheckpointError(
      f"{path}: holds no weights. Expected a `state_dict`, or a dict with one "
      f"under the key {' or '.join(map(repr, _KEYS_OF_WEIGHTS))}."
    )
  for prefix in _PREFIXES:
    if all(name.startswith(prefix) for name in values):
      values = {name.removeprefix(prefix): v for name, v in values.items()}
  return values


def _load(path: str) -> Any:
  """What is in a file; see `read`."""
  try:
    import torch
  except ModuleNotFoundError:
    raise CheckpointError(
      f"{path}: a file of PyTorch. To read it, install the package torch, "
      "which the extra `pytorch` installs (in a checkout: pip install "
      "'.[pytorch]')."
    ) from None
  try:
    _check_archive(path)
    # Lightning may keep a run's options as a Namespace.
    with torch.serialization.safe_globals([argparse.Namespace]):
      return torch.load(path, weights_only=True, map_location="cpu")
  except Exception as error:  # Damaged bytes can raise whatever there is.
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
      # What comes before advises to load the file all the same.
      reason = reason.rpartition("WeightsUnpickler error: ")[2]
      if match := re.search(r"GLOBAL (\S*\w)", reason):
        raise CheckpointError(
          f"{path}: holds more than numbers, and to read that could run code "
          f"({match[1]}). If you trust it, save its weights alone with "
          "PyTorch: torch.save(model.state_dict(), ...)."
        ) from error
    raise CheckpointError(
      f"{path}: cannot be read as a file of PyTorch ({reason[:200]}). Copy or "
      "download it again."
    ) from error


def _check_archive(path: str) -> None:
  """Raises ValueError for an archive that PyTorch has not written like this.

  PyTorch itself looks at no sums, and unpacks whatever it is told to.
  """
  if not zipfile.is_zipfile(path):  # of before PyTorch 1.6
    return
  with zipfile.ZipFile(path) as archive:
    sizes = [part.file_size for part in archive.infolist()]
    if sum(sizes) > pathlib.Path(path).stat().st_size:
      raise ValueError("its parts are larger than the file")
    if damaged := archive.testzip():
      raise ValueError(f"its part {damaged} is damaged")


def _array(path: str, name: str, tensor: Any) -> np.ndarray:
  """The values of a tensor; see `read`."""
  try:
    if tensor.numel() * tensor.element_size() > len(tensor.untyped_storage()):
      raise TypeError("it repeats numbers")
    if tensor.is_floating_point() and tensor.element_size() < 4:
      tensor = tensor.float()
    return tensor.detach().numpy()
  except (RuntimeError, TypeError) as error:
    reason = str(error).splitlines()[0]
    raise CheckpointError(
      f"{path}: {name} cannot be read ({reason}). Save it as a dense tensor."
    ) from error
