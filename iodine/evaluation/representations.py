"""What a model represents scenes by, inferred once and kept for all scores.

Dimensions: B batch, N scenes, L true entities, K slots, Z latent size, H and W
height and width, n size of a factor.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import exploration
from iodine.errors import ConfigError, RunError
from iodine.evaluation.efficient_morl import resized
from iodine.scene_model import SceneModel

__all__ = ["Representations", "cosines", "infer", "overlaps"]

_EPSILON = 1e-6  # of the cosine's denominator


class Representations(NamedTuple):
  """Slots of many scenes, and the objects that they may stand for.

  Pixels and masks are not kept: a scene takes K (Z + 2 L) numbers.

  Attributes:
    codes: [N, K, Z] float32, the slots' latents: posterior means, or z without
      a posterior.
    is_object: [N, L] bool, which entities are visible objects.
    is_modified: [N, L] bool, which of these a shift has modified.
    factors: {name: [N, L, n]}, the true factors.
    pixels: [N, L], of each entity.
    iou: [N, L, K] float32 of true and predicted masks, where the largest of the
      latter owns a pixel; None: the model has no masks.
    cosine: [N, L, K] float32, of true and soft predicted masks; None likewise.
    samples: [n, K, Z], posterior samples of the first n scenes; None: the model
      has no posterior.
  """

  codes: np.ndarray
  is_object: np.ndarray
  is_modified: np.ndarray
  factors: dict[str, np.ndarray]
  pixels: np.ndarray
  iou: np.ndarray | None
  cosine: np.ndarray | None
  samples: np.ndarray | None

  def part(self, start: int, stop: int) -> "Representations":
    """Scenes `start` to `stop`, and all samples."""
    arrays = self._replace(samples=None)
    cut = tf.nest.map_structure(
      lambda x: None if x is None else x[start:stop], arrays
    )
    return cut._replace(samples=self.samples)

  def without_modified(self) -> "Representations":
    """All scenes, where modified objects are no objects."""
    return self._replace(
      is_object=self.is_object & ~self.is_modified,
      is_modified=np.zeros_like(self.is_modified),
    )


def infer(
  model: SceneModel,
  batches: Iterable[Mapping[str, Any]],
  seed: int,
  num_sampled: int = 0,
  needs_masks: bool = False,
  on_progress: Callable[[int], object] = lambda scenes: None,
) -> Representations:
  """Infers the representations of scenes.

  Args:
    model: restored model.
    batches: batches with masks of any size, visibility and factors, at least
      one; with `modified` where a shift modifies objects. Masks are compared at
      the size of the true ones.
    seed: seed of the noise, see `exploration.scene_noise`.
    num_sampled: of how many scenes samples are kept.
    needs_masks: whether a model must have masks.
    on_progress: called with the number of scenes of every batch.

  Raises:
    ConfigError: if the model infers no slots, or no masks that are needed, or
      the data have no factors.
    RunError: if a representation is not finite.
  """
  represent = tf.function(
    lambda image, noise: _represent(model, image, noise, needs_masks),
    autograph=False,
  )
  parts: list[Representations] = []
  done = 0
  for batch in batches:
    if not batch.get("factors"):
      raise ConfigError("probe: the data have no factors of objects")
    size = int(batch["image"].shape[0])
    noise = exploration.scene_noise(model, seed, range(done, done + size))
    inferred = represent(batch["image"], noise)
    parts.append(
      _of_batch(batch, model.num_background_entities, inferred, num_sampled)
    )
    if not np.isfinite(parts[-1].codes).all():
      raise RunError(
        f"probe: of scenes {done + 1} to {done + size}, the model infers "
        "latents that are not finite"
      )
    num_sampled = max(num_sampled - size, 0)
    done += size
    on_progress(size)
  return tf.nest.map_structure(
    lambda *x: None if x[0] is None else np.concatenate(x), *parts
  )


def _represent(
  model: SceneModel, image: tf.Tensor, noise: Any, needs_masks: bool
) -> dict[str, tf.Tensor]:
  """Codes and samples [B, K, Z], and masks [B, K, H, W, 1] of the codes."""
  info = model.infer({"image": image}, noise)
  latent = info.get("latent", {})
  if "z" not in latent:
    raise ConfigError(f"probe: a {type(model).__name__} infers no slots")
  found = {"codes": exploration.inferred_latents(info)}
  if "z_mean" in latent:
    found["samples"] = latent["z"][:, -1]
  if model.can("decode_slots"):
    found["masks"] = model.compose(found["codes"]).masks
  elif "pred_mask" in info["outputs"]:
    found["masks"] = info["outputs"]["pred_mask"][:, -1]
  elif needs_masks:
    raise ConfigError(
      f"match_by=mask: a {type(model).__name__} has no masks; set match_by=loss"
    )
  return found


def _of_batch(
  batch: Mapping[str, Any],
  num_background_entities: int,
  inferred: Mapping[str, tf.Tensor],
  num_sampled: int,
) -> Representations:
  true_mask = batch["mask"][:, -1, ..., 0].numpy() > 0
  is_object = batch["visibility"].numpy() > 0
  is_object[:, :num_background_entities] = False
  is_modified = np.zeros_like(is_object)
  if "modified" in batch:
    is_modified = is_object & (batch["modified"].numpy() > 0)
  iou = cosine = samples = None
  if "masks" in inferred:
    masks = resized(inferred["masks"], batch["mask"].shape[3:5])
    masks = masks[..., 0].numpy()
    iou, cosine = overlaps(true_mask, masks), cosines(true_mask, masks)
  if "samples" in inferred:
    samples = inferred["samples"].numpy()[:num_sampled]
  return Representations(
    inferred["codes"].numpy(),
    is_object,
    is_modified,
    {name: values.numpy() for name, values in batch["factors"].items()},
    true_mask.sum(axis=(2, 3)),
    iou,
    cosine,
    samples,
  )


def overlaps(true_mask: np.ndarray, pred_mask: np.ndarray) -> np.ndarray:
  """IoU of every entity with the pixels that every slot owns.

  Args:
    true_mask: [B, L, H, W] bool.
    pred_mask: [B, K, H, W]; the largest owns a pixel.

  Returns:
    [B, L, K] float32; 0 where both are empty.
  """
  slots = np.arange(pred_mask.shape[1])[:, np.newaxis]
  owners = _flat(pred_mask).argmax(axis=1)
  true, pred = _flat(true_mask), owners[:, np.newaxis] == slots
  both = true.astype(np.float32) @ pred.swapaxes(1, 2).astype(np.float32)
  sizes = true.sum(axis=2)[:, :, np.newaxis] + pred.sum(axis=2)[:, np.newaxis]
  return (both / np.maximum(sizes - both, 1)).astype(np.float32)


def cosines(true_mask: np.ndarray, pred_mask: np.ndarray) -> np.ndarray:
  """Cosine similarity of the masks of every entity and slot.

  Args:
    true_mask: [B, L, H, W] bool.
    pred_mask: [B, K, H, W].

  Returns:
    [B, L, K] float32.
  """
  true = _flat(true_mask).astype(np.float32)
  pred = _flat(pred_mask).astype(np.float32)
  norms = [np.linalg.norm(masks, axis=2) for masks in (true, pred)]
  product = norms[0][:, :, np.newaxis] * norms[1][:, np.newaxis]
  return true @ pred.swapaxes(1, 2) / (product + _EPSILON)


def _flat(masks: np.ndarray) -> np.ndarray:
  return masks.reshape(*masks.shape[:2], -1)
