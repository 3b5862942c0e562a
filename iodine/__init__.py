"""IODINE in TensorFlow 2: object-centric representation learning.

The main names are here. Each is imported when it is first used, so that
`import iodine` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from iodine.config import build, named_configs, resolve
  from iodine.exploration import compose, decode_slots, infer, traverse
  from iodine.main import load_checkpoint
  from iodine.modules.iodine import IODINE
  from iodine.scene_model import SceneModel
  from iodine.training import Trainer

__version__ = "0.1.0"

__all__ = [
  "IODINE",
  "SceneModel",
  "Trainer",
  "build",
  "compose",
  "decode_slots",
  "infer",
  "load_checkpoint",
  "named_configs",
  "resolve",
  "traverse",
]

_MODULES = {
  "IODINE": "iodine.modules.iodine",
  "SceneModel": "iodine.scene_model",
  "Trainer": "iodine.training",
  "build": "iodine.config",
  "compose": "iodine.exploration",
  "decode_slots": "iodine.exploration",
  "infer": "iodine.exploration",
  "load_checkpoint": "iodine.main",
  "named_configs": "iodine.config",
  "resolve": "iodine.config",
  "traverse": "iodine.exploration",
}


def __getattr__(name: str) -> Any:
  """Imports one of the main names."""
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  value = getattr(importlib.import_module(_MODULES[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """All names, those that are not imported yet among them."""
  return sorted({*globals(), *__all__})
