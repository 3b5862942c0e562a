"""Tests of recompute=true: the same results, with less kept in memory."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.errors import ConfigError
from tests.support import tiny


def _results(frames=1, noise=None, **options):
  """Loss, KL of all steps, {variable's name: gradient}, and the graph."""
  model = tiny.initialized(**options)
  data = tiny.batch(frames=frames)
  seed = tf.constant([3, 4], tf.int32)

  @tf.function(autograph=False)
  def call():
    with tf.GradientTape() as tape:
      loss, _, iterations = model(data, noise=noise, seed=seed)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, iterations["kl"], gradients

  loss, kl, gradients = call()
  names = [v.name for v in model.trainable_variables]
  graph = call.get_concrete_function().graph
  return loss, kl, dict(zip(names, gradients, strict=True)), graph


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"noise": tiny.noise()},
    {"sequential": True, "frames": tiny.S},
    {"inner_batch_size": 3, "inputs": ["zp", "dmask", "image", "mask"]},
    {"pixel_dist": {"scale_val": -1.0}},
  ],
)
def test_results_are_the_same(options):
  loss, kl, gradients, _ = _results(**options)
  again, same_kl, same, _ = _results(**options, recompute=True)
  np.testing.assert_allclose(again, loss, rtol=1e-6)
  np.testing.assert_allclose(same_kl, kl, rtol=1e-4, atol=1e-6)
  assert gradients.keys() == same.keys()
  for name, gradient in gradients.items():
    scale = np.abs(gradient).max()
    assert scale > 0, name
    np.testing.assert_allclose(
      same[name], gradient, atol=1e-4 * scale, err_msg=name
    )


def test_forward_passes_are_repeated_and_inner_gradients_are_not():
  counts = {}
  for recompute in (False, True):
    *_, graph = _results(recompute=recompute)
    types = [operation.type for operation in graph.get_operations()]
    counts[recompute] = types.count("Elu"), types.count("EluGrad")
  # An activation in the decoder, one in the encoder.
  assert counts[True][0] == counts[False][0] + 2 * tiny.NUM_ITERS
  assert counts[True][1] == counts[False][1]


def test_evaluation_knows_no_difference():
  noise = tiny.noise()
  plain, other = (
    tiny.initialized(recompute=recompute).eval(tiny.batch(), noise=noise)
    for recompute in (False, True)
  )
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    plain,
    other,
  )


@pytest.mark.parametrize(
  "options, fault",
  [
    ({"recompute": 1}, "recompute=1: expected True or False"),
    (
      {"recompute": True, "stop_gradients": ["dzp", "log_prob"]},
      r"add \['dcomponents', 'dmask'\] to stop_gradients",
    ),
  ],
)
def test_faults(options, fault):
  with pytest.raises(ConfigError, match=fault):
    tiny.build(**options)


def test_gradients_that_are_no_inputs_need_not_be_stopped():
  inputs = ["image", "mask", "dzp"]
  tiny.build(recompute=True, inputs=inputs, stop_gradients=["dzp"])
