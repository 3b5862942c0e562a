"""Object discovery with Slot Attention: an auto-encoder of slots.

Dimensions: B batch, K slots, D slot size, S updates of the slots, H height, W
width, C channels, N = h * w elements of the set.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models.slot_attention.attention import (
  SlotAttention,
  SlotUpdate,
  attention_pictures,
)
from iodine.models.slot_attention.encoder import EncodedImage
from iodine.models.slot_attention.mask_losses import MaskLoss
from iodine.scene_model import DecodedSlots, Loss, SceneModel

__all__ = ["SlotAttentionAutoEncoder"]


class _Explained(NamedTuple):
  """An image explained by slots; images are in [-1, 1]."""

  recons: tf.Tensor  # [B, H, W, C]
  masks: tf.Tensor  # [B, K, H, W, 1]
  components: tf.Tensor  # [B, K, H, W, C]
  mask_logits: tf.Tensor  # [B, K, H, W, 1]


class _Record(NamedTuple):
  """What a training step computed, see the members' classes."""

  encoded: EncodedImage
  updates: list[SlotUpdate]
  explained: _Explained
  mask_losses: dict[str, tf.Tensor]


class SlotAttentionAutoEncoder(SceneModel):
  """Slot Attention for object discovery (Locatello et al. 2020, section 3.2).

  Slot attention binds K slots to the features of an image; a decoder maps each
  slot to a picture and a mask, and the image is their mixture. The loss is the
  mean squared error. Images are scaled to [-1, 1] inside of the model.
  """

  about = (
    "Slot Attention explains an image by slots that compete for its pixels. "
    "Every iteration makes a slot more like what it attends to; a decoder maps "
    "each slot to a picture and a mask."
  )

  def __init__(
    self,
    encoder: snt.Module,
    slot_attention: SlotAttention,
    decoder: snt.Module,
    n_z: int,
    num_components: int,
    mask_losses: Mapping[str, MaskLoss] | None = None,
    name: str = "slot_attention_auto_encoder",
  ):
    """Makes a model from its modules.

    Args:
      encoder: maps an image to a set, such as `ConvEncoder`.
      slot_attention: binds slots to the set.
      decoder: maps a slot to a picture and a mask, such as
        `SpatialBroadcastDecoder`.
      n_z: D, size of a slot.
      num_components: K, number of slots.
      mask_losses: {name: loss} beside the reconstruction's; None: none, as in
        Google's code.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(name=name)
    checks.check_sizes(n_z=n_z, num_components=num_components)
    checks.check_modules(
      encoder=encoder, slot_attention=slot_attention, decoder=decoder
    )
    self._encoder = encoder
    self._slot_attention = slot_attention
    self._decoder = decoder
    self._mask_losses = dict(mask_losses or {})
    for key, loss in self._mask_losses.items():
      if not isinstance(loss, MaskLoss):
        raise ValueError(f"mask_losses.{key}={loss!r}: must be a MaskLoss")
    self.n_z = n_z
    self.num_components = num_components
    self.num_steps = slot_attention.num_updates

  def __call__(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
    step: tf.Tensor | None = None,
  ) -> Loss:
    """Computes the loss, see `SceneModel`.

    Args:
      data: see `SceneModel`.
      noise: [1, B, K, D] float32, standard normal, of the initial slots.
      seed: see `SceneModel`.
      step: see `SceneModel`; anneals the mask losses.

    Returns:
      The loss; `iterations` holds what was computed on the way.
    """
    data = self.check_data(data)
    image = _scaled(data["image"][:, 0])
    encoded = self._encoder(image)
    updates = self._slot_attention(
      encoded.features, self._noise(image, noise, seed)
    )
    explained = self._explain(updates[-1].slots)
    loss = tf.reduce_mean(tf.square(image - explained.recons))
    step = tf.constant(0, tf.int64) if step is None else step
    mask_losses = {k: f(explained.masks) for k, f in self._mask_losses.items()}
    scalars = {"loss/reconstruction": loss}
    for key, value in mask_losses.items():
      loss += self._mask_losses[key].weight(step) * value
      scalars[f"loss/{key}"] = value
    scores = self.scores(
      data["image"][:, :1],
      _unscaled(explained.recons)[:, None],
      explained.masks,
      data,
    )
    record = _Record(encoded, updates, explained, mask_losses)
    return Loss(loss, {"loss/total": loss, **scalars, **scores}, record)

  def infer(
    self,
    data: Mapping[str, Any],
    noise: Any = None,
    seed: tf.Tensor | None = None,
  ) -> dict[str, Any]:
    """Runs the model, see `SceneModel`.

    The slots of every iteration are decoded: answer s is what a model with s
    iterations gives.

    Args:
      data: see `SceneModel`.
      noise: see `__call__`.
      seed: see `SceneModel`.

    Returns:
      See `SceneModel`; besides, outputs: attention [B, S, K, H, W, 1].
    """
    data = self.check_data(data)
    image = _scaled(data["image"][:, 0])
    encoded = self._encoder(image)
    updates = self._slot_attention(
      encoded.features, self._noise(image, noise, seed)
    )
    steps = [self._explain(update.slots) for update in updates]
    explained = _Explained(
      *(tf.stack(x, axis=1) for x in zip(*steps, strict=True))
    )
    return {
      "data": self.data_entry(data),
      "outputs": {
        "recons": _unscaled(explained.recons)[:, :, None],
        "pred_mask": explained.masks,
        "pred_mask_logits": explained.mask_logits,
        "components": _unscaled(explained.components),
        "attention": attention_pictures(
          updates, self.num_components, encoded.grid, self.image_shape[:2]
        ),
      },
      "latent": {"z": tf.stack([u.slots for u in updates], axis=1)},
    }

  def noise(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Draws noise [1, B, K, D], see `SceneModel`."""
    size = [self.num_components, self.n_z]
    return np.stack([rng.standard_normal(size, np.float32) for rng in rngs])[
      None
    ]

  def decode_slots(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes slots, see `SceneModel`."""
    explained = self._explain(z)
    return DecodedSlots(_unscaled(explained.components), explained.mask_logits)

  def _noise(
    self, image: tf.Tensor, noise: Any, seed: tf.Tensor | None
  ) -> tf.Tensor:
    """[B, K, D], the noise of the initial slots."""
    shape = [tf.shape(image)[0], self.num_components, self.n_z]
    if noise is not None:
      noise = tf.convert_to_tensor(noise, tf.float32)
      checks.check_shapes({"noise": (noise[0], "B K D")})
      return noise[0]
    if seed is None:
      return tf.random.normal(shape)
    return tf.random.stateless_normal(shape, seed)

  def _explain(self, slots: tf.Tensor) -> _Explained:
    """Decodes slots [B, K, D] and mixes them."""
    flat = tf.reshape(slots, [-1, slots.shape[-1]])
    _, output = self._decoder(flat, self.image_shape)
    output = tf.reshape(output, [-1, self.num_components, *output.shape[1:]])
    components, mask_logits = output[..., :-1], output[..., -1:]
    masks = tf.nn.softmax(mask_logits, axis=1)
    recons = tf.reduce_sum(masks * components, axis=1)
    return _Explained(recons, masks, components, mask_logits)


def _scaled(image: tf.Tensor) -> tf.Tensor:
  """From [0, 1] to [-1, 1]."""
  return image * 2.0 - 1.0


def _unscaled(image: tf.Tensor) -> tf.Tensor:
  """From [-1, 1] to [0, 1]."""
  return image * 0.5 + 0.5
