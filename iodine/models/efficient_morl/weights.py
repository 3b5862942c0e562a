"""Published checkpoints of EfficientMORL, files of PyTorch."""

import iodine.quiet_tensorflow

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.models import published
from iodine.models.published import Place

__all__ = ["TABLE", "options", "renamed", "translate"]

_HVAE = r"hvae_networks\."
# (published name, name here) of the parts of a slot's distribution.
_PARTS = (("mu", "mean"), ("softplus", "raw"))


def _positions(value: np.ndarray) -> np.ndarray:
  """Weights [out, 4] for 1 - y, y, x, 1 - x to those for y, x, 1 - y, 1 - x."""
  return published.linear(value)[[1, 2, 0, 3]]


def _gru(name: str, own: str) -> published.Table:
  """Rows of a GRU of one layer."""
  return {
    rf"{name}\.{kind}_{letter}h_l0": (
      Place(f"{own}/{kind[0]}_{letter}", published.gates),
    )
    for kind in ("weight", "bias")
    for letter in "ih"
  }


TABLE: published.Table = {
  f"{_HVAE}init_posterior": (
    Place("hierarchy/initial_posterior", published.as_it_is),
  ),
  **published.torch_layer(
    f"{_HVAE}pos_embed_projection", "encoder/position/linear", _positions
  ),
  # Convolutions and ReLUs are counted together.
  **{
    name: row
    for i in range(16)
    for name, row in published.torch_layer(
      rf"{_HVAE}encoder_pt_1\.{2 * i}",
      f"encoder/conv_{i}",
      published.convolution,
    ).items()
  },
  **published.torch_norm(rf"{_HVAE}encoder_pt_2\.0", "encoder/norm"),
  **published.torch_layer(rf"{_HVAE}encoder_pt_2\.1", "encoder/mlp_0"),
  **published.torch_layer(rf"{_HVAE}encoder_pt_2\.3", "encoder/mlp_1"),
  rf"{_HVAE}to_([qkv])\.weight": (
    Place(r"hierarchy/project_\1/w", published.linear),
  ),
  **published.torch_norm(f"{_HVAE}norm_slots", "hierarchy/norm_slots"),
  rf"{_HVAE}gru\.cell\.weight_(\w+)": (
    Place(r"hierarchy/dual_gru/w_\1", published.linear),
  ),
  rf"{_HVAE}gru\.cell\.bias_(\w+)": (
    Place(r"hierarchy/dual_gru/b_\1", published.as_it_is),
  ),
  **_gru(f"{_HVAE}gru", "hierarchy/gru"),
  **published.torch_layer(f"{_HVAE}project_update", "hierarchy/project_update"),
  **{
    name: row
    for theirs, own in _PARTS
    for name, row in {
      **published.torch_norm(
        f"{_HVAE}norm_{theirs}_pre_ff", f"hierarchy/norm_{own}"
      ),
      **published.torch_layer(
        rf"{_HVAE}mlp_{theirs}\.0", f"hierarchy/mlp_{own}_0"
      ),
      **published.torch_layer(
        rf"{_HVAE}mlp_{theirs}\.2", f"hierarchy/mlp_{own}_1"
      ),
      **published.torch_layer(
        rf"{_HVAE}indep_prior\.z_{theirs}", f"prior/{own}"
      ),
    }.items()
  },
  **published.torch_layer(rf"{_HVAE}indep_prior\.z_linear\.0", "prior/hidden"),
  **published.torch_layer(
    rf"{_HVAE}image_decoder\.pos_embed_projection",
    "decoder/position/linear",
    _positions,
  ),
  **{
    name: row
    for i in range(16)
    for name, row in published.torch_layer(
      rf"{_HVAE}image_decoder\.decode\.{2 * i}",
      f"decoder/conv_{i}",
      published.convolution,
    ).items()
  },
  **_gru(r"refinenet\.recurrence", "refinement/gru"),
  **published.torch_layer(r"refinenet\.encoding\.0", "refinement/mlp_0"),
  **published.torch_layer(r"refinenet\.encoding\.2", "refinement/mlp_1"),
  **published.torch_layer(r"refinenet\.loc", "refinement/mean"),
  **published.torch_layer(r"refinenet\.softplus", "refinement/raw"),
  "geco_C_ema": (Place("geco/constraint", published.as_it_is),),
  "geco_beta": (Place("geco/beta", published.as_it_is),),
}

