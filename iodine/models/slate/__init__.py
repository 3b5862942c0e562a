"""SLATE (Singh, Deng & Ahn 2022): slots of tokens, decoded by a transformer."""

import iodine.quiet_tensorflow

from iodine.models.slate.dvae import DVAE
from iodine.models.slate.model import SLATE
from iodine.models.slate.transformer import TransformerDecoder

__all__ = ["DVAE", "SLATE", "TransformerDecoder"]
