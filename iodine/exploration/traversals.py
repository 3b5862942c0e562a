"""What the latents of a slot do."""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow_probability import distributions as tfd

from iodine import checks
from iodine.exploration.decoding import vary_latents
from iodine.exploration.latent_samples import activeness, latent_limits
from iodine.scene_model import SceneModel

__all__ = [
  "IMPORTANCE",
  "RANGES",
  "Traversal",
  "inferred_latents",
  "latent_importance",
  "latent_kl",
  "latent_range",
  "possible_ranges",
  "traverse",
]

# What latents are ranked by, for every range that their values can have.
IMPORTANCE = {"posterior": "KL", "prior": "KL", "samples": "activeness"}
RANGES = tuple(IMPORTANCE)


class Traversal(NamedTuple):
  """A slot and its scene as each of R latents takes N values.

  Attributes:
    slot: index of the slot.
    latents: [R] indices of the latents, most important first unless chosen.
    importance: [R], see `latent_importance`.
    offsets: [N] values, from the centre of the range, in its unit.
    current: [R] inferred values, likewise.
    range_of: source of centre and unit, see `latent_range`.
    components: [R, N, H, W, C], the slot alone; None if it has no picture.
    masks: [R, N, H, W, 1], the slot's masks; None likewise.
    scenes: [R, N, H, W, C], composed with the other slots unchanged.
  """

  slot: int
  latents: np.ndarray
  importance: np.ndarray
  offsets: np.ndarray
  current: np.ndarray
  range_of: str
  components: np.ndarray | None
  masks: np.ndarray | None
  scenes: np.ndarray

  @property
  def pictures(self) -> dict[str, tuple[np.ndarray, str]]:
    """The pictures that there are, with dimensions as in `check_shapes`."""
    alone = {
      "components": (self.components, "R N H W C"),
      "masks": (self.masks, "R N H W 1"),
    }
    there = {
      k: (array, v) for k, (array, v) in alone.items() if array is not None
    }
    return {**there, "scenes": (self.scenes, "R N H W C")}


