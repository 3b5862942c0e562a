"""What models of an encoder and slot attention have in common.

Dimensions: B batch, K slots, D slot size, H height, W width, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models.noise import slot_noise
from iodine.models.slot_attention import weights
from iodine.models.slot_attention.attention import (
  SlotAttention,
  SlotUpdate,
  attention_pictures,
)
from iodine.models.slot_attention.encoder import EncodedImage
from iodine.scene_model import SceneModel

__all__ = ["SlotModel", "scaled", "unscaled"]


def scaled(image: tf.Tensor) -> tf.Tensor:
  """From [0, 1] to [-1, 1]."""
  return image * 2.0 - 1.0


def unscaled(image: tf.Tensor) -> tf.Tensor:
  """From [-1, 1] to [0, 1]."""
  return image * 0.5 + 0.5


class SlotModel(SceneModel):
  """A model that binds slots to the features of a still image.

  A subclass makes something of the slots of every iteration.
  """

  def __init__(
    self,
    encoder: snt.Module,
    slot_attention: SlotAttention,
    n_z: int,
    num_components: int,
    name: str,
  ):
    """Makes a model from its modules.

    Args:
      encoder: maps an image to a set, such as `ConvEncoder`.
      slot_attention: binds slots to the set.
      n_z: D, size of a slot.
      num_components: K, number of slots.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(n_z=n_z, num_components=num_components)
    checks.check_modules(encoder=encoder, slot_attention=slot_attention)
    self._encoder = encoder
    self._slot_attention = slot_attention
    self._slot_size = self.n_z = n_z
    self.num_components = num_components
    self.set_num_iters(slot_attention.num_iters)

  def set_num_iters(self, num_iters: int) -> None:
    """Sets the number of slot updates, see `SceneModel.set_num_iters`."""
    self._slot_attention.set_num_iters(num_iters)
    self.num_iters = num_iters
    self.num_steps = self._slot_attention.num_updates

  def noise(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Draws noise [1, B, K, D], see `SceneModel`."""
    size = [self.num_components, self._slot_size]
    return np.stack([rng.standard_normal(size, np.float32) for rng in rngs])[
      None
    ]

  def published_weights(
    self, values: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray] | None:
    """Translates checkpoints of Google, untitled-ai and HHousen."""
    return weights.translate(values, self._parts(), self.variables)

  def _parts(self) -> dict[str, snt.Module]:
    """The modules by their names in configurations."""
    return {
      "encoder": self._encoder,
      "slot_attention": self._slot_attention,
    }

  def _bind(
    self, image: tf.Tensor, noise: Any, seed: tf.Tensor | None
  ) -> tuple[EncodedImage, list[SlotUpdate]]:
    """Encodes images and binds slots to them.

    Args:
      image: [B, H, W, C] float32 in [-1, 1].
      noise: [1, B, K, D] float32, standard normal, of the initial slots; None:
        random.
      seed: see `SceneModel`.

    Returns:
      The set, and the updates of the slots.
    """
    encoded = self._encoder(image)
    noise = slot_noise(image, self.num_components, self._slot_size, noise, seed)
    return encoded, self._slot_attention(encoded.features, noise[0])

  def _attention(
    self, encoded: EncodedImage, updates: Sequence[SlotUpdate]
  ) -> tf.Tensor:
    """Attention in every iteration, as pictures [B, S, K, H, W, 1]."""
    return attention_pictures(
      [update.attention for update in updates],
      self.num_components,
      encoded.grid,
      self.image_shape[:2],
    )
