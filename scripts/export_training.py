"""Writes a training step and its scenes for a machine without TensorFlow.

  python -m scripts.export_training FOLDER with tetrominoes KEY=VALUE ...

FOLDER then has all that `python FOLDER/run_training.py` needs, which trains
with JAX and NumPy alone: the step as the product's own trainer takes it, as a
StableHLO module; the values of all variables; the scenes. What comes of it is
brought back by `python -m scripts.import_training`.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import iodine.quiet_tensorflow

import numpy as np
import tensorflow as tf

from iodine import devices, metrics
from iodine.commands.train import make_trainer, prepare
from iodine.compiling import compiled
from iodine.config import parsing, reading, resolution
from iodine.data import opening
from iodine.errors import ConfigError, RunError
from iodine.files import make_folder, put, results_in, scratch_folder
from iodine.runs import folder as run_folder
from iodine.training import Trainer, replicas
from scripts import run_training
from scripts.run_training import (
  SCENES_FILE,
  SPEC_FILE,
  START_FILE,
  STEP_FILE,
)

_READ_AT_ONCE = 500  # scenes
# `{2}: (5, {}, may-alias)`: output 2 is the new value of input 5.
_ALIAS = re.compile(r"\{(\d+)\}: \((\d+), \{\}")


def main(argv: Sequence[str] | None = None) -> None:
  """Writes the folder."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("folder", type=pathlib.Path, help="new")
  parser.add_argument(
    "words", nargs="+", metavar="with ...", help="as for `iodine.main`"
  )
  arguments = parser.parse_args(argv)
  if arguments.words[0] != "with":
    parser.error(f"{arguments.words[0]}: expected `with`")
  try:
    export(resolve(arguments.words[1:]), arguments.folder)
  except (ConfigError, RunError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
  print(
    f"Wrote {arguments.folder}. Next, where JAX is:\n"
    f"  python {arguments.folder / run_training.NAME}"
  )


def resolve(words: Sequence[str]) -> dict[str, Any]:
  """The whole configuration of words such as tetrominoes and batch_size=8.

  Raises:
    ConfigError: for names that are neither configurations nor files.
  """
  overrides, names = parsing.parse_words(words)
  reading.check_entries(overrides)
  entries: dict[str, Any] = {}
  named = reading.named_configs()
  for name in names:
    own = named.get(name)
    if own is None:
      own = run_folder.read_file(pathlib.Path(name), in_place=True)
    entries = reading.merged(entries, own)
  return resolution.resolve(entries, overrides)


def export(entries: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes what trains a model elsewhere.

  Args:
    entries: the whole configuration. Training begins anew.
    folder: does not exist yet.

  Raises:
    ConfigError: for a mistake in configuration, data or folder.
  """
  if folder.exists():
    raise ConfigError(f"{folder}: exists already. Name a new folder.")
  parts = prepare(entries)
  for name in ("curriculum", "strategy"):
    if entries[name] is not None:
      raise ConfigError(
        f"{name}={entries[name]!r}: one exported step has no use for it. Set "
        f"{name}=null"
      )
  dataset, _ = opening.training_data(entries, parts.dataset)
  scenes = _stored(
    dataset.variant(batch_size=_READ_AT_ONCE, shuffle_buffer=None), dataset
  )
  devices.set_up(resolution.precision(entries))
  trainer = make_trainer(
    dataset,
    parts.model,
    parts.optimizer,
    entries["seed"],
    replicas.create(None, entries["accumulate"]),
  )
  seeds = {"seed": int(trainer.seed.numpy()), "data.seed": dataset.seed}
  saved = run_folder.config_to_save(entries, seeds, is_seed_given=False)
  with results_in(folder.parent, "folder"):
    make_folder(folder.parent, "folder")
    with scratch_folder(folder.parent) as new:
      write(
        new,
        trainer,
        scenes,
        batch_size=dataset.batch_size,
        seed=dataset.seed,
        stop_after_steps=entries["stop_after_steps"],
      )
      run_folder.save_config(new, saved)
      put(new, folder, sorted(path.name for path in new.iterdir()))


def write(
  folder: pathlib.Path,
  trainer: Trainer,
  scenes: Mapping[str, np.ndarray],
  **options: int,
) -> None:
  """Writes what `run_training.py` reads, and that itself.

  Args:
    folder: exists.
    trainer: has all variables.
    scenes: {name: [N, ...]}, as in a batch that is flat.
    **options: `batch_size`; `seed`, of the order of the scenes;
      `stop_after_steps`.
  """
  size = options["batch_size"]
  batch = {name: tf.constant(value[:size]) for name, value in scenes.items()}
  module, spec, start = step_module(trainer, batch)
  text = json.dumps({**spec, **options}, indent=1)
  (folder / STEP_FILE).write_bytes(module)
  (folder / SPEC_FILE).write_text(text + "\n")
  np.savez_compressed(folder / SCENES_FILE, **scenes)
  np.savez(folder / START_FILE, **start)
  shutil.copy(run_training.__file__, folder / run_training.NAME)


def step_module(
  trainer: Trainer, batch: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any], dict[str, np.ndarray]]:
  """Compiles a step to a module that needs no TensorFlow.

  Args:
    trainer: has all variables.
    batch: flat; its values do not matter, but for constants among them.

  Returns:
    The module, as StableHLO's portable bytecode; what there is to know of it;
    and the state before the first step, {name: value}, of all variables and of
    constants. To know there is
    `inputs`, [shape, dtype] of each; `arguments`, names of the batch's tensors,
    which are the first inputs; `captured`, names of the others in the state;
    `outputs`, the input whose new value each output after the first is;
    `scalars`, names of the values of the first output, [n] float32;
    `may_be_nan`, those of them that may be NaN.
  """
  names: list[str] = []
  arguments = sorted(batch)

  def step(*tensors: tf.Tensor) -> tf.Tensor:
    data = dict(zip(arguments, tensors, strict=True))
    scalars, _ = trainer.traced_step(as_trained_on(data))
    names[:] = scalars
    return tf.stack([tf.cast(value, tf.float32) for value in scalars.values()])

  values = [batch[name] for name in arguments]
  for_xla = compiled(step, xla=True)
  graph = for_xla.get_concrete_function(*values)
  compile_to = for_xla.experimental_get_compiler_ir(*values)
  header = compile_to(stage="hlo").partition("\n")[0]
  updated = {int(o): int(i) for o, i in _ALIAS.findall(header)}
  owners = {id(v.handle): v.name for v in trainer.variables}
  state = {v.name: v.numpy() for v in trainer.variables}
  assert len(state) == len(owners), "two variables of one name"
  captured = []
  for tensor in graph.captured_inputs:
    name = owners.get(id(tensor))
    if name is None:
      name = f"constant{len(captured)}"
      state[name] = tensor.numpy()
    captured.append(name)
  inputs = [*values, *(state[name] for name in captured)]
  assert sorted(updated) == list(range(1, len(updated) + 1)), header[:1000]
  spec = {
    "inputs": [[list(x.shape), tf.as_dtype(x.dtype).name] for x in inputs],
    "arguments": arguments,
    "captured": captured,
    "outputs": [updated[output] for output in sorted(updated)],
    "scalars": names,
    "may_be_nan": list(filter(metrics.is_score, names)),
  }
  return compile_to(stage="stablehlo_serialized"), spec, state


def as_trained_on(data: Mapping[str, tf.Tensor]) -> dict[str, Any]:
  """A batch for the model: images as floats, factors in a dict of their own."""
  batch: dict[str, Any] = {}
  for name, value in data.items():
    group, _, factor = name.rpartition("/")
    (batch.setdefault(group, {}) if group else batch)[factor] = value
  image = batch["image"]
  if image.dtype == tf.uint8:
    batch["image"] = tf.cast(image, tf.float32) / 255.0
  return batch


def _stored(scenes: Any, dataset: Any) -> dict[str, np.ndarray]:
  """Reads all scenes: {name: [N, ...]}; images as bytes where these suffice."""
  with opening.data_errors_as_config_errors(dataset):
    batches = [flat_batch(batch) for batch in scenes("eval")]
  stored = {
    name: np.concatenate([batch[name].numpy() for batch in batches])
    for name in batches[0]
  }
  pixels = np.rint(255 * stored["image"]).astype(np.uint8)
  if np.array_equal(pixels / np.float32(255), stored["image"]):
    stored["image"] = pixels
  if len(pixels) < dataset.batch_size:
    raise ConfigError(
      f"batch_size={dataset.batch_size}: there are only {len(pixels)} scenes "
      "to train on"
    )
  return stored


def flat_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
  """A batch with its factors as factors/<name>."""
  flat = {}
  for name, value in batch.items():
    is_group = isinstance(value, Mapping)
    flat |= (
      {f"{name}/{k}": v for k, v in value.items()}
      if is_group
      else {name: value}
    )
  return flat


if __name__ == "__main__":
  main()
