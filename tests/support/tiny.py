"""A model small enough for quick tests, batches for it, checkpoints by name.

Sizes are odd and distinct wherever they can be, so that swapped axes fail.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import training
from iodine.config import plans
from iodine.geco import Geco
from iodine.modules import iodine

B, K, L, H, W, C, Z = 4, 2, 6, 9, 7, 3, 5
NUM_ITERS = 2
S = NUM_ITERS + 1
FACTORS = {"position": 2, "shape": 1}
# Scores of data with masks.
MASK_SCORES = {
  *("ari", "ari_nobg", "miou", "miou_nobg", "dice", "dice_nobg"),
  *("sc", "covering", "segment_count"),
}

_MODULES = "iodine.modules"
LATENT_DIST = {
  "constructor": f"{_MODULES}.distributions.LocScaleDistribution",
  "name": "latent_dist",
  "dist": "normal",
  "scale": "var",
  "scale_act": "softplus",
}
_PIXEL_DIST = {
  "constructor": f"{_MODULES}.distributions.LocScaleDistribution",
  "name": "pixel_distribution",
  "dist": "logistic",
  "scale": "fixed",
  "scale_val": 0.1,
}
_PLAN = {
  "constructor": f"{_MODULES}.iodine.IODINE",
  "n_z": Z,
  "num_iters": NUM_ITERS,
  "decoder": {
    "constructor": f"{_MODULES}.decoder.ComponentDecoder",
    "pixel_decoder": {
      "constructor": f"{_MODULES}.networks.BroadcastConv",
      "coord_type": "linear",
      "cnn_opt": {
        "output_channels": [4, None],
        "kernel_shapes": [3],
        "strides": [1],
        "activation": "elu",
      },
    },
  },
  "refinement_core": {
    "constructor": f"{_MODULES}.refinement.RefinementCore",
    "encoder_net": {
      "constructor": f"{_MODULES}.networks.CNN",
      "mode": "avg_pool",
      "cnn_opt": {
        "output_channels": [5],
        "kernel_shapes": [3],
        "strides": [2],
        "activation": "elu",
      },
      "mlp_opt": {"output_sizes": [6], "activation": "elu"},
    },
    "recurrent_net": {
      "constructor": f"{_MODULES}.networks.LSTM",
      "hidden_sizes": [8],
    },
    "refinement_head": {"constructor": f"{_MODULES}.refinement.ResHead"},
  },
  "latent_dist": LATENT_DIST,
  "factor_evaluator": {
    "constructor": f"{_MODULES}.factor_eval.FactorRegressor",
    "mapping": [["position", 2, "scalar"], ["shape", 4, "categorical"]],
  },
}


def plan(
  num_components: int = K,
  pixel_dist: Mapping[str, Any] | None = None,
  **overrides: Any,
) -> dict[str, Any]:
  """Returns the plan of a model.

  Args:
    num_components: K.
    pixel_dist: replaces entries of the pixels' distribution.
    **overrides: replace entries of the plan itself.
  """
  output_dist = {
    "constructor": f"{_MODULES}.distributions.MaskedMixture",
    "num_components": num_components,
    "component_dist": {**_PIXEL_DIST, **(pixel_dist or {})},
  }
  return {
    **copy.deepcopy(_PLAN),
    "num_components": num_components,
    "output_dist": output_dist,
    **overrides,
  }


def build(**overrides: Any) -> iodine.IODINE:
  """Builds a model that has no variables yet."""
  return plans.build(plan(**overrides), identifier="model")


def initialized(
  image_shape: Sequence[int] = (H, W, C),
  factors: Mapping[str, int] = FACTORS,
  geco: Geco | None = None,
  **overrides: Any,
) -> iodine.IODINE:
  """Builds a model whose trainable variables are all random.

  Initial biases are zero, which would hide that one is left out. The values
  depend on the variables' names only.
  """
  model = build(**overrides)
  if geco is not None:
    model.use_geco(geco)
  model.initialize(image_shape, factors)
  for variable in model.trainable_variables:
    rng = np.random.default_rng(list(variable.name.encode()))
    mean = 1.0 if variable.name.endswith("/scale:0") else 0.0
    value = mean + 0.3 * rng.standard_normal(variable.shape)
    variable.assign(tf.constant(value, tf.float32))
  return model


def trainer(**overrides: Any) -> training.Trainer:
  """Makes a trainer with all its variables, of seed 3."""
  made = training.Trainer(
    initialized(**overrides), training.make_optimizer(1e-2), seed=3
  )
  made.initialize((H, W, C), FACTORS)
  return made


def batch(
  batch_size: int = B,
  frames: int = 1,
  channels: int = C,
  without: Sequence[str] = (),
) -> dict[str, Any]:
  """Makes a batch; an image does not depend on how many follow it.

  Args:
    batch_size: B.
    frames: T.
    channels: C.
    without: entries to leave out.
  """
  scenes = [_scene(i, frames, channels) for i in range(batch_size)]
  data: dict[str, Any] = {
    key: tf.constant(np.stack([scene[key] for scene in scenes]))
    for key in ("image", "mask", "visibility")
  }
  data["factors"] = {
    key: tf.constant(np.stack([scene[key] for scene in scenes]))
    for key in FACTORS
  }
  return {key: data[key] for key in data if key not in without}


def _scene(index: int, frames: int, channels: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(index)
  entities = rng.integers(L, size=[frames, H, W])
  mask = entities[:, None, ..., None] == np.arange(L).reshape(1, L, 1, 1, 1)
  visibility = np.ones(L, np.float32)
  visibility[L - 1 - index % 2 :] = 0.0
  return {
    "image": rng.random([frames, H, W, channels], np.float32),
    "mask": mask.astype(np.float32),
    "visibility": visibility,
    "position": rng.standard_normal([L, 2]).astype(np.float32),
    "shape": rng.integers(4, size=[L, 1]).astype(np.int32),
  }


def noise(
  batch_size: int = B,
  num_components: int = K,
  num_iters: int = NUM_ITERS,
  seed: int = 0,
) -> tf.Tensor:
  """Draws [S, B, K, Z]; an image's draws do not depend on how many follow."""
  draws = [
    np.random.default_rng([seed, i]).standard_normal(
      [num_iters + 1, num_components, Z]
    )
    for i in range(batch_size)
  ]
  return tf.constant(np.stack(draws, axis=1), tf.float32)


def values(variables: Sequence[tf.Variable]) -> dict[str, np.ndarray]:
  """Returns {name: value}."""
  return {variable.name: variable.numpy() for variable in variables}


def read_checkpoint(prefix: Any) -> dict[str, np.ndarray]:
  """Reads {name: value}."""
  reader = tf.train.load_checkpoint(str(prefix))
  names = reader.get_variable_to_shape_map()
  return {name: reader.get_tensor(name) for name in names}


def write_checkpoint(prefix: Any, named: Mapping[str, Any]) -> None:
  """Writes {name: value}."""
  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=list(named),
    shape_and_slices=[""] * len(named),
    tensors=list(named.values()),
  )
