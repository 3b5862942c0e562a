"""What the latents of a slot do."""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow_probability import distributions as tfd

from iodine import checks
from iodine.exploration.decoding import compose, decode_slots
from iodine.scene_model import DecodedSlots, SceneModel

__all__ = [
  "RANGES",
  "Traversal",
  "latent_kl",
  "latent_range",
  "traverse",
]

RANGES = ("posterior", "prior")


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
  checks.check_index("slot", slot, model.num_components)
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
  checks.check_index("b", b, len(means))
  centre, deviation = latent_range(model, info, slot, range_of)
  kl = latent_kl(model, info)[:, -1].mean(axis=(0, 1))
  if latents is None:
    latents = np.argsort(-kl, kind="stable")[:num_latents].tolist()
  for latent in latents:
    checks.check_index("latents", latent, model.n_z)
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
