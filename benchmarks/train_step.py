"""Times a training step: `python -m benchmarks.train_step --config NAME`.

Prints one JSON line: medians of seconds a step, `step_cpu_s` those of all
threads together, which other work hardly changes. `step_mb` is how far the peak
of the process' memory rises in the first two steps.

For IODINE, a unit is the time of the decoder's bare forward convolutions
(`tf.nn.conv2d`, same shapes, float32) on the same batch, measured in turn with
the steps in the same process, so that `units` compares machines, loads and
precisions.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from iodine import checks, devices
from iodine.commands.train import make_trainer
from iodine.config import reading, resolution
from iodine.training import replicas


def main() -> None:
  """Measures and prints."""
  args = vars(_parse())
  print(json.dumps(measure(args.pop("config"), **args)))


def measure(
  config_name: str,
  batch_size: int,
  steps: int,
  data_of: str | None = None,
  **overrides: Any,
) -> dict[str, Any]:
  """Times training steps.

  Args:
    config_name: of a named configuration.
    batch_size: B.
    steps: how many are timed; their median counts.
    data_of: named configuration whose data give the sizes; None: the same.
    **overrides: of the configuration's entries.

  Returns:
    What is printed.
  """
  configs = reading.named_configs()
  named = {**configs[config_name], **overrides}
  if data_of:
    of_data = ("data", "data_file", "image_dim")
    named |= {k: v for k, v in configs[data_of].items() if k in of_data}
  entries = resolution.resolve(named)
  dataset, model, optimizer = resolution.build(
    entries, ("data", "model", "optimizer")
  )
  devices.set_up(resolution.precision(entries))
  distribution = replicas.create(entries["strategy"], entries["accumulate"])
  trainer = make_trainer(
    dataset, model, optimizer, 0, distribution, xla=entries["xla"]
  )
  batch = random_batch(dataset.batch_spec(batch_size))
  before_mb = _peak_rss_mb()
  start = time.perf_counter()
  run(lambda: trainer.step(batch))
  compile_s = time.perf_counter() - start
  run(lambda: trainer.step(batch))
  step_mb = _peak_rss_mb() - before_mb
  unit = _make_unit(entries, dataset, batch_size)
  if unit:
    run(unit)
  step_times, cpu_times, unit_times = [], [], []
  for _ in range(steps):
    if unit:
      unit_times.append(run(unit))
    start_cpu = time.process_time()
    step_times.append(run(lambda: trainer.step(batch)))
    cpu_times.append(time.process_time() - start_cpu)
  step_s = statistics.median(step_times)
  units = {}
  if unit:
    ratios = [s / u for s, u in zip(step_times, unit_times, strict=True)]
    units["unit_s"] = round(statistics.median(unit_times), 5)
    units["units"] = round(statistics.median(ratios), 2)
  return {
    "config": config_name,
    "data_of": data_of or config_name,
    "batch_size": batch_size,
    **overrides,
    "images_per_s": round(batch_size / step_s, 3),
    "step_s": round(step_s, 4),
    "step_cpu_s": round(statistics.median(cpu_times), 4),
    **units,
    "compile_s": round(compile_s, 1),
    "peak_rss_mb": _peak_rss_mb(),
    "step_mb": step_mb,
  }


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--config", default="tetrominoes", choices=reading.named_configs()
  )
  parser.add_argument(
    "--data-of",
    choices=reading.named_configs(),
    help="configuration whose data give the sizes; by default --config's",
  )
  parser.add_argument("--batch-size", type=int, default=8)
  parser.add_argument(
    "--precision", default="float32", choices=checks.PRECISIONS
  )
  parser.add_argument("--xla", action="store_true")
  parser.add_argument("--recompute", action="store_true")
  parser.add_argument("--steps", type=int, default=5)
  args = parser.parse_args()
  for name in ("batch_size", "steps"):
    if getattr(args, name) < 1:
      parser.error(f"--{name.replace('_', '-')} must be at least 1")
  return args


def random_batch(spec: dict[str, Any]) -> dict[str, Any]:
  """A batch of noise, with one-hot masks if there are masks."""
  rng = np.random.default_rng(0)

  def draw(tensor: tf.TensorSpec) -> tf.Tensor:
    return tf.cast(rng.random(tensor.shape, np.float32), tensor.dtype)

  batch = tf.nest.map_structure(draw, spec)
  if mask := spec.get("mask"):
    owner = rng.integers(mask.shape[2], size=mask.shape[:2] + mask.shape[3:])
    batch["mask"] = tf.one_hot(owner, mask.shape[2], axis=2, dtype=mask.dtype)
  return batch


def _make_unit(
  entries: dict[str, Any], dataset: Any, batch_size: int
) -> Callable[[], tf.Tensor] | None:
  """The decoder's convolutions alone, compiled; None if not IODINE's."""
  if "pixel_decoder" not in entries["model"].get("decoder", {}):
    return None
  decoder = entries["model"]["decoder"]["pixel_decoder"]
  options = decoder["cnn_opt"]
  height, width, channels = dataset.batch_spec()["image"].shape[2:]
  layers = [*options["output_channels"][:-1], channels + 1]
  # z, the constant beside it, and two coordinates.
  inputs = [entries["n_z"] + 3, *layers[:-1]]
  rng = np.random.default_rng(0)
  size = options["kernel_shapes"][0]
  kernels = [
    tf.constant(rng.normal(0, 0.05, (size, size, i, o)), tf.float32)
    for i, o in zip(inputs, layers, strict=True)
  ]
  slots = batch_size * entries["num_components"]
  image = tf.constant(
    rng.normal(size=(slots, height, width, inputs[0])), tf.float32
  )

  @tf.function
  def convolutions(net):
    for kernel in kernels:
      net = tf.nn.conv2d(net, kernel, 1, "SAME")
    return net

  return lambda: convolutions(image)


def run(function: Callable[[], Any]) -> float:
  """Seconds until the results of a call are there."""
  start = time.perf_counter()
  for value in tf.nest.flatten(function()):
    value.numpy()
  return time.perf_counter() - start


def _peak_rss_mb() -> int:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak // (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
  main()
