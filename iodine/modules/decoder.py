"""Decodes latents to images and masks."""

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.modules.distributions import MixtureParameters

__all__ = ["ComponentDecoder"]


class ComponentDecoder(snt.Module):
  """Decodes each slot separately into pixel parameters and a mask logit.

  Figure 2d of the paper (reference: decoder.py:23-53).
  """

  def __init__(
    self, pixel_decoder: snt.Module, name: str = "component_decoder"
  ):
    """Makes a decoder of slots from a decoder of pixels.

    Args:
      pixel_decoder: maps (z [B, K, Z], (H, W, 1 + Cp)) to params
        [B, K, H, W, 1 + Cp], e.g. networks.BroadcastConv.
      name: name of the module.
    """
    super().__init__(name=name)
    checks.check_modules(pixel_decoder=pixel_decoder)
    self._pixel_decoder = pixel_decoder

  def __call__(
    self, z: tf.Tensor, pixel_shape: Sequence[int]
  ) -> MixtureParameters:
    """Decodes all slots.

    Args:
      z: [B, K, Z] float32.
      pixel_shape: (H, W, Cp) of one slot's pixel parameters.

    Returns:
      pixel [B, K, H, W, Cp] and mask [B, K, H, W, 1], float32.
    """
    checks.check_shapes({"z": (z, "B K Z")})
    height, width, channels = pixel_shape
    params = self._pixel_decoder(z, (height, width, 1 + channels)).params
    mask, pixel = tf.split(params, [1, channels], axis=-1)
    return MixtureParameters(pixel=pixel, mask=mask)
