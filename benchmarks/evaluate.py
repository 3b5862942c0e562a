"""Times evaluation beside training: `python -m benchmarks.evaluate`.

Prints one JSON line: images a second of `evaluation.evaluate` and of training
steps on the same random batch, measured in turn in one process, and the ratio
of the two.
"""

import argparse
import json
import os
import statistics
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.train_step import random_batch, run
from iodine import checks, training
from iodine.config import reading, resolution
from iodine.evaluation import scores as scoring

# That are timed at once.
_NUM_BATCHES = 8


def main() -> None:
  """Measures and prints."""
  print(json.dumps(measure(**vars(_parse()))))


def measure(
  config_name: str, batch_size: int, precision: str, rounds: int
) -> dict[str, Any]:
  """Times rounds of a training step and of the evaluation of a few batches.

  Args:
    config_name: of a named configuration.
    batch_size: B.
    precision: of the convolutions.
    rounds: how many; their medians count.

  Returns:
    What is printed.
  """
  entries = resolution.resolve(
    {**reading.named_configs()[config_name], "precision": precision}
  )
  dataset, model = resolution.build(entries, ("data", "model"))
  trainer = training.Trainer(
    model, training.make_optimizer(learn_rate=1e-4), seed=0
  )
  batch = random_batch(dataset.batch_spec(batch_size))
  run(lambda: trainer.step(batch))
  train, evaluate = [], []
  for _ in range(rounds):
    train.append(batch_size / run(lambda: trainer.step(batch)))
    # The first batch, which compiles, is not counted.
    result = scoring.evaluate(
      model, [batch] * (_NUM_BATCHES + 1), batch_size, seed=0
    )
    evaluate.append(result.images_per_second)
  ratios = [e / t for e, t in zip(evaluate, train, strict=True)]
  return {
    "config": config_name,
    "batch_size": batch_size,
    "precision": precision,
    "train_images_per_s": round(statistics.median(train), 3),
    "evaluate_images_per_s": round(statistics.median(evaluate), 3),
    "ratio": round(statistics.median(ratios), 2),
  }


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--config",
    dest="config_name",
    default="tetrominoes",
    choices=reading.named_configs(),
  )
  parser.add_argument("--batch-size", type=int, default=8)
  parser.add_argument(
    "--precision", default="float32", choices=checks.PRECISIONS
  )
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  for name in ("batch_size", "rounds"):
    if getattr(args, name) < 1:
      parser.error(f"--{name.replace('_', '-')} must be at least 1")
  return args


if __name__ == "__main__":
  main()
