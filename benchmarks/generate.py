"""Times SLATE's generation: `python -m benchmarks.generate`.

Greedy, from random slots, at the published size for 3D Shapes: with the cached
keys and values of `SLATE.compose`, and as the published code does it, by the
whole transformer on all tokens so far, again for each token. Both are compiled.
Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from benchmarks.train_step import run
from iodine.models.slate import SLATE
from iodine.models.slate.transformer import Dropout

_IMAGE_SHAPE = (64, 64, 3)


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--scenes", type=int, default=1)
  parser.add_argument("--repeats", type=int, default=3)
  args = parser.parse_args()
  for name in ("scenes", "repeats"):
    if getattr(args, name) < 1:
      parser.error(f"--{name} must be at least 1")
  print(json.dumps(measure(args.scenes, args.repeats)))


def measure(scenes: int, repeats: int) -> dict[str, Any]:
  """Times both forms in turn.

  Args:
    scenes: how many are rendered at once.
    repeats: how often.

  Returns:
    What is printed: seconds, also of the processor, which other work hardly
    changes; and how many times longer the uncached form takes, by medians.
  """
  model = SLATE()
  model.initialize(_IMAGE_SHAPE, {})
  z = tf.random.stateless_normal(
    [scenes, model.num_components, model.n_z], [0, 0]
  )
  uncached = tf.function(lambda z: _uncached(model, z), autograph=False)
  forms = {
    "cached": lambda: model.compose(z).recons,
    "uncached": lambda: uncached(z),
  }
  pictures = [form() for form in forms.values()]  # compiles
  difference = float(tf.reduce_max(tf.abs(pictures[0] - pictures[1])))
  seconds: dict[str, list[float]] = {}
  for _ in range(repeats):
    for name, form in forms.items():
      processor = time.process_time()
      seconds.setdefault(f"{name}_s", []).append(run(form))
      processor = time.process_time() - processor
      seconds.setdefault(f"{name}_processor_s", []).append(processor)
  factors = {
    f"factor{kind}": statistics.median(seconds[f"uncached{kind}"])
    / statistics.median(seconds[f"cached{kind}"])
    for kind in ("_s", "_processor_s")
  }
  return {
    "scenes": scenes,
    **{key: [round(x, 3) for x in values] for key, values in seconds.items()},
    **{key: round(value, 1) for key, value in factors.items()},
    "largest_difference": difference,
  }


def _uncached(model: SLATE, z: tf.Tensor) -> tf.Tensor:
  """Pictures of slots [N, K, D]; each token from all before it, afresh."""
  slots = model._slot_projection(z)
  length = model._positions.shape[1] - 1

  def predict(count: tf.Tensor, tokens: tf.Tensor) -> tuple:
    embeddings = tf.gather(model._embedding, tokens)
    embeddings += model._positions[:, :count]
    decoded, _ = model._transformer(embeddings, slots, Dropout())
    token = tf.argmax(model._to_logits(decoded[:, -1:]), -1, tf.int32)
    return count + 1, tf.concat([tokens, token + 1], axis=1)

  scenes = z.shape[0]
  _, tokens = tf.while_loop(
    lambda count, _: count <= length,
    predict,
    (tf.constant(1), tf.zeros([scenes, 1], tf.int32)),
    shape_invariants=(tf.TensorShape([]), tf.TensorShape([scenes, None])),
  )
  tokens = tf.ensure_shape(tokens, [scenes, length + 1])
  return model._picture(tokens[:, 1:] - 1)


if __name__ == "__main__":
  main()
