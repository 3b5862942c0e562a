"""The background: a latent of its own, tied to the others by the global one.

Dimensions: B batch, N cells on each side, D features of a cell, L and M steps
and size of the global latent, G size of the background's latent, H side of the
image, C channels.
"""

import iodine.quiet_tensorflow

from collections.abc import Sequence
from typing import NamedTuple

import sonnet as snt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iodine import checks
from iodine.models.gnm.decoder import PictureDecoder
from iodine.models.gnm.layers import Perceptron, check_sizes
from iodine.models.gnm.struct_draw import normal

__all__ = ["Background", "BackgroundLatent"]


class BackgroundLatent(NamedTuple):
  """A latent of the background.

  Attributes:
    z: [B, G] float32.
    prior: p(z | z_g), of batch shape [B, G].
    posterior: q(z | x), likewise; None if z is of the prior.
  """

  z: tf.Tensor
  prior: tfd.Normal
  posterior: tfd.Normal | None


class Background(snt.Module):
  """A latent of the background: posterior, prior and picture.

  Attributes:
    n_background: G.
    side: H.
  """

  def __init__(
    self,
    n_background: int = 10,
    output_channels: Sequence[int] = (128, 64, 32, 16, 8),
    kernel_shapes: Sequence[int] = (1, 1, 1, 1, 1, 3),
    upscales: Sequence[int] = (4, 2, 4, 2, 2, 1),
    num_groups: Sequence[int] = (1,),
    prior_sizes: Sequence[int] = (128, 64),
    posterior_sizes: Sequence[int] = (512, 256),
    name: str = "background",
  ):
    """Makes a module without variables; the defaults are for 128 x 128.

    Args:
      n_background: G.
      output_channels: see `PictureDecoder`.
      kernel_shapes: see `PictureDecoder`.
      upscales: see `PictureDecoder`.
      num_groups: see `PictureDecoder`.
      prior_sizes: hidden sizes of the MLP from the global latent.
      posterior_sizes: hidden sizes of the MLP from the image's features.
      name: name of the module.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(n_background=n_background)
    self.n_background = n_background
    sizes = check_sizes("prior_sizes", prior_sizes)
    self._prior = Perceptron([*sizes, 2 * n_background], name="prior")
    sizes = check_sizes("posterior_sizes", posterior_sizes)
    self._posterior = Perceptron([*sizes, 2 * n_background], name="posterior")
    self._decoder = PictureDecoder(
      output_channels, kernel_shapes, upscales, num_groups, name="decoder"
    )
    self.side = self._decoder.side

  def infer(
    self, features: tf.Tensor, z_global: tf.Tensor, noise: tf.Tensor
  ) -> BackgroundLatent:
    """Draws a latent of the posterior.

    Args:
      features: [B, N, N, D] float32, of an image.
      z_global: [B, L, M] float32, the global latent.
      noise: [B, G] float32, standard normal.

    Returns:
      The latent.
    """
    # Published weights know the features with channels first.
    flat = snt.flatten(tf.transpose(features, [0, 3, 1, 2]))
    posterior = normal(self._posterior(flat))
    z = posterior.loc + posterior.scale * noise
    return BackgroundLatent(z, self._of_global(z_global), posterior)

  def sample(
    self, z_global: tf.Tensor, noise: tf.Tensor | None
  ) -> BackgroundLatent:
    """Draws a latent of the prior.

    Args:
      z_global: [B, L, M] float32, the global latent.
      noise: [B, G] float32, standard normal; None: the mean instead.

    Returns:
      The latent, without posterior.
    """
    prior = self._of_global(z_global)
    z = prior.loc if noise is None else prior.loc + prior.scale * noise
    return BackgroundLatent(z, prior, None)

  def _of_global(self, z_global: tf.Tensor) -> tfd.Normal:
    return normal(self._prior(snt.flatten(z_global)))

  def decode(self, z: tf.Tensor, num_channels: int) -> tf.Tensor:
    """Decodes latents [B, G] to backgrounds [B, H, H, C] in [0, 1]."""
    return self._decoder(z, num_channels)
