"""A model's decoder as a graph that TensorFlow.js runs.

The graph is TensorFlow's own, with the weights as constants: TensorFlow.js
reads a GraphDef written as JSON beside the constants' values in one array of
bytes (https://www.tensorflow.org/js/guide/conversion).
"""

from __future__ import annotations

import iodine.quiet_tensorflow

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.python.framework import convert_to_constants
from tensorflow.python.grappler import tf_optimizer

from iodine.scene_model import DecodedSlots, SceneModel, mix

__all__ = ["TfjsGraph", "decoder_graph"]

# What TensorFlow.js has been seen to run as TensorFlow does, by
# tests/pictures/test_explorer.py; of Einsum, what web/explore.js adds. Its
# WebAssembly backend has others, but some of them, such as OneHot, give wrong
# numbers.
_OPS = frozenset(
  "Abs AddV2 BatchMatMulV2 BiasAdd BroadcastTo ConcatV2 Const Conv2D "
  "Conv2DBackpropInput Einsum Elu Exp ExpandDims Identity IsFinite LeakyRelu "
  "Log MatMul Max Mul Neg Pad PadV2 Placeholder RealDiv Relu Reshape SelectV2 "
  "Selu Sigmoid Softplus SplitV StridedSlice Sub Sum Tanh Tile "
  "Transpose".split()
)
OUTPUTS = ("components", "masks", "recons")
_EINSUM = re.compile(r"(\w)(\w),(\w)\2(\w)->\1\3\4")
_KNOWN_TYPES = [
  dtype.as_datatype_enum for dtype in (tf.float32, tf.int32, tf.int64, tf.bool)
]


class TfjsGraph(NamedTuple):
  """A graph for `tf.loadGraphModel` of TensorFlow.js.

  Attributes:
    topology: GraphDef, as JSON holds it, without the constants' values.
    weight_specs: name, shape and dtype of the constants.
    weights: their values, one after the other.
  """

  topology: dict[str, Any]
  weight_specs: list[dict[str, Any]]
  weights: bytes


def decoder_graph(model: SceneModel) -> TfjsGraph:
  """Exports how a model decodes the slots of a scene and composes it of them.

  The graph has the inputs z [1, K, Z], latents, and presence [1, K, 1, 1, 1],
  1 for each slot that is there and 0 for those that are removed, and the
  outputs components [1, K, H, W, C], masks [1, K, H, W, 1] and recons
  [1, H, W, C], see `scene_model.mix`.

  Args:
    model: model whose variables exist, and which `can("decode_slots")`.

  Returns:
    The graph.

  Raises:
    ValueError: if TensorFlow.js cannot run it; says why.
  """
  graph = _frozen(model)
  faults = sorted(set(_faults(graph)))
  if faults:
    raise ValueError(f"TensorFlow.js cannot run {', '.join(faults)}")
  specs, values = [], []
  for node in graph.node:
    if node.op == "Const":
      value = tf.make_ndarray(node.attr["value"].tensor)
      if value.dtype == np.int64:  # which TensorFlow.js does not have
        value = value.astype(np.int32)
        node.attr["dtype"].type = tf.int32.as_datatype_enum
      specs.append(
        {
          "name": node.name,
          "shape": list(value.shape),
          "dtype": value.dtype.name,
        }
      )
      values.append(value.tobytes())
      del node.attr["value"]
  return TfjsGraph(json_format.MessageToDict(graph), specs, b"".join(values))


def _frozen(model: SceneModel) -> Any:
  """GraphDef of the decoder, with constants in place of variables."""

  def decode(z: tf.Tensor, presence: tf.Tensor) -> dict[str, tf.Tensor]:
    slots = model.decode_slots(z)
    there = DecodedSlots(
      slots.components, slots.mask_logits + tf.math.log(presence)
    )
    scene = mix(there)
    outputs = {
      "components": slots.components,
      "masks": scene.masks,
      "recons": scene.recons,
    }
    return {k: tf.identity(v, name=k) for k, v in outputs.items()}

  num_slots = model.num_components
  traced = tf.function(decode, autograph=False).get_concrete_function(
    tf.TensorSpec([1, num_slots, model.n_z], name="z"),
    tf.TensorSpec([1, num_slots, 1, 1, 1], name="presence"),
  )
  return _folded(convert_to_constants.convert_variables_to_constants_v2(traced))


def _folded(function: Any) -> Any:
  """GraphDef of a function without what constants alone determine."""
  meta_graph = tf.compat.v1.train.export_meta_graph(
    graph_def=function.graph.as_graph_def(), graph=function.graph
  )
  ends = meta_graph.collection_def["train_op"].node_list.value
  ends.extend([*(tensor.name for tensor in function.inputs), *OUTPUTS])
  config = tf.compat.v1.ConfigProto()
  config.graph_options.rewrite_options.optimizers.extend(
    ["pruning", "constfold", "dependency"]
  )
  return tf_optimizer.OptimizeGraph(config, meta_graph)


def _faults(graph: Any) -> Iterator[str]:
  """What a graph has that TensorFlow.js cannot run."""
  for node in graph.node:
    if node.op not in _OPS:
      yield node.op
    elif node.op == "Einsum":
      equation = node.attr["equation"].s.decode()
      if not _EINSUM.fullmatch(equation):
        yield f"Einsum {equation}"
    for value in node.attr.values():
      if value.type not in (0, *_KNOWN_TYPES):
        yield tf.as_dtype(value.type).name
