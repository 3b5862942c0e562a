"""Slot Attention (Locatello et al. 2020): object discovery, set prediction."""

import iodine.quiet_tensorflow

from iodine.models.slot_attention.attention import (
  SlotAttention,
  SlotUpdate,
  attention_pictures,
)
from iodine.models.slot_attention.autoencoder import SlotAttentionAutoEncoder
from iodine.models.slot_attention.decoder import SpatialBroadcastDecoder
from iodine.models.slot_attention.encoder import ConvEncoder
from iodine.models.slot_attention.glimpse import Glimpse
from iodine.models.slot_attention.mask_losses import AreaLoss, SeparationLoss
from iodine.models.slot_attention.patch_decoder import PatchDecoder
from iodine.models.slot_attention.properties import Properties
from iodine.models.slot_attention.set_prediction import (
  SlotAttentionSetPredictor,
)

__all__ = [
  "AreaLoss",
  "ConvEncoder",
  "Glimpse",
  "PatchDecoder",
  "Properties",
  "SeparationLoss",
  "SlotAttention",
  "SlotAttentionAutoEncoder",
  "SlotAttentionSetPredictor",
  "SlotUpdate",
  "SpatialBroadcastDecoder",
  "attention_pictures",
]
