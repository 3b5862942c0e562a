"""StructDRAW: a global latent, drawn step by step, as a map of the scene.

Dimensions: B batch, N cells on each side, D features of a cell, L steps, Z size
of a step's latent, E and F sizes of the recurrent states.
"""

import iodine.quiet_tensorflow

from collections.abc import Sequence
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import checks
from iodine.models import layers
from iodine.models.gnm.layers import Convolutions, Perceptron, check_sizes

__all__ = ["ConvLSTM", "GlobalLatent", "StructDRAW", "normal"]


def normal(parameters: tf.Tensor) -> tfd.Normal:
  """A normal distribution: the first half the means, softplus of the second.

  Args:
    parameters: [..., 2 D] float32.

  Returns:
    Of batch shape [..., D].
  """
  mean, std = tf.split(parameters, 2, axis=-1)
  return tfd.Normal(mean, tf.nn.softplus(std))


def stacked(normals: Sequence[tfd.Normal]) -> tfd.Normal:
  """Normal distributions [B, Z] as one of batch shape [B, L, Z]."""
  return tfd.Normal(
    tf.stack([x.loc for x in normals], axis=1),
    tf.stack([x.scale for x in normals], axis=1),
  )


class ConvLSTM(snt.Module):
  """An LSTM whose gates are a convolution of input and state.

  The gates' order is i, f, o, g, where g is the candidate, and there is no
  extra bias of the forget gate. `snt.Conv2DLSTM` has another order and two
  convolutions. The first state is learned.
  """

  def __init__(self, size: int, kernel_size: int, name: str):
    """Makes a cell.

    Args:
      size: E, channels of the state.
      kernel_size: of the convolution.
      name: name of the module.
    """
    super().__init__(name=name)
    self._size = size
    self._conv = snt.Conv2D(
      4 * size, kernel_size, **layers.initializers("pytorch"), name="conv"
    )

  def initial_state(
    self, batch_size: tf.Tensor, num_cells: int
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """The first h and c, each [B, N, N, E] float32."""
    self._create_state(num_cells)
    multiples = [batch_size, 1, 1, 1]
    return tf.tile(self.h_0, multiples), tf.tile(self.c_0, multiples)

  @snt.once
  def _create_state(self, num_cells: int) -> None:
    zeros = tf.zeros([1, num_cells, num_cells, self._size])
    self.h_0 = tf.Variable(zeros, name="h_0")
    self.c_0 = tf.Variable(zeros, name="c_0")

  def __call__(
    self, inputs: tf.Tensor, state: tuple[tf.Tensor, tf.Tensor]
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the next h and c.

    Args:
      inputs: [B, N, N, d] float32.
      state: h and c, each [B, N, N, E] float32.
    """
    h, c = state
    gates = self._conv(tf.concat([inputs, h], axis=-1))
    i, f, o, g = tf.split(gates, 4, axis=-1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


class GlobalLatent(NamedTuple):
  """A global latent and the map that it makes.

  Attributes:
    z: [B, L, Z] float32.
    prior: p(z_l | z_<l), of batch shape [B, L, Z].
    posterior: q(z_l | z_<l, x), likewise; None if z is drawn from the prior.
    map: [B, N, N, D] float32.
  """

  z: tf.Tensor
  prior: tfd.Normal
  posterior: tfd.Normal | None
  map: tf.Tensor


class StructDRAW(snt.Module):
  """DRAW over a map of the scene instead of pixels.

  In every step, a latent is drawn, of the posterior (which sees the image's
  features and what the map still lacks of them) or of the prior (which sees
  what was drawn before), and changes the map.

  Attributes:
    num_draws: L.
    n_global: Z.
  """

  def __init__(
    self,
    num_draws: int = 4,
    n_global: int = 32,
    encoder_size: int = 128,
    decoder_size: int = 128,
    kernel_size: int = 1,
    prior_sizes: Sequence[int] = (512, 512),
    posterior_sizes: Sequence[int] = (512, 512),
    decoder_sizes: Sequence[int] = (512, 1024),
    map_channels: Sequence[int] = (),
    map_kernels: Sequence[int] = (3,),
    name: str = "struct_draw",
  ):
    """Makes a module without variables; the defaults are published ones.

    Args:
      num_draws: L, number of steps.
      n_global: Z, size of a step's latent.
      encoder_size: E, channels of the recurrent encoder.
      decoder_size: F, channels of the recurrent decoder.
      kernel_size: of both.
      prior_sizes: hidden sizes of the MLP to the prior.
      posterior_sizes: hidden sizes of the MLP to the posterior.
      decoder_sizes: hidden sizes of the MLP from a latent to its map, which
        has D channels.
      map_channels: hidden channels of the convolutions that change the map.
      map_kernels: their kernels, also that of the last one, or one for all.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(
      num_draws=num_draws,
      n_global=n_global,
      encoder_size=encoder_size,
      decoder_size=decoder_size,
      kernel_size=kernel_size,
    )
    self.num_draws, self.n_global = num_draws, n_global
    self._encoder = ConvLSTM(encoder_size, kernel_size, "encoder")
    self._decoder = ConvLSTM(decoder_size, kernel_size, "decoder")
    two_n = 2 * n_global
    sizes = check_sizes("prior_sizes", prior_sizes)
    self._prior = Perceptron([*sizes, two_n], name="prior")
    sizes = check_sizes("posterior_sizes", posterior_sizes)
    self._posterior = Perceptron([*sizes, two_n], name="posterior")
    self._decoder_sizes = check_sizes("decoder_sizes", decoder_sizes)
    self._map_channels = check_sizes("map_channels", map_channels)
    self._map_kernels = layers.check_layers(
      "map_kernels", map_kernels, len(map_channels) + 1
    )
    self._num_cells = self._num_features = 0

  def __call__(self, features: tf.Tensor, noise: tf.Tensor) -> GlobalLatent:
    """Draws a global latent of the posterior.

    Args:
      features: [B, N, N, D] float32, of an image.
      noise: [B, L, Z] float32, standard normal.

    Returns:
      The latent and its map.
    """
    self._initialize(features.shape[1], features.shape[3])
    return self._draw(noise, features)

  def sample(self, noise: tf.Tensor) -> GlobalLatent:
    """Draws a global latent of the prior; after the first call.

    Args:
      noise: [B, L, Z] float32, standard normal.

    Returns:
      The latent and its map, without posterior.
    """
    return self._draw(noise, None)

  @snt.once
  def _initialize(self, num_cells: int, num_features: int) -> None:
    self._num_cells, self._num_features = num_cells, num_features
    sizes = [*self._decoder_sizes, num_cells**2 * num_features]
    self._latent_to_map = Perceptron(sizes, bare_last=False, name="latent")
    self._change = Convolutions(
      [*self._map_channels, num_features],
      self._map_kernels,
      bare_last=True,
      name="change",
    )

  def _draw(self, noise: tf.Tensor, features: tf.Tensor | None) -> GlobalLatent:
    size = self._num_cells
    batch_size = tf.shape(noise)[0]
    encoder = self._encoder.initial_state(batch_size, size)
    decoder = self._decoder.initial_state(batch_size, size)
    scene = tf.zeros([batch_size, size, size, self._num_features])
    latents, priors, posteriors = [], [], []
    for step_noise in tf.unstack(noise, axis=1):
      chosen = prior = normal(self._prior(_flat(decoder[0])))
      if features is not None:
        lacking = features - scene
        seen = tf.concat([features, lacking, decoder[0]], axis=-1)
        encoder = self._encoder(seen, encoder)
        chosen = normal(self._posterior(_flat(encoder[0])))
        posteriors.append(chosen)
      z = chosen.loc + chosen.scale * step_noise
      decoder = self._decoder(
        tf.concat([self._map_of(z), scene], axis=-1), decoder
      )
      scene += self._change(decoder[0])
      latents.append(z)
      priors.append(prior)
    posterior = stacked(posteriors) if posteriors else None
    return GlobalLatent(
      tf.stack(latents, axis=1), stacked(priors), posterior, scene
    )

  def _map_of(self, z: tf.Tensor) -> tf.Tensor:
    """[B, Z] to [B, N, N, D]; published weights have channels first."""
    size = self._num_cells
    net = self._latent_to_map(z)
    net = tf.reshape(net, [-1, self._num_features, size, size])
    return tf.transpose(net, [0, 2, 3, 1])


def _flat(x: tf.Tensor) -> tf.Tensor:
  """[B, N, N, D] to [B, N * N * D]."""
  return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