# GECO's state where it is not used, and the rounding of 16 bits.
_UNUSED_GECO = {"geco_C_ema": 0.0, "geco_beta": 0.55}
_HALF = 1e-3

# Names of parts that later versions of the code renamed, and of what they
# dropped.
_OLD_PLACE = re.compile(
  r"object_discovery_block\.|(?=(encoder_pt_\d|pos_embed_projection)\.)"
)
_DROPPED = re.compile(r".*generation_relation.*|.*gru\.cell\.zeros(_n)?")


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
  """Values by the names of the code's last version.

  Args:
    values: by those of any version, with data-parallel training's `module.` or
      without it.

  Returns:
    The values less what the last version has no more.
  """
  return {
    _OLD_PLACE.sub("hvae_networks.", name, count=1)
    if _OLD_PLACE.match(name)
    else name: value
    for name, value in (
      (name.removeprefix("module."), value) for name, value in values.items()
    )
    if not _DROPPED.fullmatch(name)
  }


def translate(
  values: Mapping[str, np.ndarray],
  own: Mapping[str, Any],
  variables: Sequence[tf.Variable],
) -> dict[str, np.ndarray] | None:
  """Translates a published checkpoint to a model.

  Args:
    values: by published names of any version of the code.
    own: {entry of a configuration: its value}, of the model; see `options`.
    variables: of the model.

  Returns:
    Values by names here, see `published.translate`; None if these are no such
    checkpoint.

  Raises:
    ValueError: lists the options that the checkpoint needs and the model does
      not have.
  """
  values = renamed(values)
  if "hvae_networks.init_posterior" not in values:
    return None
  if "geco/constraint" not in {v.name.partition(":")[0] for v in variables}:
    values = {
      name: value
      for name, value in values.items()
      if not np.allclose(value, _UNUSED_GECO.get(name, np.nan), _HALF)
    }
  needed = options(published.shapes(values, TABLE))
  published.check_options("EfficientMORL", needed, own)
  return published.translate(values, TABLE, variables)


def options(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
  """The options of a configuration that a model's size follows from.

  Args:
    shapes: {name as in a table: shape} of all variables.

  Returns:
    {entry: value}. Numbers of layers, of steps and of slots, likelihood and
    prior cannot be told.
  """

  def of_layers(part: str, axis: int) -> tuple[int, ...]:
    """Sizes of all convolutions of a part along an axis of their weights."""
    found = {
      int(match[1]): shape[axis]
      for name, shape in shapes.items()
      if (match := re.fullmatch(rf"{part}/conv_(\d+)/w", name))
      and len(shape) > axis
    }
    return tuple(found[index] for index in sorted(found))

  # Of transposed convolutions, the output's channels come before the input's.
  inputs, outputs = (of_layers("decoder", axis) for axis in (2, 3))
  if outputs[:-1] != inputs[1:]:
    outputs = inputs
  return {
    "n_z": shapes["hierarchy/initial_posterior"][-1] // 2,
    "model.dual_gru": "hierarchy/dual_gru/b_ih" in shapes,
    "model.encoder.output_channels": of_layers("encoder", 3),
    "model.encoder.kernel_shapes": of_layers("encoder", 0),
    "model.decoder.output_channels": outputs[:-1],
    "model.decoder.kernel_shapes": of_layers("decoder", 0),
    "model.decoder.alignment": "pytorch",  # where there are strides
  }
