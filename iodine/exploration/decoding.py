"""Slots of latents, scenes of slots, and samples."""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine.scene_model import Composition, DecodedSlots, SceneModel, mix

__all__ = [
  "Varied",
  "compose",
  "decode_slots",
  "prior_samples",
  "render",
  "vary_latents",
]

_SCENES_AT_ONCE = 8  # decoded at once, to limit memory


def decode_slots(model: SceneModel, z: np.ndarray) -> DecodedSlots:
  """Decodes latents, each to a slot of its own.

  Args:
    model: model whose variables exist.
    z: [..., Z] float.

  Returns:
    The slots, with the leading axes of `z`.
  """
  z = np.asarray(z, np.float32)
  rows = z.reshape(-1, z.shape[-1])
  parts = [
    _arrays(model.decode_each(tf.constant(part)))
    for part in _parts(rows, _SCENES_AT_ONCE * model.num_components)
  ]

  def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    slots = np.concatenate(arrays)
    return slots.reshape(*z.shape[:-1], *slots.shape[1:])

  return DecodedSlots(*map(join, zip(*parts, strict=True)))


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
  for start in range(0, len(rows), size):
    yield rows[start : start + size]


def _arrays(tensors: Iterable[Any]) -> list[Any]:
  """Tensors in NumPy; what is None stays."""
  return [None if x is None else x.numpy() for x in tensors]


def compose(components: np.ndarray, mask_logits: np.ndarray) -> Composition:
  """Composes scenes from decoded slots, see `scene_model.mix`.

  Args:
    components: [..., K, H, W, C].
    mask_logits: [..., K, H, W, 1].

  Returns:
    The scenes.
  """
  return Composition(*_arrays(mix(DecodedSlots(components, mask_logits))))


def render(model: SceneModel, z: np.ndarray) -> Composition:
  """Renders scenes from latents of any number of slots.

  Args:
    model: model whose variables exist, and which `can("compose")`.
    z: [N, K, Z] float, N and K at least 1.

  Returns:
    The scenes, see `SceneModel.compose`.
  """
  parts = [
    _arrays(model.compose(tf.constant(part)))
    for part in _parts(np.asarray(z, np.float32), _SCENES_AT_ONCE)
  ]
  return Composition(
    *(
      None if arrays[0] is None else np.concatenate(arrays)
      for arrays in zip(*parts, strict=True)
    )
  )


def prior_samples(
  model: SceneModel, num_samples: int = 12, seed: int = 0
) -> Composition:
  """Samples scenes; see `SceneModel.sample`.

  Args:
    model: model whose variables exist.
    num_samples: number of scenes.
    seed: seed of the noise, from 0 to 2**31 - 1.

  Returns:
    The scenes, [num_samples, ...].
  """
  scenes = model.sample(num_samples, tf.constant([seed, 1], tf.int32))
  return Composition(*_arrays(scenes))


class Varied(NamedTuple):
  """A slot and its scene as each of R latents takes N values.

  Attributes:
    components: [R, N, H, W, C], the slot alone; None if the model cannot
      decode one slot.
    masks: [R, N, H, W, 1], the slot's masks; None likewise.
    scenes: [R, N, H, W, C].
  """

  components: np.ndarray | None
  masks: np.ndarray | None
  scenes: np.ndarray


def vary_latents(
  model: SceneModel,
  z: np.ndarray,
  slot: int,
  latents: np.ndarray,
  values: np.ndarray,
) -> Varied:
  """Renders a scene with other values of the latents of a slot, one by one.

  Args:
    model: model whose variables exist, and which `can("compose")`.
    z: [K, Z], the scene's slots.
    slot: index of the slot.
    latents: [R] int, indices of the latents.
    values: [R, N], of each of these latents.

  Returns:
    The slot and the scene, of every value; only that slot is decoded again
    where slots are decoded individually.
  """
  rows, columns = np.indices(values.shape)
  varied = np.tile(z[slot], [*values.shape, 1])
  varied[rows, columns, latents[:, np.newaxis]] = values
  if model.can("decode_slots"):
    alone = decode_slots(model, varied)
    scenes = compose(*_with_slot(decode_slots(model, z), slot, alone))
    assert scenes.masks is not None
    return Varied(alone.components, scenes.masks[:, :, slot], scenes.recons)
  slots = np.tile(z, [*values.shape, 1, 1])
  slots[:, :, slot] = varied
  recons = render(model, slots.reshape(-1, *z.shape)).recons
  return Varied(None, None, recons.reshape(*values.shape, *recons.shape[1:]))


def _with_slot(
  scene: DecodedSlots, slot: int, varied: DecodedSlots
) -> DecodedSlots:
  """Repeats a scene of K slots for each of [R, N] variants of one slot."""

  def put(slots: np.ndarray, variants: np.ndarray) -> np.ndarray:
    tiled = np.tile(slots, [*variants.shape[:2], 1, 1, 1, 1])
    tiled[:, :, slot] = variants
    return tiled

  return DecodedSlots(*map(put, scene, varied))
