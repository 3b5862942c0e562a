"""Explores a trained model: inference, traversals, edited scenes, samples.

Results are NumPy arrays; `iodine.pictures.latents` and
`iodine.pictures.animations` plot them.

Dimensions: B batch, S refinement steps + 1, K slots, Z latent size, R latents,
N values of a latent, H height, W width, C channels. Slots, latents and scenes
are counted from 0. Images and masks are in [0, 1]; KL is in nats.
"""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine.metrics import SCENE_SCORES
from iodine.scene_model import Composition, DecodedSlots, SceneModel

__all__ = [
  "Composition",
  "DecodedSlots",
  "Removal",
  "Swap",
  "Traversal",
  "compose",
  "decode_slots",
  "infer",
  "latent_kl",
  "latent_range",
  "object_slot",
  "prior_samples",
  "remove_slots",
  "step_scores",
  "structure",
  "swap_slots",
  "traverse",
]

RANGES = ("posterior", "prior")
_SCENES_AT_ONCE = 8  # decoded at once, to limit memory


class Traversal(NamedTuple):
  """A slot and its scene as each of R latents takes N values.

  Attributes:
    slot: index of the slot.
    latents: [R] indices of the latents, highest KL first unless chosen.
    kl: [R] KL of each latent from the prior, mean over a batch and its slots.
    offsets: [N] values, in standard deviations from the centre.
    current: [R] inferred values, likewise.
    range_of: source of centre and deviation, "posterior" or "prior".
    components: [R, N, H, W, C], the slot alone.
    masks: [R, N, H, W, 1], the slot's masks.
    scenes: [R, N, H, W, C], composed with the other slots unchanged.
  """

  slot: int
  latents: np.ndarray
  kl: np.ndarray
  offsets: np.ndarray
  current: np.ndarray
  range_of: str
  components: np.ndarray
  masks: np.ndarray
  scenes: np.ndarray


class Removal(NamedTuple):
  """A scene without one of its slots, for every slot.

  Attributes:
    image: [H, W, C].
    whole: the scene with all slots.
    without: the scenes without slot k, at index k of the first axis.
  """

  image: np.ndarray
  whole: Composition
  without: Composition


class Swap(NamedTuple):
  """Two scenes before and after they swap a slot; first axes of size 2.

  Attributes:
    slots: indices of the slot in the first and in the second scene.
    images: [2, H, W, C].
    before: the inferred scenes.
    components: [2, H, W, C], the swapped slots.
    after: the scenes, each with the other's slot in place of its own.
  """

  slots: tuple[int, int]
  images: np.ndarray
  before: Composition
  components: np.ndarray
  after: Composition


def infer(
  model: SceneModel, batch: Mapping[str, Any], seed: int = 0
) -> dict[str, Any]:
  """Runs a model on a batch and returns everything it infers, in NumPy.

  The variables do not depend on the number of slots or refinement steps: build
  a model with other `num_components` or `num_iters`, and restore it.

  Args:
    model: restored model.
    batch: see `SceneModel.eval`; for your own images: `dataset.image_batch`.
    seed: seed of the latents' noise, from 0 to 2**31 - 1.

  Returns:
    See `SceneModel.eval`.

  Raises:
    ValueError: if the batch does not fit the model, or a pixel is outside
      [0, 1].
  """
  info = model.eval(batch, seed=tf.constant([seed, 0], tf.int32))
  return tf.nest.map_structure(lambda tensor: tensor.numpy(), info)


