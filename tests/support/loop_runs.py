"""Runs of the training loop on a tiny model, without the command line."""

import pathlib
from collections.abc import Callable

import tensorflow as tf

from iodine import training
from iodine.data import datasets
from iodine.runs import loop as training_loop
from tests.support import tiny

BATCH = 3  # An epoch ends within the fifth batch.
STEPS = 8
IMAGE_DIM = (9, 7)
MAPPING = [["position", 2, "scalar"], ["color", 3, "scalar"]]

Metrics = dict[str, dict[int, float]]


def train(
  path: pathlib.Path,
  folder: pathlib.Path,
  stop: int = STEPS,
  *,
  seed: int = 7,
  learn_rate: float = 1e-3,
  on_metric: Callable[..., None] = lambda trainer, step, loss: None,
  on_ready: Callable[[], None] = lambda: None,
  n_z: int = tiny.Z,
  **settings: int,
) -> Metrics:
  """Runs the loop as `main` does; returns {metric: {step: value}}.

  `on_metric` gets the trainer, the step and the loss of each summary.
  """
  tf.random.set_seed(seed)  # of the initial values, as Sacred does
  dataset = datasets.Tetrominoes(
    path,
    batch_size=BATCH,
    image_dim=IMAGE_DIM,
    shuffle_buffer=5,
    seed=seed,
  )
  evaluator = {
    "constructor": "iodine.modules.factor_eval.FactorRegressor",
    "mapping": MAPPING,
  }
  model = tiny.build(
    n_z=n_z, num_iters=1, factor_evaluator=evaluator, inputs=["image", "dzp"]
  )
  trainer = training.Trainer(
    model, training.make_optimizer(learn_rate), seed=seed
  )
  factors = {name: size for name, (_, size) in dataset.factors.items()}
  trainer.initialize([*IMAGE_DIM, 3], factors)
  folder.mkdir(exist_ok=True)
  metrics: Metrics = {}

  def log_metric(name: str, value: float, step: int) -> None:
    metrics.setdefault(name, {})[step] = value
    if name == "loss":
      on_metric(trainer, step, value)

  defaults = dict(
    save_summaries_steps=1,
    save_images_steps=4,
    save_checkpoint_steps=3,
    keep_checkpoints=2,
  )
  training_loop.run(
    trainer,
    dataset,
    next(iter(dataset("summary"))),
    folder,
    training_loop.Settings(stop_after_steps=stop, **{**defaults, **settings}),
    log_metric,
    on_ready,
  )
  return metrics


def checkpoints(folder: pathlib.Path) -> set[str]:
  return {path.stem for path in folder.glob("*.index")}
