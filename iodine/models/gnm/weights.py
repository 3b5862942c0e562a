"""Published checkpoints of GNM, files of PyTorch.

Names are those of the official code, and of two versions of it whose image
encoder is called otherwise. Layers are numbered within a stack together with
activations, norms and pixel shuffles, so that which number is which layer
follows from a checkpoint's own names.
"""

import iodine.quiet_tensorflow

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.models import published
from iodine.models.published import Place

__all__ = ["options", "table_of", "translate"]

# Stacks by their published names, without numbers.
_CONVOLUTIONS = {
  r"img_encoder(\.enc)?\.conv": "encoder",
  r"global_struct_draw\.hid_to_dec_net\.conv": "struct_draw/change",
  r"p_z_given_x_or_g_net\.pwdw_net\.conv": "head/hidden",
  r"local_latent_sampler\.z_what_decoder_net\.conv": "glimpse_decoder/layers",
  r"p_bg_decoder\.p_bg_decoder\.conv": "background/decoder/layers",
}
_PERCEPTRONS = {
  r"global_struct_draw\.p_global_decoder_net\.mlp": "struct_draw/latent",
  r"global_struct_draw\.p_global_net\.mlp": "struct_draw/prior",
  r"global_struct_draw\.q_global_net\.mlp": "struct_draw/posterior",
  r"p_bg_given_g_net\.p_bg_generator\.mlp": "background/prior",
  r"q_bg_given_x_net\.p_bg_encoder\.mlp": "background/posterior",
}
_MARK = "p_z_given_x_or_g_net.q_pres_net.weight"


def channels_last(value: np.ndarray) -> np.ndarray:
  """PyTorch's [B, C, H, W] to [B, H, W, C]."""
  return np.transpose(value, (0, 2, 3, 1))


_FIXED: published.Table = {
  **published.torch_layer(
    r"global_struct_draw\.rnn_enc\.conv",
    "struct_draw/encoder/conv",
    published.convolution,
  ),
  **published.torch_layer(
    r"global_struct_draw\.rnn_dec\.conv",
    "struct_draw/decoder/conv",
    published.convolution,
  ),
  r"global_struct_draw\.rnn_enc\.(h_0|c_0)": (
    Place(r"struct_draw/encoder/\1", channels_last),
  ),
  r"global_struct_draw\.rnn_dec\.(h_0|c_0)": (
    Place(r"struct_draw/decoder/\1", channels_last),
  ),
  **{
    key: row
    for name, here in (
      ("pres", "presence"),
      ("where", "where"),
      ("depth", "depth"),
      ("what", "what"),
    )
    for key, row in published.torch_layer(
      rf"p_z_given_x_or_g_net\.q_{name}_net",
      f"head/{here}",
      published.convolution,
    ).items()
  },
  # The head once more, by another name.
  r"p_z_given_g_net\..*": (),
}


def table_of(shapes: Mapping[str, Sequence[int]]) -> published.Table | None:
  """The table of a checkpoint; None if it is none of GNM.

  Args:
    shapes: {published name: shape}.
  """
  if _MARK not in shapes:
    return None
  table = dict(_FIXED)
  for stacks, layer, layout in (
    (_CONVOLUTIONS, "conv", published.convolution),
    (_PERCEPTRONS, "linear", published.linear),
  ):
    for pattern, here in stacks.items():
      table.update(_rows(shapes, pattern, f"{here}/{{}}_{{}}", layer, layout))
  return table


def _rows(
  shapes: Mapping[str, Sequence[int]],
  pattern: str,
  here: str,
  layer: str,
  layout: published.Layout,
) -> published.Table:
  """Rows of a stack: a vector of weights is a norm's, of the layer before."""
  table: dict[str, tuple[Place, ...]] = {}
  weights = {
    int(match[0].rsplit(".", 2)[1]): name
    for name in shapes
    if (match := re.fullmatch(rf"{pattern}\.\d+\.weight", name))
  }
  index = -1
  for number in sorted(weights):
    name = re.escape(weights[number].removesuffix(".weight"))
    if len(shapes[weights[number]]) > 1:
      index += 1
      table.update(
        published.torch_layer(name, here.format(layer, index), layout)
      )
    else:
      table.update(published.torch_norm(name, here.format("norm", index)))
  return table


def translate(
  values: Mapping[str, np.ndarray],
  own: Mapping[str, Any],
  variables: Iterable[tf.Variable],
) -> dict[str, np.ndarray] | None:
  """Translates a published checkpoint to a model.

  Args:
    values: by published names.
    own: {entry of a configuration: its value}, of the model; see `options`.
    variables: of the model.

  Returns:
    Values by names here, see `published.translate`; None if these are no such
    checkpoint.

  Raises:
    ValueError: lists the options that the checkpoint needs and the model does
      not have.
  """
  table = table_of({name: value.shape for name, value in values.items()})
  if table is None:
    return None
  published.check_options("GNM", options(published.shapes(values, table)), own)
  return published.translate(values, table, variables)


def options(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
  """The options of a configuration that a model's size follows from.

  Args:
    shapes: {name as in a table: shape} of all variables.

  Returns:
    {entry: value}. Strides, factors and numbers of groups cannot be told, nor
    the number of draws without a background.
  """
  has_background = "background/decoder/layers/conv_0/w" in shapes
  found = {
    "n_z": shapes["head/what/w"][3] // 2,
    "model.num_cells": shapes["struct_draw/encoder/h_0"][1],
    "model.struct_draw.n_global": shapes["struct_draw/latent/linear_0/w"][0],
  }
  if has_background:
    n_global = found["model.struct_draw.n_global"]
    found["model.background.n_background"] = shapes[
      "background/decoder/layers/conv_0/w"
    ][2]
    found["model.struct_draw.num_draws"] = (
      shapes["background/prior/linear_0/w"][0] // n_global
    )
  return found