def step_scores(info: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Losses and metrics after every refinement step.

  Args:
    info: result of `infer`.

  Returns:
    {description: [S]}, means over the scenes for which a score is defined; only
    scores that the data allows.
  """
  values, losses = dict(info["metrics"]), info.get("losses", {})
  if "recons" in losses:
    values["recons"] = losses["recons"]
  if "kl" in losses:
    values["kl"] = losses["kl"].sum(axis=-1)
  scores = {}
  for name, label in SCENE_SCORES.items():
    if name in values:
      defined = values[name][np.isfinite(values[name]).all(axis=1)]
      if len(defined):
        scores[label] = defined.mean(axis=0)
  if "factor" in losses:
    scores["factor regression loss"] = losses["factor"]
  return scores


def structure(info: Mapping[str, Any]) -> str:
  """Formats an info as a text tree of names, shapes and dtypes.

  Args:
    info: result of `infer`, or a part of it.

  Returns:
    One line per entry; entries of nested dicts are indented.
  """
  rows = list(_rows(info))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows
  )


def _rows(info: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, ...]]:
  """Yields name, shape and dtype of all entries."""
  for name, value in info.items():
    indented = 2 * depth * " " + name
    if isinstance(value, Mapping):
      yield indented, "", ""
      yield from _rows(value, depth + 1)
    else:
      yield indented, str(list(value.shape)), str(value.dtype)


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
  missing = -len(rows) % model.num_components
  groups = np.pad(rows, [(0, missing), (0, 0)]).reshape(
    -1, model.num_components, z.shape[-1]
  )
  parts = []
  for start in range(0, len(groups), _SCENES_AT_ONCE):
    slots = model.decode_slots(
      tf.constant(groups[start : start + _SCENES_AT_ONCE])
    )
    parts.append([array.numpy() for array in slots])

  def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    slots = np.concatenate(arrays)
    slots = slots.reshape(-1, *slots.shape[2:])[: len(rows)]
    return slots.reshape(*z.shape[:-1], *slots.shape[1:])

  return DecodedSlots(*map(join, zip(*parts, strict=True)))


def compose(components: np.ndarray, mask_logits: np.ndarray) -> Composition:
  """Composes scenes from slots.

  Args:
    components: [..., K, H, W, C].
    mask_logits: [..., K, H, W, 1]; minus infinity removes a slot, and the
      others fill in according to their masks. At least one slot must remain.

  Returns:
    The scenes.
  """
  weights = np.exp(mask_logits - mask_logits.max(axis=-4, keepdims=True))
  masks = weights / weights.sum(axis=-4, keepdims=True)
  return Composition((masks * components).sum(axis=-4), masks)


def latent_kl(model: SceneModel, info: Mapping[str, Any]) -> np.ndarray:
  """Computes the KL of every latent's posterior from its prior.

  Exact for normal latents, as in all configurations; otherwise, the KL between
  normal distributions with the same moments.

  Args:
    model: the model that made `info`.
    info: result of `infer`.

  Returns:
    [B, S, K, Z] nats. For normal latents, its sum over Z is the KL in `info`.
  """
  prior, latent = _prior(model), info["latent"]
  kl = tfd.kl_divergence(
    tfd.Normal(latent["z_mean"], latent["z_std"]),
    tfd.Normal(prior.mean(), prior.stddev()),
  )
  return kl.numpy()


def _prior(model: SceneModel) -> tfd.Distribution:
  if model.prior is None:
    raise ValueError(f"{type(model).__name__} has no prior of its latents")
  return model.prior


def object_slot(info: Mapping[str, Any], b: int = 0) -> int:
  """Returns the slot that most likely contains an object.

  This is the slot with the highest KL, because empty slots and plain
  backgrounds stay close to the prior. Without a KL, it is the one with the
  second largest segment; the largest is usually the background.

  Args:
    info: result of `infer`.
    b: index of the scene in the batch.

  Returns:
    Index of the slot.

  Raises:
    ValueError: if `b` is out of range.
  """
  masks = info["outputs"]["pred_mask"]  # [B, S, K, H, W, 1]
  _check_index("b", b, len(masks))
  if "kl" in info.get("losses", {}):
    return int(info["losses"]["kl"][b, -1].argmax())
  owners = masks[b, -1].argmax(axis=0).ravel()
  sizes = np.bincount(owners, minlength=masks.shape[2])
  return int(np.argsort(-sizes, kind="stable")[1])


def latent_range(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  range_of: str = "posterior",
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the range of a slot's latents.

  Args:
    model: the model that made `info`.
    info: result of `infer`.
    slot: index of the slot.
    range_of: "posterior": mean and standard deviation of the posterior means
      of all slots in the batch; "prior": those of the prior.

  Returns:
    Centre and standard deviation, [Z] each; the latter is positive.

  Raises:
    ValueError: if an argument is out of range.
  """
  if range_of not in RANGES:
    raise ValueError(f"range_of={range_of!r}: expected one of {RANGES}.")
  _check_index("slot", slot, model.num_components)
  if range_of == "posterior":
    means = info["latent"]["z_mean"][:, -1]
    centre, deviation = means.mean(axis=(0, 1)), means.std(axis=(0, 1))
  else:
    prior = _prior(model)
    centre, deviation = prior.mean()[slot].numpy(), prior.stddev()[slot].numpy()
  return centre, np.maximum(deviation, np.finfo(np.float32).tiny)


def traverse(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  b: int = 0,
  latents: Sequence[int] | None = None,
  num_latents: int = 8,
  num_values: int = 9,
  extent: float = 2.0,
  range_of: str = "posterior",
) -> Traversal:
  """Varies latents of a slot one by one, after the last refinement step.

  Args:
    model: the model that made `info`.
    info: result of `infer`.
    slot: index of the slot.
    b: index of the scene in the batch.
    latents: indices of the latents; None: the `num_latents` of highest KL.
    num_latents: R, if `latents` is None.
    num_values: N.
    extent: largest offset from the centre, in standard deviations.
    range_of: see `latent_range`.

  Returns:
    The traversal. The other latents and slots stay at their posterior means.

  Raises:
    ValueError: if an argument is out of range.
  """
  means = info["latent"]["z_mean"][:, -1]  # [B, K, Z]
  _check_index("b", b, len(means))
  centre, deviation = latent_range(model, info, slot, range_of)
  kl = latent_kl(model, info)[:, -1].mean(axis=(0, 1))
  if latents is None:
    latents = np.argsort(-kl, kind="stable")[:num_latents].tolist()
  for latent in latents:
    _check_index("latents", latent, model.n_z)
  chosen = np.array(latents, int)
  offsets = np.linspace(-extent, extent, num_values)
  values = centre[chosen, None] + deviation[chosen, None] * offsets
  z = np.tile(means[b, slot], [len(chosen), num_values, 1])
  z[np.arange(len(chosen))[:, None], np.arange(num_values), chosen[:, None]] = (
    values
  )
  varied = decode_slots(model, z)
  scenes = _with_slot(decode_slots(model, means[b]), slot, varied)
  composed = compose(*scenes)
  return Traversal(
    slot=slot,
    latents=chosen,
    kl=kl[chosen],
    offsets=offsets,
    current=(means[b, slot, chosen] - centre[chosen]) / deviation[chosen],
    range_of=range_of,
    components=varied.components,
    masks=composed.masks[:, :, slot],
    scenes=composed.recons,
  )


def _with_slot(
  scene: DecodedSlots, slot: int, varied: DecodedSlots
) -> DecodedSlots:
  """Repeats a scene of K slots for each of [R, N] variants of one slot."""

  def put(slots: np.ndarray, variants: np.ndarray) -> np.ndarray:
    tiled = np.tile(slots, [*variants.shape[:2], 1, 1, 1, 1])
    tiled[:, :, slot] = variants
    return tiled

  return DecodedSlots(*map(put, scene, varied))


def remove_slots(info: Mapping[str, Any], b: int = 0) -> Removal:
  """Removes each slot of a scene in turn, after the last refinement step.

  Args:
    info: result of `infer`.
    b: index of the scene in the batch.

  Returns:
    The scenes; the other slots fill in where a slot was.

  Raises:
    ValueError: if `b` is out of range.
  """
  image, slots = _scene(info, b)
  num_slots = len(slots.components)
  removed = np.tile(slots.mask_logits, [num_slots, 1, 1, 1, 1])
  removed[np.arange(num_slots), np.arange(num_slots)] = -np.inf
  return Removal(image, compose(*slots), compose(slots.components, removed))


def swap_slots(
  info: Mapping[str, Any], first: tuple[int, int], second: tuple[int, int]
) -> Swap:
  """Swaps slots between two scenes, after the last refinement step.

  Args:
    info: result of `infer`.
    first: (b, slot), indices of a scene in the batch and of a slot in it.
    second: likewise.

  Returns:
    The scenes.

  Raises:
    ValueError: if a scene or slot is out of range.
  """
  num_slots = info["outputs"]["components"].shape[2]
  scenes = [_scene(info, b) for b, _ in (first, second)]
  slots = (first[1], second[1])
  for slot in slots:
    _check_index("slot", slot, num_slots)
  images = np.stack([image for image, _ in scenes])
  components, logits = (
    np.stack([getattr(scene, name) for _, scene in scenes])
    for name in DecodedSlots._fields
  )
  before = compose(components, logits)
  own = ([0, 1], list(slots))
  other = ([1, 0], list(reversed(slots)))
  swapped = components[own]
  for array in (components, logits):
    array[own] = array[other]
  return Swap(slots, images, before, swapped, compose(components, logits))


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
  return Composition(*(array.numpy() for array in scenes))


def _scene(info: Mapping[str, Any], b: int) -> tuple[np.ndarray, DecodedSlots]:
  """Returns the last frame, and the slots of the last refinement step."""
  outputs = info["outputs"]
  _check_index("b", b, len(outputs["components"]))
  image = info["data"]["image"][b, -1]
  slots = (outputs["components"], outputs["pred_mask_logits"])
  return image, DecodedSlots(*(value[b, -1] for value in slots))


def _check_index(name: str, index: int, length: int) -> None:
  if not 0 <= index < length:
    raise ValueError(f"{name}={index}: expected from 0 to {length - 1}.")
