"""EfficientMORL (Emami et al. 2021): a hierarchical VAE of slots, refined."""

import iodine.quiet_tensorflow

from iodine.models.efficient_morl.decoder import BroadcastDecoder
from iodine.models.efficient_morl.encoder import ImageEncoder
from iodine.models.efficient_morl.model import EfficientMORL

__all__ = ["BroadcastDecoder", "EfficientMORL", "ImageEncoder"]
