"""Tests of iodine.exploration.tfjs_graph, in TensorFlow itself.

tests/pictures/test_explorer.py runs such graphs in a browser.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format

from iodine import exploration
from iodine.exploration import tfjs_graph
from tests.support import tiny


def _run(graph, **inputs):
  """Runs what is read from an exported graph."""
  topology = json.loads(json.dumps(graph.topology))
  definition = json_format.ParseDict(topology, tf.compat.v1.GraphDef())
  nodes, place = {node.name: node for node in definition.node}, 0
  for spec in graph.weight_specs:
    dtype, count = np.dtype(spec["dtype"]), int(np.prod(spec["shape"]))
    assert dtype in (np.float32, np.int32, np.bool_)
    values = np.frombuffer(graph.weights, dtype, count, place)
    place += values.nbytes
    nodes[spec["name"]].attr["value"].tensor.CopyFrom(
      tf.make_tensor_proto(values.reshape(spec["shape"]))
    )
  assert place == len(graph.weights)
  with tf.Graph().as_default() as loaded:
    tf.graph_util.import_graph_def(definition, name="")
    with tf.compat.v1.Session(graph=loaded) as session:
      names = [f"{name}:0" for name in tfjs_graph.OUTPUTS]
      feeds = {f"{name}:0": value for name, value in inputs.items()}
      return session.run(names, feeds)


def test_the_graph_decodes_and_composes(model, info):
  graph = tfjs_graph.decoder_graph(model)
  z = exploration.inferred_latents(info)[1]
  presence = np.ones([1, tiny.K, 1, 1, 1], np.float32)
  presence[0, 1] = 0.0
  components, masks, recons = _run(graph, z=z[None], presence=presence)
  slots = exploration.decode_slots(model, z)
  slots.mask_logits[1] = -np.inf
  scene = exploration.compose(*slots)
  close = {"rtol": 1e-4, "atol": 1e-5}  # another order of operations
  np.testing.assert_allclose(components[0], slots.components, **close)
  np.testing.assert_allclose(masks[0], scene.masks, **close)
  np.testing.assert_allclose(recons[0], scene.recons, **close)


def test_what_tensorflow_js_cannot_run(monkeypatch):
  model = tiny.initialized()
  decode = model.decode_slots

  def decode_with(change, z):
    return decode(z)._replace(mask_logits=change(decode(z).mask_logits))

  for change, fault in (
    (tf.math.lgamma, "Lgamma"),
    (lambda x: tf.cast(tf.cast(x, tf.float16), tf.float32), "Cast, float16"),
    (lambda x: tf.einsum("bkhwc,bkhwd->bkhwc", x, x), "Einsum bkhwc,bkhwd"),
  ):
    monkeypatch.setattr(
      model, "decode_slots", lambda z, c=change: decode_with(c, z)
    )
    with pytest.raises(ValueError, match=f"cannot run {fault}"):
      tfjs_graph.decoder_graph(model)
