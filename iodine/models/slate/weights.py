"""Published checkpoints of SLATE, files of PyTorch.

Those of the original, singhgautam/slate, and of HHousen's version.
"""

import iodine.quiet_tensorflow

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.models import published
from iodine.models.published import Place
from iodine.models.slot_attention.weights import torch_attention

__all__ = ["HHOUSEN", "ORIGINAL", "options", "table_of", "translate"]

_BLOCK = r"tf_dec\.blocks\.(\d+)"


def _attention(published_name: str, name: str) -> published.Table:
  """Rows of an attention of the transformer."""
  return {
    rf"{_BLOCK}\.{published_name}\.proj_{letter}\.weight": (
      Place(rf"transformer/block_\1/{name}/{projection}/w", published.linear),
    )
    for letter, projection in zip(
      "qkvo", ("query", "key", "value", "output"), strict=True
    )
  }


_SHARED: published.Table = {
  **published.torch_layer(
    r"dvae\.encoder\.7", "dvae/encoder_7", published.convolution
  ),
  **published.torch_layer(
    r"dvae\.decoder\.11", "dvae/decoder_11", published.convolution
  ),
  **published.torch_layer(
    r"dvae\.(\w+)\.(\d+)\.m", r"dvae/\1_\2/conv", published.convolution
  ),
  **published.torch_norm(r"dvae\.(\w+)\.(\d+)", r"dvae/\1_\2/norm"),
  r"positional_encoder\.pe": (Place("positions", published.as_it_is),),
  r"dictionary\.dictionary\.weight": (Place("embedding", published.as_it_is),),
  **published.torch_layer("slot_proj", "slot_projection"),
  **published.torch_layer("out", "to_logits"),
  **published.torch_norm(
    rf"{_BLOCK}\.self_attn_layer_norm",
    r"transformer/block_\1/self_attention_norm",
  ),
  **_attention("self_attn", "self_attention"),
  **published.torch_norm(
    rf"{_BLOCK}\.encoder_decoder_attn_layer_norm",
    r"transformer/block_\1/cross_attention_norm",
  ),
  **_attention("encoder_decoder_attn", "cross_attention"),
  **published.torch_norm(
    rf"{_BLOCK}\.ffn_layer_norm", r"transformer/block_\1/ffn_norm"
  ),
  **published.torch_layer(rf"{_BLOCK}\.ffn\.0", r"transformer/block_\1/ffn_0"),
  **published.torch_layer(rf"{_BLOCK}\.ffn\.2", r"transformer/block_\1/ffn_1"),
  **published.torch_norm(r"tf_dec\.layer_norm", "transformer/norm"),
  rf"{_BLOCK}\.self_attn_mask": (),  # a constant
}

ORIGINAL: published.Table = {
  **_SHARED,
  **published.torch_norm(r"slot_attn\.layer_norm", "input_norm"),
  **published.torch_layer(r"slot_attn\.mlp\.0", "input_mlp_0"),
  **published.torch_layer(r"slot_attn\.mlp\.2", "input_mlp_1"),
  r"slot_attn\.slot_(mu|log_sigma)": (
    Place(r"slot_attention/slots_\1", published.as_it_is),
  ),
  **torch_attention(r"slot_attn\.slot_attention"),
}

HHOUSEN: published.Table = {
  **_SHARED,
  **published.torch_norm(r"slot_attn\.input_layer_norm", "input_norm"),
  **published.torch_layer(r"slot_attn\.input_mlp\.0", "input_mlp_0"),
  **published.torch_layer(r"slot_attn\.input_mlp\.2", "input_mlp_1"),
  **torch_attention("slot_attn"),
}


def table_of(names: Iterable[str]) -> published.Table | None:
  """The table of a checkpoint with these names; None if it is none of SLATE."""
  names = set(names)
  if "tf_dec.layer_norm.weight" not in names:
    return None
  return HHOUSEN if "slot_attn.input_layer_norm.weight" in names else ORIGINAL


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
  table = table_of(values)
  if table is None:
    return None
  is_original = table is ORIGINAL
  published.check_options(
    "SLATE's own code" if is_original else "HHousen's version of SLATE",
    {
      **options(published.shapes(values, table)),
      "model.implicit": not is_original,
    },
    own,
  )
  return published.translate(values, table, variables)


def options(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
  """The options of a configuration that a model's size follows from.

  Args:
    shapes: {name as in a table: shape} of all variables.

  Returns:
    {entry: value}, and "tokens", the number of tokens of an image. Numbers of
    heads and of slots, and `num_iters` cannot be told.
  """
  found = {
    option: shapes[name][axis] - minus
    for option, name, axis, minus in (
      ("model.vocab_size", "embedding", 0, 1),  # less the beginning
      ("model.d_model", "embedding", 1, 0),
      ("n_z", "slot_attention/project_q/w", 1, 0),
      ("model.mlp_size", "slot_attention/mlp_0/w", 1, 0),
      ("tokens", "positions", 1, 1),
    )
    if len(shapes.get(name, ())) > axis
  }
  blocks = {
    match[1]
    for name in shapes
    if (match := re.match(r"transformer/block_(\d+)/", name))
  }
  return {**found, "model.num_blocks": len(blocks)}
