"""Slot Attention (Locatello et al. 2020): object discovery."""

import iodine.quiet_tensorflow

from iodine.models.slot_attention.attention import (
  SlotAttention,
  SlotUpdate,
  attention_pictures,
)
from iodine.models.slot_attention.autoencoder import SlotAttentionAutoEncoder
from iodine.models.slot_attention.decoder import SpatialBroadcastDecoder
from iodine.models.slot_attention.encoder import ConvEncoder
from iodine.models.slot_attention.mask_losses import AreaLoss, SeparationLoss

__all__ = [
  "AreaLoss",
  "ConvEncoder",
  "SeparationLoss",
  "SlotAttention",
  "SlotAttentionAutoEncoder",
  "SlotUpdate",
  "SpatialBroadcastDecoder",
  "attention_pictures",
]
