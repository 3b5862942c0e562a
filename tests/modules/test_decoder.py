"""Tests for iodine.modules.decoder."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from iodine import errors
from iodine.config import plans
from iodine.modules import decoder, distributions

# Odd and distinct, so that swapped axes fail.
B, K, H, W, C, Z = 2, 4, 5, 7, 3, 6
MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])


def _random(*shape):
  return np.random.default_rng(0).normal(size=shape).astype("float32")


def _call(mode, fn, z):
  """Calls `fn` eagerly, or compiled for any batch size."""
  if mode == "eager":
    return fn(tf.constant(z))
  spec = tf.TensorSpec([None, *z.shape[1:]])
  return tf.function(fn, input_signature=[spec], autograph=False)(z)


class WeightedDecoder(snt.Module):
  """A pixel decoder whose output is easily told: its only weight times z."""

  def __init__(self):
    super().__init__()
    self.weight = tf.Variable(2.0)
    self.shapes = []

  def __call__(self, z, output_shape):
    self.shapes.append(tuple(output_shape))
    params = self.weight * z[..., tf.newaxis, tf.newaxis, : output_shape[-1]]
    ones = tf.ones([*output_shape[:2], 1])
    return distributions.FlatParameters(params * ones)


def _build(**changes):
  return plans.build(
    {
      "constructor": "iodine.modules.decoder.ComponentDecoder",
      "pixel_decoder": {
        "constructor": "iodine.modules.networks.BroadcastConv",
        "cnn_opt": dict(
          output_channels=[5, None],
          kernel_shapes=[3],
          strides=[1],
          activation="elu",
        ),
      },
      **changes,
    },
    "decoder",
  )


@MODES
def test_first_channel_is_the_mask(mode):
  pixel_decoder = WeightedDecoder()
  module = decoder.ComponentDecoder(pixel_decoder)
  z = _random(B, K, Z)
  outputs = _call(mode, lambda z: module(z, (H, W, C)), z)
  assert isinstance(outputs, distributions.MixtureParameters)
  assert set(pixel_decoder.shapes) == {(H, W, 1 + C)}
  broadcast = np.broadcast_to(2 * z[:, :, None, None], (B, K, H, W, Z))
  np.testing.assert_array_equal(outputs.mask, broadcast[..., :1])
  np.testing.assert_array_equal(outputs.pixel, broadcast[..., 1 : 1 + C])


@MODES
def test_slots_are_decoded_on_their_own(mode):
  module = _build()
  z = _random(B, K, Z)
  before = _call(mode, lambda z: module(z, [H, W, C]), z)
  z[1, 2] += 1.0
  after = _call(mode, lambda z: module(z, [H, W, C]), z)
  for old, new in zip(before, after, strict=True):
    # Another place in the batch may be summed in another order.
    same = np.isclose(old, new, rtol=0, atol=1e-6).all(axis=(2, 3, 4))
    np.testing.assert_array_equal(np.argwhere(~same), [[1, 2]])


@MODES
def test_names_and_gradients(mode):
  module = _build()

  def gradients(z):
    with tf.GradientTape() as tape:
      outputs = module(z, [H, W, C])
      loss = sum(tf.reduce_mean(tf.square(x)) for x in outputs)
    return tape.gradient(loss, module.trainable_variables)

  with tf.name_scope("caller"):
    found = _call(mode, gradients, _random(B, K, Z))
  scope = "pixel_decoder/broadcast_conv/conv_net_2d"
  assert {v.name: tuple(v.shape) for v in module.variables} == {
    f"{scope}/conv_2d_0/w:0": (3, 3, Z + 2, 5),
    f"{scope}/conv_2d_0/b:0": (5,),
    f"{scope}/conv_2d_1/w:0": (3, 3, 5, 1 + C),
    f"{scope}/conv_2d_1/b:0": (1 + C,),
  }
  for gradient in found:
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_with_deconv():
  module = _build(
    pixel_decoder={
      "constructor": "iodine.modules.networks.DeConv",
      "mlp_opt": dict(output_sizes=[2 * 3 * 4]),
      "cnn_opt": dict(output_channels=[None], kernel_shapes=[3], strides=[2]),
    }
  )
  outputs = module(tf.constant(_random(B, K, Z)), (4, 6, C))
  assert outputs.pixel.shape == [B, K, 4, 6, C]
  assert outputs.mask.shape == [B, K, 4, 6, 1]


def test_plan_without_a_constructor():
  with pytest.raises(
    errors.ConfigError,
    match="decoder: pixel_decoder={.*}: expected a module; is its",
  ):
    _build(pixel_decoder={"coord_type": "linear"})


def test_wrong_rank():
  with pytest.raises(
    ValueError, match=r"z has shape \[2, 6\], expected \[B, K, Z\]"
  ):
    _build()(tf.zeros([B, Z]), (H, W, C))
