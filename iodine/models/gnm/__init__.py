"""GNM (Jiang & Ahn 2020): objects in cells, and scenes that make sense."""

import iodine.quiet_tensorflow

from iodine.models.gnm.annealing import Curriculum
from iodine.models.gnm.background import Background
from iodine.models.gnm.decoder import PictureDecoder
from iodine.models.gnm.encoder import ImageEncoder
from iodine.models.gnm.model import GNM
from iodine.models.gnm.struct_draw import StructDRAW
from iodine.models.gnm.symbols import SymbolHead

__all__ = [
  "GNM",
  "Background",
  "Curriculum",
  "ImageEncoder",
  "PictureDecoder",
  "StructDRAW",
  "SymbolHead",
]
