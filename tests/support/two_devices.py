"""Trains with two logical CPU devices, in a process of its own.

TensorFlow divides a device only before it executes anything:
`two_devices.py ACCUMULATE [xla]` prints, as JSON, how far the results of five
steps are from those of one device that takes the same sub-batches in turn; with
xla, XLA compiles those of the two devices.
"""

import json
import pathlib
import sys
import tempfile
import types
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import training
from iodine.data.datasets import Position
from iodine.geco import Geco
from iodine.runs import checkpoint_files
from iodine.runs import checkpoints as run_checkpoints
from iodine.training import replicas
from tests.support import tiny

STEPS = 5
_BATCH = 4


def train(
  strategy: str | None, accumulate: int, xla: bool = False, **overrides: Any
) -> tuple[Any, list[dict]]:
  """Returns the trainer after five steps, and the scalars of each.

  The last three steps are under a constraint, whose state the nll of all
  sub-batches changes.
  """
  devices = replicas.create(strategy, accumulate)
  tf.random.set_seed(1)
  with devices.scope():
    model = tiny.build(num_iters=1, **overrides)
    model.use_geco(Geco(target=1.0, step_size=1e-3, warmup_steps=2))
    trainer = training.Trainer(
      model, training.make_optimizer(3e-3), 7, devices, xla=xla
    )
    trainer.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  batch = tiny.batch()
  scalars = [trainer.step(batch) for _ in range(STEPS)]
  return trainer, [{k: float(v) for k, v in x.items()} for x in scalars]


def distance(a: Any, b: Any) -> float:
  """The largest difference, relative to the largest value."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  return float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-3))


def saved(trainer: Any) -> dict[str, np.ndarray]:
  """What a checkpoint of a run holds."""
  with tempfile.TemporaryDirectory() as folder:
    run = run_checkpoints.RunCheckpoints(pathlib.Path(folder), trainer, keep=1)
    dataset: Any = types.SimpleNamespace(seed=3)
    return checkpoint_files.read(run.save(dataset, Position(1, 2)))


def main(accumulate: int, xla: bool) -> dict[str, Any]:
  cpu = tf.config.list_physical_devices("CPU")[0]
  half = tf.config.LogicalDeviceConfiguration()
  tf.config.set_logical_device_configuration(cpu, [half, half])
  one, expected = train(None, 2 * accumulate)
  two, scalars = train("mirrored", accumulate, xla)
  of_one = {v.name: v.numpy() for v in one.variables}
  of_two = {v.name: v for v in two.variables}
  assert of_one.keys() == of_two.keys()
  in_file, expected_in_file = saved(two), saved(one)
  assert in_file.keys() == expected_in_file.keys()
  copies = [tuple(x.numpy() for x in v.values) for v in of_two.values()]
  return {
    "replicas": two.distribution.num_replicas,
    "scalars": {
      name: max(
        distance(a[name], b[name])
        for a, b in zip(expected, scalars, strict=True)
      )
      for name in expected[0]
    },
    "variables": {
      name: distance(value, of_two[name].numpy())
      for name, value in of_one.items()
    },
    "checkpoint": {
      name: distance(value, in_file[name])
      for name, value in expected_in_file.items()
    },
    "copies": [len(x) for x in copies],
    "equal": all(np.array_equal(*x) for x in copies),
    "losses": [x["loss/total"] for x in scalars],
    "losses_without_factors": [
      x["loss/total"]
      for x in train("mirrored", accumulate, xla, factor_evaluator=None)[1]
    ],
  }


if __name__ == "__main__":
  print(json.dumps(main(int(sys.argv[1]), "xla" in sys.argv[2:])))
