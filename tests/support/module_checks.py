"""Calls of a module in both modes, and checks of its variables."""

import numpy as np
import tensorflow as tf


def call(mode, fn, *args):
  """Calls `fn` eagerly, or compiled for any batch size."""
  args = tf.nest.map_structure(tf.convert_to_tensor, args)
  if mode == "eager":
    return fn(*args)
  specs = tf.nest.map_structure(
    lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), args
  )
  compiled = tf.function(
    lambda *a: fn(*a), input_signature=specs, autograph=False
  )
  return compiled(*args)


def perturb(module):
  """Gives every variable random values, so that no bias stays at zero."""
  rng = np.random.default_rng(0)
  for v in module.variables:
    v.assign(rng.normal(scale=0.4, size=v.shape))


def shapes(module):
  """{variable's name: its shape}."""
  return {v.name.removesuffix(":0"): tuple(v.shape) for v in module.variables}


def check_gradients(mode, module, fn, *args):
  """Every trainable variable gets a finite gradient that is not all zero."""

  def gradients(*args):
    with tf.GradientTape() as tape:
      outputs = tf.nest.flatten(fn(*args))
      loss = tf.add_n([tf.reduce_mean(tf.square(x)) for x in outputs])
    return tape.gradient(loss, module.trainable_variables)

  found = call(mode, gradients, *args)
  assert len(found) == len(module.variables) > 0
  for variable, gradient in zip(module.trainable_variables, found, strict=True):
    assert gradient is not None, variable.name
    assert np.isfinite(gradient).all(), variable.name
    assert np.abs(gradient).max() > 0, variable.name
