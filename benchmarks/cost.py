"""What a training step costs on paper: `python -m benchmarks.cost`.

Counts floating-point operations and bytes of a step by XLA's own analysis of
the compiled step, and predicts from data sheets how fast it could be at most.
Prints one JSON line; `--table FILE` prints a table of all configurations. Needs
JAX.

XLA counts a multiplication and an addition each as an operation, and products
with a convolution's padding not at all; the body of a loop counts once. `bytes`
counts what every operation reads and writes, as if none were fused with
another; `fused_bytes`, with `--fused`, what is left of that after XLA compiled
the step for the processor. A GPU's compiler fuses otherwise, and caches save
more, so that it is an estimate.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.train_step import random_batch
from iodine import training
from iodine.config import reading, resolution
from iodine.runs import loading
from scripts.export_training import flat_batch, step_module
from scripts.run_training import load_step


class Gpu(NamedTuple):
  """Numbers of a data sheet, for dense matrices.

  Attributes:
    flops: {precision: operations a second}.
    bandwidth: of its memory, bytes a second.
    link: to the other GPUs of a machine, bytes a second in one direction.
  """

  flops: Mapping[str, float]
  bandwidth: float
  link: float


_HOPPER = {"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12}
GPUS = {
  "A100": Gpu(
    {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12}, 2.039e12, 300e9
  ),
  "H100": Gpu(_HOPPER, 3.35e12, 450e9),
  "H200": Gpu(_HOPPER, 4.8e12, 450e9),
}
_PER_MACHINE = 8  # GPUs
_NETWORK = 50e9  # bytes a second of each GPU to other machines: 400 Gbit/s
_NUM_GPUS = (1, 8, 16, 32, 64)
_PRECISIONS = ("float32", "tf32")  # that are predicted
_BATCH_SIZE = 2


def main() -> None:
  """Counts and prints."""
  args = _parse()
  if args.table is not None:
    print(_table(_all_counts(args.table, args.fused)))
    return
  counted = count(args.config, args.batch_size, args.fused)
  predicted = {
    f"{name}, {precision}": {
      "images_per_s": round(images_per_s(counted, gpu, precision)),
      "growth": [growth(counted, gpu, precision, n) for n in _NUM_GPUS],
    }
    for name, gpu in GPUS.items()
    for precision in _PRECISIONS
  }
  print(json.dumps({**counted, "predicted": predicted}))


def count(
  config_name: str, batch_size: int = _BATCH_SIZE, fused: bool = False
) -> dict[str, Any]:
  """Counts what a training step does.

  With a curriculum, it is a step with the refinement steps of evaluation.

  Args:
    config_name: of a named configuration.
    batch_size: B.
    fused: whether XLA compiles the step, to count the bytes again.

  Returns:
    `flops` and `bytes` of a step, `fused_bytes` if asked for; `loops`, whose
    bodies count once; `parameters`, number of trainable ones; `images`, of the
    whole published training, and `images_a_gpu`, those of them that one GPU
    sees in a step.
  """
  entries = resolution.resolve(reading.named_configs()[config_name])
  dataset, model, optimizer = resolution.build(
    entries, ("data", "model", "optimizer")
  )
  trainer = training.Trainer(model, optimizer, seed=0)
  loading.initialize(trainer, dataset)
  batch = flat_batch(random_batch(dataset.batch_spec(batch_size)))
  module, spec, _ = step_module(trainer, batch)
  return {
    "config": config_name,
    "batch_size": batch_size,
    "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
    "images": entries["stop_after_steps"] * _paper_batch(entries),
    "images_a_gpu": entries["paper_batch_size"] or entries["batch_size"],
    **analysed(module, spec, fused),
  }


def analysed(
  module: bytes, spec: Mapping[str, Any], fused: bool = False
) -> dict[str, int]:
  """XLA's analysis of a module, see `export_training.step_module`.

  Returns:
    See `count`.
  """
  import jax

  call, inputs = load_step(module, spec)
  lowered = jax.jit(call).lower(*inputs)
  analysis = lowered.cost_analysis()
  counts = {
    "flops": int(analysis["flops"]),
    "bytes": int(analysis["bytes accessed"]),
    "loops": lowered.as_text().count("stablehlo.while"),
  }
  if fused:
    analysis = lowered.compile().cost_analysis()
    counts["fused_bytes"] = int(analysis["bytes accessed"])
  return counts


def _paper_batch(entries: Mapping[str, Any]) -> int:
  """The batch of the published training, of all its GPUs."""
  if entries["paper_batch_size"]:
    return entries["base_batch_size"]
  return entries["batch_size"]


def images_per_s(counted: Mapping[str, Any], gpu: Gpu, precision: str) -> float:
  """The roofline: as fast as arithmetic or memory allows, whichever is slower.

  Args:
    counted: result of `count`.
    gpu: whose peaks count.
    precision: of all operations.
  """
  moved = counted.get("fused_bytes", counted["bytes"])
  seconds = max(counted["flops"] / gpu.flops[precision], moved / gpu.bandwidth)
  return counted["batch_size"] / seconds


def all_reduce_s(parameters: int, gpu: Gpu, num_gpus: int) -> float:
  """Seconds that the mean of float32 gradients takes in a ring of GPUs.

  Each sends and receives 2 (n - 1) / n of the gradients' bytes, as fast as the
  slowest link. Latencies do not count.
  """
  speed = gpu.link if num_gpus <= _PER_MACHINE else _NETWORK
  return 2 * (num_gpus - 1) / num_gpus * 4 * parameters / speed


def growth(
  counted: Mapping[str, Any], gpu: Gpu, precision: str, num_gpus: int
) -> dict[str, float]:
  """Predicts a training on several GPUs, with the published images on each.

  Args:
    counted: see `images_per_s`.
    gpu: of which there are several.
    precision: see `images_per_s`.
    num_gpus: how many.

  Returns:
    `step_ms`, milliseconds of a step; `all_reduce_ms`, which come to that as
    nothing else happens meanwhile; `hours` until all images were seen.
  """
  on_each = counted["images_a_gpu"]
  step = on_each / images_per_s(counted, gpu, precision)
  shared = all_reduce_s(counted["parameters"], gpu, num_gpus)
  hours = counted["images"] / (on_each * num_gpus) * (step + shared) / 3600
  return {
    "gpus": num_gpus,
    "step_ms": round(1e3 * step, 3),
    "all_reduce_ms": round(1e3 * shared, 4),
    "hours": round(hours, 1),
  }


def _all_counts(path: pathlib.Path, fused: bool) -> list[dict[str, Any]]:
  """Counts of all configurations; those that are not in the file come to it."""
  lines = path.read_text().splitlines() if path.exists() else []
  counts = {line["config"]: line for line in map(json.loads, lines)}
  for name in reading.config_names():
    if name in counts:
      continue
    # In a process of its own, which gives all memory back.
    words = [sys.executable, "-m", "benchmarks.cost", "--config", name]
    result = subprocess.run(
      words + ["--fused"] * fused, capture_output=True, text=True, check=False
    )
    if result.returncode:
      last = (result.stderr.strip().splitlines() or ["?"])[-1]
      print(f"{name}: left out ({last[:200]})", file=sys.stderr)
      continue
    counts[name] = json.loads(result.stdout)
    with path.open("a") as file:
      file.write(result.stdout)
  return list(counts.values())


def _table(counts: Sequence[Mapping[str, Any]]) -> str:
  """Rows of Markdown.

  They have an image's operations and bytes, images a second of one GPU, and
  hours of the whole training on eight H100s in TF32.
  """
  columns = [f"{name} {p}" for p in _PRECISIONS for name in GPUS]
  rows = [
    ["configuration", "parameters", "GFLOP", "MB", *columns, "hours"],
    ["---"] * (5 + len(columns)),
  ]
  for counted in counts:
    size = counted["batch_size"]
    moved = counted.get("fused_bytes", counted["bytes"])
    rows.append(
      [
        counted["config"],
        f"{counted['parameters']:,}",
        f"{counted['flops'] / size / 1e9:,.1f}",
        f"{moved / size / 1e6:,.0f}"
        + ("" if "fused_bytes" in counted else " (unfused)"),
        *(
          f"{images_per_s(counted, gpu, precision):,.0f}"
          for precision in _PRECISIONS
          for gpu in GPUS.values()
        ),
        f"{growth(counted, GPUS['H100'], 'tf32', 8)['hours']:,.1f}",
      ]
    )
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--config", default="tetrominoes", choices=reading.named_configs()
  )
  parser.add_argument("--batch-size", type=int, default=_BATCH_SIZE)
  parser.add_argument(
    "--fused", action="store_true", help="compile, to count bytes again"
  )
  parser.add_argument(
    "--table",
    type=pathlib.Path,
    metavar="FILE",
    help="all configurations; keeps their JSON lines in FILE, to go on there",
  )
  args = parser.parse_args()
  if args.batch_size < 1:
    parser.error("--batch-size must be at least 1")
  return args


if __name__ == "__main__":
  main()
