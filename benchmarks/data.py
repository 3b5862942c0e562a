"""Times the input pipeline of training: `python -m benchmarks.data`.

Prints one JSON line each for the files themselves and for the cache: scenes a
second of `IODINEDataset.batches`, filter, shuffling and batching included, once
the shuffle buffer is full. Files of synthetic scenes lie in a temporary folder,
so they are in the page cache.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from iodine.config import reading, resolution
from iodine.data.datasets import IODINEDataset
from iodine.synthetic import __main__ as synthetic

# {configuration: (arguments of iodine.synthetic, number of scenes)}
_SYNTHETIC = {
  "clevr6": (["clevr", "--max-objects", "6"], 512),
  "multi_dsprites": (["multi_dsprites"], 5_000),
  "objects_room": (["objects_room"], 5_000),
  "tetrominoes": (["tetrominoes"], 20_000),
}


def main() -> None:
  """Measures and prints."""
  args = _parse()
  with tempfile.TemporaryDirectory() as folder:
    path = args.path or _write_scenes(args.config, args.scenes, folder)
    for cache_dir in (None, folder):
      dataset = _dataset(args.config, path, args.batch_size, cache_dir)
      start = time.perf_counter()
      dataset.build_cache()
      build_s = time.perf_counter() - start
      result = {
        "config": args.config,
        "cached": cache_dir is not None,
        "batch_size": dataset.batch_size,
        "scenes_per_s": round(_throughput(dataset, args.seconds), 1),
        "build_s": round(build_s, 1) if cache_dir else None,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
      }
      print(json.dumps(result), flush=True)


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--config", default="tetrominoes", choices=_SYNTHETIC)
  parser.add_argument("--path", help="a file of scenes; default: synthetic")
  parser.add_argument("--scenes", type=int, help="number of synthetic scenes")
  parser.add_argument("--batch-size", type=int, help="default: the config's")
  parser.add_argument("--seconds", type=float, default=10.0)
  return parser.parse_args()


def _write_scenes(name: str, num_scenes: int | None, folder: str) -> str:
  arguments, default = _SYNTHETIC[name]
  path = str(pathlib.Path(folder, f"{name}.tfrecords"))
  scenes = str(num_scenes or default)
  synthetic.main([*arguments, "--scenes", scenes, "--output", path])
  return path


def _dataset(
  name: str, path: str, batch_size: int | None, cache_dir: str | None
) -> IODINEDataset:
  entries = resolution.resolve(reading.named_configs()[name])
  plan: dict[str, Any] = {**entries["data"], "path": path, "seed": 0}
  plan["cache_dir"] = cache_dir
  if batch_size is not None:
    plan["batch_size"] = batch_size
  (dataset,) = resolution.build({**entries, "data": plan}, ("data",))
  return dataset


def _throughput(dataset: IODINEDataset, seconds: float) -> float:
  """Scenes a second, after the first second's worth of batches."""
  batches = iter(dataset("train"))
  _count_for(batches, seconds / 5)  # until the shuffle buffer is full, about
  start = time.perf_counter()
  count = _count_for(batches, seconds)
  return count * dataset.batch_size / (time.perf_counter() - start)


def _count_for(batches: Iterator[Any], seconds: float) -> int:
  """Number of batches that come within a time."""
  end, count = time.perf_counter() + seconds, 0
  while count == 0 or time.perf_counter() < end:
    next(batches)
    count += 1
  return count


if __name__ == "__main__":
  main()
