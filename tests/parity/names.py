"""Agreement of the variables with those of full-size published checkpoints.

A case is a folder of text files, each a list of a checkpoint's variables: on
every line a name and a shape, such as `out.weight [1024, 192] float32`.
"""

import math
import pathlib
import re

import numpy as np

from iodine import tf1_checkpoint, training
from iodine.models import published
from iodine.models.slate.weights import table_of
from iodine.models.slot_attention import SlotAttentionSetPredictor
from iodine.scene_model import SceneModel
from tests.parity import slate, slot_attention
from tests.parity.report import Report

_LINE = re.compile(r"(\S+) \[([\d, ]*)\](?: (\w+))?")
_END_OF_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
# What variables do not depend on.
_FACTORS = {"location": 3, "size": 1, "material": 1, "shape": 1, "color": 1}
_CONFIG = {"num_slots": 2, "num_iterations": 1, "num_heads": 1}


def is_case(folder: pathlib.Path) -> bool:
  """Whether a folder holds lists of variables, and nothing else."""
  files = [path for path in folder.iterdir() if path.name != "README.md"]
  return bool(files) and all(path.suffix == ".txt" for path in files)


def check(folder: pathlib.Path) -> Report:
  """Holds the models against lists; see `tests.parity.check`."""
  report = Report(folder.name, {})
  for path in sorted(folder.glob("*.txt")):
    _check_list(path, report)
  return report


def _check_list(path: pathlib.Path, report: Report) -> None:
  """Restores zeros of the listed shapes; every name has to have its place."""
  values = _zeros(path.read_text().splitlines())
  model, image_shape = _model(values)
  optimizer = training.make_optimizer(1e-3)
  predicts_sets = isinstance(model, SlotAttentionSetPredictor)
  training.Trainer(model, optimizer).initialize(
    image_shape, _FACTORS if predicts_sets else {}
  )
  translated = model.published_weights(values)
  if translated is None:
    report.fail(path.name, "the model does not know these names")
    return
  has_moments = any(name.endswith("/Adam") for name in translated)
  restored = tf1_checkpoint.restore_values(
    translated, path.name, model, optimizer if has_moments else None
  )
  for kind, names in (
    ("only in the list", restored.unused),
    ("only here", restored.missing),
  ):
    if names:
      report.fail(path.name, f"{kind}: {', '.join(names[:8])}")
  report.tell(
    path.name, f"{len(values)} names, {len(restored.found)} variables here"
  )


def _zeros(lines: list[str]) -> dict[str, np.ndarray]:
  """{published name: zeros of its shape}."""
  values = {}
  for line in lines:
    match = _LINE.fullmatch(line.strip())
    assert match is not None, line
    shape = [int(size) for size in match[2].split(",") if size.strip()]
    counts = re.match(r"(global_step|save_counter|optimizer/iter)\b", match[1])
    dtype = match[3] or ("int64" if counts else "float32")
    values[match[1].removesuffix(_END_OF_KEY)] = np.zeros(shape, dtype)
  return values


def _model(
  values: dict[str, np.ndarray],
) -> tuple[SceneModel, tuple[int, int, int]]:
  """A model of the checkpoint's size and version, and an image's shape."""
  if table_of(values):
    tokens = values["positional_encoder.pe"].shape[1] - 1
    side = 4 * math.isqrt(tokens)
    return slate.make_model(values, _CONFIG), (side, side, 3)
  values = published.inside_network(values)
  is_torch = "slot_attention.project_q.weight" in values
  # Convolutions do not depend on the image's size: a small one is quicker.
  config = {
    **_CONFIG,
    "layer_norm_epsilon": 1e-5 if is_torch else 1e-3,
    "resolution": (32, 32),
  }
  model = slot_attention.make_model(values, config, {"decoder": (2, 2)})
  return model, (32, 32, 3)
