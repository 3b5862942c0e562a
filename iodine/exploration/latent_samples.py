"""How far latents range over many scenes, and what they do to pictures there.

The measures of Emami et al. (2021), "Efficient Iterative Amortized Inference
for Learning Symmetric and Disentangled Multi-Object Representations", for any
model that renders scenes from slots.
"""

from __future__ import annotations

import iodine.quiet_tensorflow

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import checks
from iodine.exploration.decoding import vary_latents
from iodine.exploration.inference import scene_noise
from iodine.scene_model import SceneModel

__all__ = ["activeness", "latent_limits", "sampled_latents"]

_NUM_VALUES = 6  # of each latent
_LATENTS_AT_ONCE = 8  # varied at once, to limit memory


def sampled_latents(
  model: SceneModel,
  batches: Iterable[Mapping[str, Any]],
  seed: int = 0,
  on_progress: Callable[[int], object] = lambda scenes: None,
) -> np.ndarray:
  """Samples the slots of many scenes, after the last refinement step.

  A scene's noise depends on the seed and its number, as in `infer`.

  Args:
    model: restored model.
    batches: batches of scenes, numbered from 0 on.
    seed: seed of the noise, at least 0.
    on_progress: called with the number of scenes of every batch.

  Returns:
    [N, K, Z].
  """
  last = tf.function(
    lambda image, noise: model.infer({"image": image}, noise)["latent"]["z"][
      :, -1
    ],
    autograph=False,
  )
  samples: list[np.ndarray] = []
  done = 0
  for batch in batches:
    image = batch["image"]
    size = int(image.shape[0])
    noise = scene_noise(model, seed, range(done, done + size))
    samples.append(last(image, noise).numpy())
    done += size
    on_progress(size)
  return np.concatenate(samples)


def latent_limits(z: np.ndarray) -> np.ndarray:
  """Lowest and highest value of every latent.

  Args:
    z: [..., Z], of all slots of any number of scenes.

  Returns:
    [Z, 2].
  """
  rows = z.reshape(-1, z.shape[-1])
  return np.stack([rows.min(axis=0), rows.max(axis=0)], axis=1)


def activeness(
  model: SceneModel,
  z: np.ndarray,
  slots: Sequence[int],
  limits: np.ndarray,
  latents: Sequence[int] | np.ndarray | None = None,
  on_progress: Callable[[int], object] = lambda scenes: None,
) -> np.ndarray:
  """Measures how much latents change a scene.

  Each latent of one slot takes six values from its lowest to its highest.

  Args:
    model: model whose variables exist, and which `can("compose")`.
    z: [N, K, Z], the slots of N scenes.
    slots: [N], the slot of each scene whose latents are varied.
    limits: [Z, 2], result of `latent_limits`.
    latents: [R] indices of the latents; None: all Z.
    on_progress: called with 1 after every scene.

  Returns:
    [N, R] variances (unbiased) over the six images, mean over pixels and
    channels.

  Raises:
    ValueError: if shapes do not match or a slot is out of range.
  """
  sizes = checks.check_shapes(
    {"z": (z, "N K Z"), "slots": (np.array(slots), "N")}
    | {"limits": (limits, "Z 2")}
  )
  chosen = np.arange(sizes["Z"]) if latents is None else np.array(latents, int)
  low, high = limits[chosen].T
  values = np.linspace(low, high, _NUM_VALUES, axis=1)  # [R, 6]
  variances = np.zeros([sizes["N"], len(chosen)])
  for scene, slot in enumerate(slots):
    checks.check_index("slot", slot, sizes["K"])
    for start in range(0, len(chosen), _LATENTS_AT_ONCE):
      part = slice(start, start + _LATENTS_AT_ONCE)
      scenes = vary_latents(
        model, z[scene], slot, chosen[part], values[part]
      ).scenes
      variance = np.var(scenes, axis=1, ddof=1, dtype=np.float64)
      variances[scene, part] = variance.mean(axis=(1, 2, 3))
    on_progress(1)
  return variances
