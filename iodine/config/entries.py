"""Every entry of a configuration, with all that there is to say of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from iodine import checks
from iodine.errors import did_you_mean

__all__ = [
  "ENTRIES",
  "FIGURE_FORMATS",
  "PATHS",
  "PLANS",
  "TEXT_LISTS",
  "Entry",
  "data_dir",
  "defaults",
  "faults",
]

# The entries that are plans of constructors.
PLANS = ("data", "model", "optimizer")

# Entries, and keys in the plan `data`, that are paths: numbers are text there.
PATHS = (
  "checkpoint_dir",
  "data_dir",
  "data_file",
  "evaluation_dir",
  "pictures_dir",
  "image",
  "from_checkpoint",
  "tf1_checkpoint",
  "path",
  "style_path",
  "cache_dir",
)
# What figures can be saved as; the first is the usual one.
FIGURE_FORMATS = ("png", "pdf", "svg")
# Entries that are lists of text, such as [a, b], of which numbers are text.
TEXT_LISTS = ("checkpoints", "names")

_Fault = Callable[[str, Any], "str | None"]


class Entry(NamedTuple):
  """One entry of a configuration.

  Attributes:
    default: its value where nothing is set.
    help: what it is, for people. Where it is of some commands only, they come
      first, as in "evaluate, traverse: which scene; compose: which scenes".
    fault: of a name and a value: what is wrong with them, or None.
    kept: whether a continued run must have the value that it began with.
    free: of a plan that is kept, the parts that may change all the same.
    alike: whether all workers that train together must have the same value.
  """

  default: Any
  help: str
  fault: _Fault
  kept: bool = False
  free: Sequence[str] = ()
  alike: bool = False


def data_dir() -> str:
  """The folder of the datasets: $IODINE_DATA_DIR, else "data"."""
  return os.environ.get("IODINE_DATA_DIR") or "data"


def defaults() -> dict[str, Any]:
  """{name: default} of all entries."""
  values = {name: entry.default for name, entry in ENTRIES.items()}
  return {**copy.deepcopy(values), "data_dir": data_dir()}


def faults(entries: Mapping[str, Any]) -> dict[str, str]:
  """What is wrong with entries, each by itself.

  Args:
    entries: {name: value}.

  Returns:
    {name: a line that names the entry, its value and the remedy}.
  """
  found = {}
  for name, value in entries.items():
    if name not in ENTRIES:
      meant = did_you_mean(name, ENTRIES, "keys")
      found[name] = f"{name}={value!r}: unknown key. {meant}"
    elif fault := ENTRIES[name].fault(name, value):
      found[name] = fault
  return found


# --- Kinds of values ----------------------------------------------------------


def _flag(name: str, value: Any) -> str | None:
  return checks.flag_fault(name, value)


def _text(name: str, value: Any) -> str | None:
  if isinstance(value, str):
    return None
  return f"{name}={value!r}: expected text"


def _path(name: str, value: Any) -> str | None:
  return checks.path_fault(name, value)


def _above_zero(name: str, value: Any) -> str | None:
  return checks.above_zero_fault(name, value)


def _mapping(name: str, value: Any) -> str | None:
  if isinstance(value, Mapping):
    return None
  return f"{name}={value!r}: expected a mapping of entries"


def _image_dim(name: str, value: Any) -> str | None:
  return None if value is None else checks.image_dim_fault(value)


def _choices(*choices: str) -> _Fault:
  def fault(name: str, value: Any) -> str | None:
    chosen = value.split(",") if isinstance(value, str) else []
    if chosen and all(x in choices and chosen.count(x) == 1 for x in chosen):
      return None
    return (
      f"{name}={value!r}: expected some of {', '.join(choices)}, each once and "
      f"with commas alone between them, such as {','.join(choices[:2])}"
    )

  return fault


def _integers(low: int) -> _Fault:
  def fault(name: str, value: Any) -> str | None:
    if value is None:
      return None
    if isinstance(value, list | tuple) and value:
      if all(checks.is_int(x) and x >= low for x in value):
        return None
    return (
      f"{name}={value!r}: expected a list of integers from {low} on, such as "
      f"[{low}]"
    )

  return fault


def _integer(
  low: int, high: int | None = None, optional: bool = False
) -> _Fault:
  return lambda name, value: checks.int_fault(name, value, low, high, optional)


def _texts(example: str) -> _Fault:
  return _optional(lambda name, value: checks.texts_fault(name, value, example))


def _size(most: int = checks.MOST_SIZE, low: int = 1) -> _Fault:
  return lambda name, value: checks.size_fault(name, value, low, most)


def _optional(fault: _Fault) -> _Fault:
  return lambda name, value: None if value is None else fault(name, value)


def _choice(*choices: str) -> _Fault:
  return lambda name, value: checks.choice_fault(name, value, choices)


# --- The entries, in the order in which print_config shows them ---------------

ENTRIES: dict[str, Entry] = {
  "continue_run": Entry(
    False, "train: resume from the last checkpoint in checkpoint_dir", _flag
  ),
  "checkpoint_dir": Entry(
    "checkpoints/iodine",
    'folder of the model: training appends "_<run id>", and other commands '
    "take the newest of these runs",
    _path,
  ),
  "save_summaries_steps": Entry(
    10, "train: steps between scalars", _integer(1)
  ),
  "save_images_steps": Entry(500, "train: steps between pictures", _integer(1)),
  "save_checkpoint_steps": Entry(
    1000, "train: steps between checkpoints", _integer(1)
  ),
  "keep_checkpoints": Entry(
    5, "train: how many of the last checkpoints are kept", _integer(1)
  ),
  "keep_best": Entry(
    None,
    "train: also keep the first checkpoint and the best one by this scalar, "
    "such as loss/ari_nobg, averaged since the checkpoint before",
    _optional(_text),
  ),
  "stop_after_steps": Entry(
    1_000_000, "train: the step at which the run ends", _integer(1), alike=True
  ),
  "n_z": Entry(64, "size of a slot's latent", _size(), kept=True),
  "num_components": Entry(7, "number of slots (K)", _size(low=2), kept=True),
  "num_iters": Entry(
    5, "refinement steps", _size(checks.MOST_ITERS, 0), kept=True
  ),
  "curriculum": Entry(
    None,
    "train: numbers of refinement steps by the training step from which they "
    "hold, such as [[0, 3], [100000, 1]]; None: num_iters throughout",
    _optional(checks.curriculum_fault),
    kept=True,
    alike=True,
  ),
  "geco": Entry(
    {"target": None},
    "train: constrain the likelihood of a model that has one (GECO): target, "
    "nats per value of an image, and more, see iodine.geco; target None: do "
    "not",
    _mapping,
    kept=True,
    alike=True,
  ),
  "precision": Entry(
    "float32",
    "float32; tf32, in which recent NVIDIA GPUs multiply faster and with a "
    "thousandth's accuracy; or bfloat16, in which IODINE's convolutions are "
    "faster on GPUs and some processors, with less",
    _choice(*checks.PRECISIONS),
  ),
  "xla": Entry(
    False,
    "train, evaluate, compare: compile the model with XLA, which may be faster "
    "and takes minutes at first",
    _flag,
  ),
  "recompute": Entry(
    False,
    "train: recompute refinement steps for their gradients, to save memory",
    _flag,
  ),
  "profile": Entry(
    False, "train: write a trace of ten steps for TensorBoard", _flag
  ),
  "batch_size": Entry(
    4,
    "images in a step, on all devices together",
    _size(checks.MOST_BATCH),
    alike=True,
  ),
  "strategy": Entry(
    None,
    "train: use all GPUs of this machine (mirrored), or of those that "
    "TF_CONFIG names (multi_worker); None: one device",
    _optional(_choice("mirrored", "multi_worker")),
  ),
  "accumulate": Entry(
    1,
    "train: sub-batches per device, processed in turn to save memory",
    _integer(1),
    alike=True,
  ),
  "deterministic": Entry(
    False,
    "train: make runs with the same seed bit-identical, which may be slower on "
    "GPUs",
    _flag,
  ),
  "base_learn_rate": Entry(
    0.001,
    "train: learning rate at a batch_size of base_batch_size",
    _above_zero,
  ),
  "base_batch_size": Entry(
    32, "train: batch_size to which base_learn_rate belongs", _integer(1)
  ),
  "learn_rate": Entry(
    None,
    "train: learning rate of the first step; None: "
    "base_learn_rate * sqrt(batch_size / base_batch_size)",
    _above_zero,
  ),
  "data_dir": Entry(
    data_dir(), "folder of the datasets ($IODINE_DATA_DIR)", _path
  ),
  "data_file": Entry(None, "data.path = data_dir/data_file", _optional(_path)),
  "image_dim": Entry(
    None,
    "height and width that images are resized to (None: the dataset's own)",
    _image_dim,
    kept=True,
  ),
  "held_out_scenes": Entry(
    1000,
    "train: how many of the first scenes are kept for evaluation",
    _integer(0),
    kept=True,
  ),
  "num_scenes": Entry(
    320,
    "evaluate, compare, describe_data: how many scenes; probe: how many for "
    "DCI",
    _integer(1),
  ),
  "num_samples": Entry(
    1, "evaluate, compare: posterior samples of each scene", _size()
  ),
  "protocol": Entry(
    None,
    "evaluate, compare, probe: efficientmorl scores, or measures DCI, as "
    "EfficientMORL's published code does (None: as this project does)",
    _optional(_choice("efficientmorl")),
  ),
  "probes": Entry(
    "linear,mlp1",
    "probe: which probes predict properties of objects, beside the dummy: "
    "linear, or with 1 to 3 hidden layers mlp1, mlp2, mlp3",
    _choices("linear", "mlp1", "mlp2", "mlp3"),
  ),
  "match_by": Entry(
    "loss",
    "probe: what matches objects to slots: loss, mask, or order (objects by "
    "their properties, slots as they come)",
    _choices("loss", "mask", "order"),
  ),
  "num_train_scenes": Entry(
    10_000, "probe: how many scenes train the probes", _integer(1)
  ),
  "num_validation_scenes": Entry(
    1024, "probe: how many scenes tell when a probe has learned", _integer(1)
  ),
  "num_test_scenes": Entry(
    None,
    "probe: how many of the first scenes test the probes (None: "
    "held_out_scenes, but at most 2000)",
    _integer(1, optional=True),
  ),
  "probe_shift": Entry(
    "test",
    "probe: which scenes data.shift shifts: test, or both (those that train "
    "and validate the probes, too)",
    _choice("test", "both"),
  ),
  "dci": Entry(
    None,
    "probe: measure disentanglement, completeness and informativeness, too, "
    "which needs scikit-learn (None: if that is installed)",
    _optional(_flag),
  ),
  "evaluation_dir": Entry(
    None,
    "evaluate, probe: folder of the results (None: beside the checkpoint)",
    _optional(_path),
  ),
  "pictures_dir": Entry(
    "pictures",
    "describe_data, visualize, traverse, compose, sample, decompose, compare: "
    "folder of the pictures",
    _path,
  ),
  "pictures_format": Entry(
    FIGURE_FORMATS[0],
    "evaluate, probe, describe_data, visualize, traverse, compose, sample, "
    "decompose, compare: pdf or svg, for papers, writes figures in this format "
    "beside their PNG files; animations stay GIFs",
    _choice(*FIGURE_FORMATS),
  ),
  "checkpoints": Entry(
    None,
    "compare: trained models, each a run's folder, a checkpoint in one or a "
    "configuration: [demo, checkpoints/mine_1]",
    _texts("[demo,checkpoints/mine_1]"),
  ),
  "names": Entry(
    None,
    "compare: what to call these models (None: by their kinds and folders)",
    _texts("[first,second]"),
  ),
  "scene": Entry(
    1, "visualize, traverse, compare: which scene, from 1 on", _integer(1)
  ),
  "slot": Entry(
    None,
    "visualize, traverse: which slot, from 1 on (None: that of the highest KL; "
    "of range_of=samples, every slot)",
    _integer(1, optional=True),
  ),
  "latents": Entry(
    None,
    "visualize, traverse: which latents, from 0 on (None: the most important)",
    _integers(0),
  ),
  "range_of": Entry(
    None,
    "traverse: posterior or prior: two standard deviations about its mean, for "
    "latents by KL; samples: from the lowest to the highest sample of "
    "range_scenes scenes, for latents by activeness, of every slot (None: the "
    "first of them that the model has)",
    _optional(_choice("posterior", "prior", "samples")),
  ),
  "range_scenes": Entry(
    100,
    "traverse, visualize, probe: of how many scenes latents are sampled, for "
    "range_of=samples, activeness, and the factors that they follow",
    _integer(1),
  ),
  "scenes": Entry(
    None,
    "compose: which scenes the slots come from, from 1 on (None: the first)",
    _integers(1),
  ),
  "slots": Entry(
    None,
    "compose: which slot of each of these scenes, from 1 on (None: their "
    "objects, and the background of the first)",
    _integers(1),
  ),
  "image": Entry(None, "decompose: file of the picture", _optional(_path)),
  "fit": Entry(
    "crop",
    "decompose: what is done to a picture of another shape than the model's "
    "images: crop takes its middle, pad adds stripes in the colour of its "
    "edges, stretch distorts it",
    _choice(*checks.FITS),
  ),
  "from_checkpoint": Entry(
    None,
    "convert_checkpoint: the published checkpoint, as in `checkpoint_dir`",
    _optional(_path),
  ),
  "tf1_checkpoint": Entry(
    None,
    "export_tf1: prefix of the reference's files to write; "
    "convert_checkpoint: the same as from_checkpoint",
    _optional(_path),
  ),
  "paper_batch_size": Entry(
    None,
    "images per GPU in the paper's training",
    _integer(1, optional=True),
  ),
  "paper_scores": Entry(
    {},
    "evaluate: published scores, mean and standard deviation over training "
    "seeds, or the number of one model",
    _mapping,
  ),
  "seed": Entry(
    None,
    "seed of all that is random; None: chosen at random",
    _integer(0, 2**31 - 2, optional=True),
  ),
  "data": Entry(
    {},
    "plan of the dataset, see iodine.modules.data",
    _mapping,
    kept=True,
    free=(
      "batch_size",
      "shuffle_buffer",
      "seed",
      "path",
      "cache_dir",
      "verify",
      "reader",
    ),
  ),
  "model": Entry(
    {},
    "plan of the model, see iodine.modules.iodine",
    _mapping,
    kept=True,
    # How the same is computed, and what convert_checkpoint notes.
    free=("precision", "recompute", "inner_batch_size"),
    alike=True,
  ),
  "optimizer": Entry(
    {"constructor": "iodine.training.make_optimizer"},
    "train: plan of the optimizer, see iodine.training",
    _mapping,
    alike=True,
  ),
}
