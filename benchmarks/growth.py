"""How a training step's cost grows: `python -m benchmarks.growth --plot FILE`.

Times steps of a configuration with one of K, T, image side and batch changed at
a time. Prints one JSON line each, and draws seconds a step.
"""

import argparse
import json
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from matplotlib.figure import Figure

from benchmarks.train_step import measure
from iodine.config import reading

_BATCH_SIZE = 2
# {what grows: its values}
_VALUES = {
  "slots K": (2, 4, 6, 8),
  "refinement steps T": (1, 3, 5, 7),
  "image side": (17, 35, 52, 70),
  "batch": (1, 2, 4, 8),
}


def main() -> None:
  """Measures, prints and draws."""
  args = _parse()
  results: dict[str, list[float]] = {}
  for name, values in _VALUES.items():
    results[name] = []
    for value in values:
      options = _options(name, value)
      batch_size = options.pop("batch_size", _BATCH_SIZE)
      result = measure(args.config, batch_size, args.steps, **options)
      print(json.dumps(result), flush=True)
      results[name].append(result["step_s"])
  _draw(args.config, results).savefig(args.plot, dpi=100)


def _options(name: str, value: int) -> dict[str, Any]:
  return {
    "slots K": {"num_components": value},
    "refinement steps T": {"num_iters": value},
    "image side": {"image_dim": [value, value]},
    "batch": {"batch_size": value},
  }[name]


def _draw(config_name: str, results: dict[str, list[float]]) -> Figure:
  figure = Figure(figsize=(10, 2.6), layout="constrained")
  axes = figure.subplots(1, len(results), sharey=True)
  for axis, (name, seconds) in zip(axes, results.items(), strict=True):
    axis.plot(_VALUES[name], seconds, "o-")
    axis.set(xlabel=name, xlim=(0, None))
    axis.grid(alpha=0.3)
  highest = max(max(seconds) for seconds in results.values())
  axes[0].set(ylabel="seconds a step", ylim=(0, 1.05 * highest))
  figure.suptitle(f"{config_name}, batch {_BATCH_SIZE} unless it grows")
  return figure


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--config", default="tetrominoes", choices=reading.named_configs()
  )
  parser.add_argument("--steps", type=int, default=3)
  parser.add_argument("--plot", default="growth.png", help="file of the plot")
  return parser.parse_args()


if __name__ == "__main__":
  main()
