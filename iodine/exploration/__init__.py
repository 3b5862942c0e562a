"""Explores a trained model: inference, traversals, edited scenes, samples.

Results are NumPy arrays; `iodine.pictures.latents` and
`iodine.pictures.animations` plot them.

Dimensions: B batch, S results of `SceneModel.infer`, K slots, Z latent size, R
latents, N values of a latent, H height, W width, C channels. Slots, latents and
scenes are counted from 0. Images and masks are in [0, 1]; KL is in nats.
"""

import iodine.quiet_tensorflow

from iodine.exploration.correlations import Correlations, correlate
from iodine.exploration.decoding import (
  Varied,
  compose,
  decode_slots,
  prior_samples,
  render,
  vary_latents,
)
from iodine.exploration.edited_scene import Edited, EditedScene
from iodine.exploration.edits import (
  Collage,
  Removal,
  Swap,
  collage,
  move_slot,
  put_slots,
  remove_slots,
  slot_places,
  swap_slots,
)
from iodine.exploration.inference import (
  background_slot,
  infer,
  object_slot,
  scene_noise,
  step_scores,
  structure,
)
from iodine.exploration.latent_samples import (
  activeness,
  latent_limits,
  sampled_latents,
)
from iodine.exploration.traversals import (
  IMPORTANCE,
  RANGES,
  Traversal,
  inferred_latents,
  latent_importance,
  latent_kl,
  latent_range,
  possible_ranges,
  traverse,
)
from iodine.scene_model import Composition, DecodedSlots

__all__ = [
  "Collage",
  "Composition",
  "Correlations",
  "DecodedSlots",
  "Edited",
  "EditedScene",
  "IMPORTANCE",
  "RANGES",
  "Removal",
  "Swap",
  "Traversal",
  "Varied",
  "activeness",
  "background_slot",
  "collage",
  "compose",
  "correlate",
  "decode_slots",
  "infer",
  "inferred_latents",
  "latent_importance",
  "latent_kl",
  "latent_limits",
  "latent_range",
  "move_slot",
  "object_slot",
  "possible_ranges",
  "prior_samples",
  "put_slots",
  "remove_slots",
  "render",
  "sampled_latents",
  "scene_noise",
  "slot_places",
  "step_scores",
  "structure",
  "swap_slots",
  "traverse",
  "vary_latents",
]
