"""Serialises `tf.train.Example`s of fixed shape in NumPy.

The multi-object datasets store every byte of an image as a separate bytes-list
entry, so a scene has thousands of Python objects, and building its
`tf.train.Example` takes longer than drawing it. But all scenes of a dataset
have the same shapes, and every value has the same wire size, so two records
differ only in their payload bytes. `RecordLayout` writes these into copies of
one template, a whole batch at a time.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

__all__ = ["Feature", "RecordLayout"]

# Field numbers of tensorflow/core/example/{example,feature}.proto.
_EXAMPLE_FEATURES = 1
_FEATURES_ENTRY = 1
_ENTRY_KEY = 1
_ENTRY_VALUE = 2
_LIST_FIELD = {"bytes": 1, "float": 2}  # Feature.bytes_list, .float_list
_LIST_VALUE = 1

_DTYPES: dict[str, np.dtype] = {
  "bytes": np.dtype(np.uint8),
  "float": np.dtype("<f4"),
}


class Feature(NamedTuple):
  """One feature of a scene.

  Attributes:
    shape: shape of the values of one scene, without a batch axis.
    kind: "bytes" (uint8, each value a separate bytes-list entry) or "float"
      (float32, a packed float list).
  """

  shape: tuple[int, ...]
  kind: Literal["bytes", "float"]


class RecordLayout:
  """Serialises batches of scenes, each to a `tf.train.Example`.

  The features of a record are sorted by name, as in
  `Example.SerializeToString(deterministic=True)`.

  ```
  layout = RecordLayout({"image": Feature((2, 3, 1), "bytes")})
  records = layout.encode({"image": np.zeros([5, 2, 3, 1], np.uint8)})
  tf.train.Example.FromString(records[0].tobytes())
  ```
  """

  def __init__(self, features: Mapping[str, Feature]):
    self._features = dict(features)
    body = b""
    ends = {}
    for name in sorted(features):
      body += _delimited(_FEATURES_ENTRY, _map_entry(name, features[name]))
      ends[name] = len(body)
    template = _delimited(_EXAMPLE_FEATURES, body)
    self._template = np.frombuffer(template, np.uint8)
    header_size = len(template) - len(body)
    # A map entry ends with its values.
    self._payloads = {
      name: _payload_slice(features[name], header_size + end)
      for name, end in ends.items()
    }

  @property
  def record_size(self) -> int:
    """Size of one record in bytes."""
    return self._template.size

  def encode(self, scenes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Serialises a batch of scenes.

    Args:
      scenes: a `[B, *shape]` array for each feature, uint8 for "bytes" and
        float32 for "float".

    Returns:
      [B, record_size] uint8, one serialised `tf.train.Example` per row.

    Raises:
      ValueError: if a feature is missing or unknown, or an array has the wrong
        shape, dtype or batch size.
    """
    batch_size = self._check(scenes)
    records = np.tile(self._template, (batch_size, 1))
    for name, payload in self._payloads.items():
      dtype = _DTYPES[self._features[name].kind]
      values = np.ascontiguousarray(scenes[name], dtype)
      size = values.nbytes // batch_size if batch_size else 0
      if size:
        records[:, payload] = values.view(np.uint8).reshape(batch_size, size)
    return records

  def _check(self, scenes: Mapping[str, np.ndarray]) -> int:
    """Returns the batch size of scenes that fit the layout."""
    if set(scenes) != set(self._features):
      raise ValueError(
        f"The scenes have the features {sorted(scenes)}, the layout has "
        f"{sorted(self._features)}: pass one array for each of the latter."
      )
    batch_size = len(next(iter(scenes.values())))
    for name, feature in self._features.items():
      expected = (batch_size, *feature.shape)
      dtype = _DTYPES[feature.kind]
      values = scenes[name]
      if values.shape != expected or values.dtype != dtype:
        raise ValueError(
          f"{name!r} is {values.dtype}{list(values.shape)}, the layout "
          f"needs {dtype}{list(expected)}."
        )
    return batch_size


def _map_entry(name: str, feature: Feature) -> bytes:
  """Returns an entry of `Features.feature` whose values are all zero."""
  count = math.prod(feature.shape)
  if feature.kind == "bytes":
    values = _delimited(_LIST_VALUE, b"\0") * count
  else:
    values = _delimited(_LIST_VALUE, bytes(4 * count))
  value = _delimited(_LIST_FIELD[feature.kind], values)
  return _delimited(_ENTRY_KEY, name.encode()) + _delimited(_ENTRY_VALUE, value)


def _payload_slice(feature: Feature, end: int) -> slice:
  """Position of the values in a record, given the end of their map entry."""
  count = math.prod(feature.shape)
  if feature.kind == "bytes":
    stride = len(_delimited(_LIST_VALUE, b"\0"))
    return slice(end - stride * (count - 1) - 1, end, stride)
  return slice(end - 4 * count, end)


def _delimited(field: int, payload: bytes) -> bytes:
  """A length-delimited field: tag, length, payload."""
  return bytes([field << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
  """Base 128, least significant group first."""
  groups = []
  while value > 0x7F:
    groups.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*groups, value])
