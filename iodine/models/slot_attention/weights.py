"""Published checkpoints of Slot Attention.

Google's are object-based, of TensorFlow 2.2 and later; those of untitled-ai and
HHousen are files of PyTorch.
"""

import iodine.quiet_tensorflow

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.models import published
from iodine.models.published import Place

__all__ = ["GOOGLE", "PYTORCH", "options", "torch_attention", "translate"]

# More layers than a decoder has.
_MOST_LAYERS = 16
_LAYER = r"layer_with_weights-(\d+)"

GOOGLE: published.Table = {
  **published.keras_layer(f"encoder_cnn/{_LAYER}", r"encoder/conv_\1"),
  **published.keras_layer("encoder_pos/dense", "encoder/position/linear"),
  **published.keras_norm("layer_norm", "encoder/norm"),
  **published.keras_layer(f"mlp/{_LAYER}", r"encoder/mlp_\1"),
  r"slot_attention/(slots_\w+)": (
    Place(r"slot_attention/\1", published.as_it_is),
  ),
  **published.keras_norm(r"slot_attention/(norm_\w+)", r"slot_attention/\1"),
  **published.keras_layer(r"slot_attention/(project_\w)", r"slot_attention/\1"),
  "slot_attention/gru/kernel": (
    Place("slot_attention/gru/w_i", published.as_it_is),
  ),
  "slot_attention/gru/recurrent_kernel": (
    Place("slot_attention/gru/w_h", published.as_it_is),
  ),
  "slot_attention/gru/bias": (
    Place("slot_attention/gru/b_i", published.part(0)),
    Place("slot_attention/gru/b_h", published.part(1)),
  ),
  **published.keras_layer(
    f"slot_attention/mlp/{_LAYER}", r"slot_attention/mlp_\1"
  ),
  **published.keras_layer("decoder_pos/dense", "decoder/position/linear"),
  **published.keras_layer(f"decoder_cnn/{_LAYER}", r"decoder/conv_\1"),
  **published.keras_layer(
    f"mlp_classifier/{_LAYER}", r"slot_attention_set_predictor/mlp_\1"
  ),
}


def torch_attention(scope: str) -> published.Table:
  """The rows of the module of slot attention in the PyTorch versions.

  Args:
    scope: regular expression of what its names begin with.
  """
  gru = "slot_attention/gru"
  return {
    rf"{scope}\.(norm_\w+)\.weight": (
      Place(r"slot_attention/\1/scale", published.as_it_is),
    ),
    rf"{scope}\.(norm_\w+)\.bias": (
      Place(r"slot_attention/\1/offset", published.as_it_is),
    ),
    **published.torch_layer(rf"{scope}\.(project_\w)", r"slot_attention/\1"),
    rf"{scope}\.gru\.weight_ih": (Place(f"{gru}/w_i", published.gates),),
    rf"{scope}\.gru\.weight_hh": (Place(f"{gru}/w_h", published.gates),),
    rf"{scope}\.gru\.bias_ih": (Place(f"{gru}/b_i", published.gates),),
    rf"{scope}\.gru\.bias_hh": (Place(f"{gru}/b_h", published.gates),),
    **published.torch_layer(rf"{scope}\.mlp\.0", "slot_attention/mlp_0"),
    **published.torch_layer(rf"{scope}\.mlp\.2", "slot_attention/mlp_1"),
    rf"{scope}\.slots?_(mu|log_sigma)": (
      Place(r"slot_attention/slots_\1", published.as_it_is),
    ),
  }


PYTORCH: published.Table = {
  **published.torch_layer(
    r"encoder\.(\d+)\.0", r"encoder/conv_\1", published.convolution
  ),
  **published.torch_layer(
    r"encoder_pos_embedding\.dense", "encoder/position/linear"
  ),
  **published.torch_layer(r"encoder_out_layer\.0", "encoder/mlp_0"),
  **published.torch_layer(r"encoder_out_layer\.2", "encoder/mlp_1"),
  **torch_attention("slot_attention"),
  **published.torch_layer(
    r"decoder_pos_embedding\.dense", "decoder/position/linear"
  ),
  **published.torch_layer(
    r"decoder\.(\d+)\.0", r"decoder/conv_\1", published.convolution
  ),
  # The last two layers are in one block, behind those that upsample.
  **{
    name: row
    for i in range(_MOST_LAYERS)
    for name, row in published.torch_layer(
      rf"decoder\.{i}\.2", f"decoder/conv_{i + 1}", published.convolution
    ).items()
  },
  r"(?:encoder|decoder)_pos_embedding\.grid": (),  # a constant
}