def possible_ranges(
  model: SceneModel, info: Mapping[str, Any]
) -> tuple[str, ...]:
  """Which of `RANGES` latents of a model can be varied in; the usual one first.

  Args:
    model: the model that made `info`.
    info: result of `infer`.
  """
  latent = info.get("latent", {})
  if "z" not in latent or not model.can("compose"):
    return ()
  has_kl = "z_mean" in latent and model.prior is not None
  return RANGES if has_kl else ("samples",)


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
  limits: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the range of a slot's latents.

  Args:
    model: the model that made `info`.
    info: result of `infer`.
    slot: index of the slot.
    range_of: "posterior": mean and standard deviation of the posterior means
      of all slots in the batch; "prior": those of the prior; "samples": middle
      and half width of `limits`.
    limits: [Z, 2] lowest and highest values; None: those of the samples in
      `info`, see `latent_limits`.

  Returns:
    Centre and unit, [Z] each; the latter is positive.

  Raises:
    ValueError: if an argument is out of range.
  """
  if range_of not in RANGES:
    raise ValueError(f"range_of={range_of!r}: expected one of {RANGES}.")
  checks.check_index("slot", slot, model.num_components)
  if range_of == "samples":
    if limits is None:
      limits = latent_limits(info["latent"]["z"][:, -1])
    low, high = limits.T
    centre, unit = (low + high) / 2.0, (high - low) / 2.0
  elif range_of == "posterior":
    means = info["latent"]["z_mean"][:, -1]
    centre, unit = means.mean(axis=(0, 1)), means.std(axis=(0, 1))
  else:
    prior = _prior(model)
    centre, unit = prior.mean()[slot].numpy(), prior.stddev()[slot].numpy()
  return centre, np.maximum(unit, np.finfo(np.float32).tiny)


def inferred_latents(info: Mapping[str, Any]) -> np.ndarray:
  """Posterior means [B, K, Z] after the last step; without a posterior, z."""
  latent = info["latent"]
  return latent.get("z_mean", latent["z"])[:, -1]


def latent_importance(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  b: int = 0,
  latents: Sequence[int] | np.ndarray | None = None,
  range_of: str = "posterior",
  limits: np.ndarray | None = None,
) -> np.ndarray:
  """Tells how much every latent matters.

  Args:
    model: the model that made `info`.
    info: result of `infer`.
    slot: index of the slot.
    b: index of the scene in the batch.
    latents: [R] indices of the latents; None: all Z.
    range_of: see `latent_range`. For "samples", the importance is the
      activeness of this slot's latents in this scene; else the KL from the
      prior, mean over the batch and its slots.
    limits: see `latent_range`.

  Returns:
    [R] nats, or variances of pixels (see `activeness`).
  """
  chosen = _indices(model, latents)
  if range_of != "samples":
    return latent_kl(model, info)[:, -1].mean(axis=(0, 1))[chosen]
  if limits is None:
    limits = latent_limits(info["latent"]["z"][:, -1])
  z = inferred_latents(info)[b : b + 1]
  return activeness(model, z, [slot], limits, chosen)[0]


def _indices(
  model: SceneModel, latents: Sequence[int] | np.ndarray | None
) -> np.ndarray:
  if latents is None:
    return np.arange(model.n_z)
  for latent in latents:
    checks.check_index("latents", latent, model.n_z)
  return np.array(latents, int)


def _usual_range(model: SceneModel, info: Mapping[str, Any]) -> str:
  possible = possible_ranges(model, info)
  if not possible:
    raise ValueError(f"{type(model).__name__} renders no scenes from slots")
  return possible[0]


def traverse(
  model: SceneModel,
  info: Mapping[str, Any],
  slot: int,
  b: int = 0,
  latents: Sequence[int] | None = None,
  num_latents: int = 8,
  num_values: int = 9,
  extent: float | None = None,
  range_of: str | None = None,
  limits: np.ndarray | None = None,
  importance: np.ndarray | None = None,
) -> Traversal:
  """Varies latents of a slot one by one, after the last refinement step.

  Args:
    model: the model that made `info`.
    info: result of `infer`.
    slot: index of the slot.
    b: index of the scene in the batch.
    latents: indices of the latents; None: the `num_latents` most important.
    num_latents: R, if `latents` is None.
    num_values: N.
    extent: largest offset from the centre, in units; None: 2 standard
      deviations, or 1 for "samples", from the lowest value to the highest.
    range_of: see `latent_range`; None: the first of `possible_ranges`.
    limits: see `latent_range`.
    importance: [Z], of all latents; None: see `latent_importance`.

  Returns:
    The traversal. The other latents and slots stay as `inferred_latents`.

  Raises:
    ValueError: if an argument is out of range, or the model cannot render
      scenes from slots.
  """
  if range_of is None:
    range_of = _usual_range(model, info)
  inferred = inferred_latents(info)
  checks.check_index("b", b, len(inferred))
  centre, unit = latent_range(model, info, slot, range_of, limits)
  chosen = _indices(model, latents)
  if importance is None:
    importance = latent_importance(
      model, info, slot, b, chosen, range_of, limits
    )
  else:
    importance = importance[chosen]
  if latents is None:
    order = np.argsort(-importance, kind="stable")[:num_latents]
    chosen, importance = chosen[order], importance[order]
  if extent is None:
    extent = 1.0 if range_of == "samples" else 2.0
  offsets = np.linspace(-extent, extent, num_values)
  values = centre[chosen, None] + unit[chosen, None] * offsets
  return Traversal(
    slot=slot,
    latents=chosen,
    importance=importance,
    offsets=offsets,
    current=(inferred[b, slot, chosen] - centre[chosen]) / unit[chosen],
    range_of=range_of,
    **vary_latents(model, inferred[b], slot, chosen, values)._asdict(),
  )
