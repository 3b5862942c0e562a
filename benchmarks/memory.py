"""Watches memory, files and disk of a run: `python -m benchmarks.memory`.

Trains in a process of its own, with Sacred's record, then evaluates in this
one. Prints one JSON line each: memory, open files and disk at the end, and the
slopes of memory and disk after a warm-up, by least squares. Draws all of it
over steps and scenes. Needs Linux's /proc.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from matplotlib.figure import Figure

from iodine.config import reading, resolution
from iodine.evaluation import scores as scoring
from iodine.runs import loading

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
_MEGABYTE = 2**20
_WARM_UP = 0.25  # of the steps
_TITLES = ("resident memory (MB)", "open files", "on disk (MB)")


class _Sample(NamedTuple):
  """State of a process at a step or scene."""

  at: int
  memory_mb: float
  open_files: int
  disk_mb: float


def measure() -> None:
  """Measures, prints and draws."""
  args = _parse()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    train = [
      *("-F", str(folder / "storage"), "with", args.config, "seed=0"),
      *(f"stop_after_steps={args.steps}", f"checkpoint_dir={folder}/run"),
      *("save_checkpoint_steps=100", "save_images_steps=250"),
    ]
    samples = {
      "steps": list(_train(train, folder)),
      "scenes": _evaluate(args.config, args.scenes, folder),
    }
  for unit, values in samples.items():
    print(json.dumps(_summary(args.config, unit, values)), flush=True)
  _draw(samples).savefig(args.plot, bbox_inches="tight")


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--config", default="demo")
  parser.add_argument("--steps", type=int, default=2000)
  parser.add_argument("--scenes", type=int, default=2000)
  parser.add_argument("--plot", default="memory.png", help="file to draw")
  return parser.parse_args()


def _train(words: Sequence[str], folder: pathlib.Path) -> Iterator[_Sample]:
  """Runs a command; yields a sample for each line that tells of a step."""
  process = subprocess.Popen(
    [sys.executable, "-m", "iodine.main", *words],
    cwd=_REPOSITORY,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert process.stdout is not None
  lines = []
  for line in process.stdout:
    lines.append(line)
    if match := re.search(r"step (\d+)/", line):
      yield _sample(int(match[1]), process.pid, folder)
  if process.wait():
    sys.exit("".join(lines[-20:]))


def _evaluate(
  name: str, num_scenes: int, folder: pathlib.Path
) -> list[_Sample]:
  """Evaluates the trained model; a sample for each batch."""
  own = {"checkpoint_dir": f"{folder}/run_1"}
  entries = resolution.resolve(reading.named_configs()[name], own)
  trained = loading.open_trained(entries)
  trained.restore()
  dataset = trained.dataset.variant(take=num_scenes, shuffle_buffer=None)
  samples: list[_Sample] = []

  def on_progress(count: int) -> None:
    at = count + (samples[-1].at if samples else 0)
    samples.append(_sample(at, os.getpid(), folder))

  scoring.evaluate(
    trained.model,
    dataset("eval"),
    batch_size=dataset.batch_size,
    seed=0,
    on_progress=on_progress,
  )
  return samples


def _sample(at: int, pid: int, folder: pathlib.Path) -> _Sample:
  pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
  return _Sample(
    at=at,
    memory_mb=pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE,
    open_files=len(os.listdir(f"/proc/{pid}/fd")),
    disk_mb=_size(folder) / _MEGABYTE,
  )


def _size(folder: pathlib.Path) -> int:
  """Of all files, in bytes, but for those that go away meanwhile."""
  size = 0
  for path in folder.rglob("*"):
    with contextlib.suppress(FileNotFoundError):
      size += path.stat().st_size if path.is_file() else 0
  return size


def _summary(name: str, unit: str, samples: Sequence[_Sample]) -> dict:
  last = samples[-1].at
  warm = [sample for sample in samples if sample.at > _WARM_UP * last]
  at = [sample.at / 1000 for sample in warm]
  memory = [sample.memory_mb for sample in warm]
  disk = [sample.disk_mb for sample in warm]
  return {
    "config": name,
    unit: last,
    "memory_mb": round(memory[-1], 1),
    f"memory_mb_per_1000_{unit}": round(float(np.polyfit(at, memory, 1)[0]), 2),
    "open_files": [min(s.open_files for s in warm), warm[-1].open_files],
    "disk_mb": round(disk[-1], 2),
    f"disk_mb_per_1000_{unit}": round(float(np.polyfit(at, disk, 1)[0]), 2),
  }


def _draw(samples: dict[str, list[_Sample]]) -> Figure:
  figure = Figure(figsize=(10, 5))
  axes = figure.subplots(len(samples), 3, squeeze=False)
  for row, (unit, values) in zip(axes, samples.items(), strict=True):
    at, *columns = zip(*values, strict=True)
    for axis, title, column in zip(row, _TITLES, columns, strict=True):
      axis.plot(at, column)
      axis.set(title=title, xlabel=unit, ylim=(0, 1.1 * max(column)))
  figure.tight_layout()
  return figure


if __name__ == "__main__":
  measure()