# What one cannot tell from the weights alone.
_OF_GOOGLE = {
  "model.encoder.activation": "relu",
  "model.encoder.norm_epsilon": 1e-3,
  "model.slot_attention.norm_epsilon": 1e-3,
  "model.decoder.activation": "relu",
  "model.decoder.alignment": "tensorflow",
}
_OF_PYTORCH = {
  "model.encoder.activation": "leaky_relu",
  "model.slot_attention.norm_epsilon": 1e-5,
  "model.decoder.activation": "leaky_relu",
  "model.decoder.alignment": "pytorch",
}


def translate(
  values: Mapping[str, np.ndarray],
  parts: Mapping[str, tf.Module],
  variables: Iterable[tf.Variable],
) -> dict[str, np.ndarray] | None:
  """Translates a published checkpoint to a model.

  Args:
    values: by published names.
    parts: {"encoder": module, ...}, the parts of the model.
    variables: of the model.

  Returns:
    Values by names here, see `published.translate`; None if these are no such
    checkpoint, or that of a model with other parts.

  Raises:
    ValueError: lists the options that the checkpoint needs and the model does
      not have.
  """
  values = published.inside_network(values)
  if "slot_attention/project_q/kernel" in values:
    what, table, needed = "Google's code", GOOGLE, _OF_GOOGLE
  elif "slot_attention.project_q.weight" in values:
    what, table, needed = "a PyTorch version", PYTORCH, _OF_PYTORCH
  else:
    return None
  translated = published.translate(values, table, variables)
  shapes = published.shapes(values, table)
  if ("decoder/conv_0/w" in shapes) != ("decoder" in parts):
    return None
  needed = {
    **needed,
    **options(shapes),
    # In HHousen's version, whose names differ.
    "model.slot_attention.implicit": "slot_attention.slot_mu" in values,
  }
  if not needed["model.encoder.with_layer_norm"]:
    needed.pop("model.encoder.norm_epsilon", None)
  published.check_options(what, needed, _own_options(parts))
  return translated


def options(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
  """The options of a configuration that a model's size follows from.

  Args:
    shapes: {name as in a table: shape} of all variables.

  Returns:
    {entry: value}; `num_iters` and the strides cannot be told.
  """

  def layers(prefix: str, axis: int) -> tuple[int, ...]:
    """Sizes of all layers along an axis of their weights."""
    found = {
      int(match[1]): shape[axis]
      for name, shape in shapes.items()
      if (match := re.fullmatch(rf"{prefix}_(\d+)/w", name))
      and len(shape) > axis
    }
    return tuple(found[index] for index in sorted(found))

  found = {
    "model.encoder.output_channels": layers("encoder/conv", 3),
    "model.encoder.kernel_shapes": layers("encoder/conv", 0),
    "model.encoder.mlp_sizes": layers("encoder/mlp", 1),
    "model.encoder.with_layer_norm": "encoder/norm/scale" in shapes,
  }
  if "slot_attention/project_q/w" in shapes:
    found["n_z"] = shapes["slot_attention/project_q/w"][-1]
  if "slot_attention/mlp_0/w" in shapes:
    found["model.slot_attention.mlp_size"] = shapes["slot_attention/mlp_0/w"][
      -1
    ]
  if "decoder/conv_0/w" in shapes:
    found["model.decoder.output_channels"] = layers("decoder/conv", 2)[:-1]
    found["model.decoder.kernel_shapes"] = layers("decoder/conv", 0)
  return found


def _own_options(parts: Mapping[str, tf.Module]) -> dict[str, Any]:
  """The options that the parts of a model have, as `options` names them."""
  own = {
    f"model.{part}.{key}": value
    for part, module in parts.items()
    for key, value in getattr(module, "options", {}).items()
  }
  own["n_z"] = own.pop("model.slot_attention.n_z", None)
  return own
