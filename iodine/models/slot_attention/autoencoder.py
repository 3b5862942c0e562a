"""Object discovery with Slot Attention: an auto-encoder of slots.

Dimensions: B batch, K slots, D slot size, Z latent size (D, but for glimpses),
S updates of the slots, H height, W width, C channels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import checks
from iodine.models.slot_attention.attention import SlotAttention, SlotUpdate
from iodine.models.slot_attention.base import SlotModel, scaled, unscaled
from iodine.models.slot_attention.encoder import EncodedImage
from iodine.models.slot_attention.glimpse import Glimpse
from iodine.models.slot_attention.mask_losses import MaskLoss
from iodine.scene_model import DecodedSlots, Loss, mix

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


class SlotAttentionAutoEncoder(SlotModel):
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
    glimpse: Glimpse | None = None,
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
      glimpse: joins each slot and a last look at the image; None: the decoder
        gets the slots, as in the paper.
      name: scope of the variables.

    Raises:
      ValueError: for values out of range.
    """
    super().__init__(encoder, slot_attention, n_z, num_components, name)
    checks.check_modules(decoder=decoder)
    self._decoder = decoder
    self._glimpse = glimpse
    if glimpse is not None:
      checks.check_modules(glimpse=glimpse)
      if slot_attention.num_heads > 1:
        raise ValueError(
          f"num_heads={slot_attention.num_heads}: with a glimpse, expected 1"
        )
      self.n_z = n_z + glimpse.num_numbers
    self._mask_losses = dict(mask_losses or {})
    for key, loss in self._mask_losses.items():
      if not isinstance(loss, MaskLoss):
        raise ValueError(f"mask_losses.{key}={loss!r}: must be a MaskLoss")

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
    image = scaled(data["image"][:, 0])
    encoded, updates = self._bind(image, noise, seed)
    explained = self._explain(self._latents(encoded, updates[-1]))
    loss = tf.reduce_mean(tf.square(image - explained.recons))
    step = tf.constant(0, tf.int64) if step is None else step
    mask_losses = {k: f(explained.masks) for k, f in self._mask_losses.items()}
    scalars = {"loss/reconstruction": loss}
    for key, value in mask_losses.items():
      loss += self._mask_losses[key].weight(step) * value
      scalars[f"loss/{key}"] = value
    scores = self.scores(
      data["image"][:, :1],
      unscaled(explained.recons)[:, None],
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
    image = scaled(data["image"][:, 0])
    encoded, updates = self._bind(image, noise, seed)
    latents = [self._latents(encoded, update) for update in updates]
    steps = [self._explain(z) for z in latents]
    explained = _Explained(
      *(tf.stack(x, axis=1) for x in zip(*steps, strict=True))
    )
    return {
      "data": self.data_entry(data),
      "outputs": {
        "recons": unscaled(explained.recons)[:, :, None],
        "pred_mask": explained.masks,
        "pred_mask_logits": explained.mask_logits,
        "components": unscaled(explained.components),
        "attention": self._attention(encoded, updates),
      },
      "latent": {"z": tf.stack(latents, axis=1)},
    }

  def decode_slots(self, z: tf.Tensor) -> DecodedSlots:
    """Decodes slots, see `SceneModel`."""
    explained = self._explain(z)
    return DecodedSlots(unscaled(explained.components), explained.mask_logits)

  def _parts(self) -> dict[str, snt.Module]:
    return {**super()._parts(), "decoder": self._decoder}

  def _latents(self, encoded: EncodedImage, update: SlotUpdate) -> tf.Tensor:
    """[B, K, Z], what the decoder gets: the slots, and their glimpses."""
    if self._glimpse is None:
      return update.slots
    return self._glimpse(encoded.features, encoded.grid, update)

  def _explain(self, z: tf.Tensor) -> _Explained:
    """Decodes latents [B, K, Z] and mixes them."""
    flat = tf.reshape(z, [-1, z.shape[-1]])
    _, output = self._decoder(flat, self.image_shape)
    output = tf.reshape(output, [-1, self.num_components, *output.shape[1:]])
    channels = output.shape[-1] - 1
    # A split's gradient is a concatenation, that of slices a sum.
    components, mask_logits = tf.split(output, [channels, 1], axis=-1)
    recons, masks = mix(DecodedSlots(components, mask_logits))
    return _Explained(recons, masks, components, mask_logits)
