"""What the commands do, given a whole configuration."""

import contextlib
import dataclasses
import glob
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import tf1_checkpoint, training
from iodine.config import resolution
from iodine.data import description as data_description
from iodine.data.datasets import IODINEDataset, Position
from iodine.data.opening import build_data, first_batch, user_faults
from iodine.evaluation import report as evaluation_report
from iodine.evaluation import scores as scoring
from iodine.files import results_in
from iodine.modules.iodine import IODINE
from iodine.modules.utils import ConfigError
from iodine.pictures import scenes as scene_pictures
from iodine.progress import progress
from iodine.runs import checkpoint_files, loading
from iodine.runs import folder as run_folder
from iodine.training.replicas import Distribution

__all__ = [
  "build_trainer",
  "convert_checkpoint",
  "describe_data",
  "evaluate",
  "export_tf1",
  "inspect_checkpoint",
]

# Folder of the results, in the checkpoint's.
EVALUATION_FOLDER = "evaluation"

_LOG = logging.getLogger(__name__)


def build_trainer(
  entries: Mapping[str, Any],
  dataset: IODINEDataset,
  distribution: Distribution | None = None,
) -> training.Trainer:
  """Builds model and optimizer, with all variables that the data call for."""
  distribution = distribution or Distribution()
  if distribution.num_sub_batches > 1:
    _LOG.info(
      "The %s images of a step: %s sub-batches on %s devices of %s processes",
      dataset.batch_size,
      distribution.num_sub_batches,
      distribution.num_replicas,
      distribution.num_workers,
    )
  with distribution.scope():
    trainer = training.Trainer(
      resolution.build_part(entries, "model"),
      resolution.build_part(entries, "optimizer"),
      entries["seed"],
      distribution,
    )
    loading.initialize(trainer, dataset)
  return trainer


def evaluate(entries: Mapping[str, Any]) -> scoring.Evaluation:
  """Scores a checkpoint over unshuffled scenes; prints and writes the scores.

  Args:
    entries: the whole configuration.

  Returns:
    The scores.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration.
  """
  paper = entries["paper_scores"]
  evaluation_report.check_paper(paper)
  dataset = build_data(entries, take=entries["num_scenes"], shuffle_buffer=None)
  first_batch(dataset)  # any fault of the files, before the model is built
  model, prefix = loading.restored_model(entries, dataset)
  with _evaluation_folder(entries, prefix) as folder:
    result = _scores(entries, model, dataset)
    rows = evaluation_report.table_rows(result, paper)
    print(evaluation_report.text_table(rows))
    evaluation_report.write(folder, result, paper, entries, prefix)
  _LOG.info("%.1f images/s; wrote %s", result.images_per_second, folder)
  return result


def _scores(
  entries: Mapping[str, Any], model: IODINE, dataset: IODINEDataset
) -> scoring.Evaluation:
  with progress(entries["num_scenes"], "scenes", _LOG) as update:
    try:
      result = scoring.evaluate(
        model,
        _eval_batches(dataset),
        batch_size=dataset.batch_size,
        seed=entries["seed"],
        num_samples=entries["num_samples"],
        on_progress=update,
      )
    except tf.errors.ResourceExhaustedError as error:
      raise run_folder.RunError(
        f"evaluate: a batch needs more memory than there is; set a lower "
        f"batch_size than {dataset.batch_size}"
      ) from error
  if result.scenes < entries["num_scenes"]:
    _LOG.warning(
      "The data have %s scenes, not num_scenes=%s",
      result.scenes,
      entries["num_scenes"],
    )
  return result


def _eval_batches(dataset: IODINEDataset) -> Iterator[dict[str, Any]]:
  with user_faults(dataset):
    yield from dataset("eval")


@contextlib.contextmanager
def _evaluation_folder(
  entries: Mapping[str, Any], prefix: str
) -> Iterator[pathlib.Path]:
  """Makes the folder of the results, and removes it if none come."""
  given = entries["evaluation_dir"]
  folder = pathlib.Path(prefix).parent / EVALUATION_FOLDER
  if checkpoint_files.is_shipped(prefix):  # which stays as it came
    folder = pathlib.Path(EVALUATION_FOLDER)
  if given is not None:
    folder = pathlib.Path(given).expanduser()
  with results_in(folder, "evaluation_dir"):
    _make_folder(folder, "evaluation_dir")
    # Before hours of work, not after.
    with tempfile.TemporaryFile(dir=folder):
      pass
    yield folder


def convert_checkpoint(entries: Mapping[str, Any]) -> str:
  """Writes a checkpoint of the reference as one of training.

  Args:
    entries: the whole configuration: from `tf1_checkpoint` to
      `checkpoint_dir`, a folder that is new or empty.

  Returns:
    Prefix of the new files.
  """
  source = _required(entries, "tf1_checkpoint")
  folder = pathlib.Path(entries["checkpoint_dir"]).expanduser()
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ConfigError(
      f"checkpoint_dir={str(folder)!r}: exists already. Name a new folder."
    )
  dataset = build_data(entries)
  trainer = build_trainer(entries, dataset)
  checkpoint_files.restore(source, trainer.model, trainer.optimizer)
  _make_folder(folder, "checkpoint_dir")
  run = checkpoint_files.RunCheckpoints(folder, trainer, keep=1)
  prefix = run.save(dataset, Position(0, 0))
  # What the original was trained with, for `evaluate`.
  model = {
    **entries["model"],
    "inner_batch_size": loading.inner_batch_size(
      entries, checkpoint_files.find(source)
    ),
  }
  run_folder.save_config(folder, {**entries, "model": model})
  _LOG.info("Wrote %s", prefix)
  return prefix


def export_tf1(entries: Mapping[str, Any]) -> str:
  """Writes a checkpoint under the reference's names.

  Args:
    entries: the whole configuration: from `checkpoint_dir` to the prefix
      `tf1_checkpoint`, of which there is no file yet.

  Returns:
    Prefix of the new files.
  """
  prefix = str(pathlib.Path(_required(entries, "tf1_checkpoint")).expanduser())
  path = pathlib.Path(prefix)
  if path.is_dir() or list(path.parent.glob(f"{glob.escape(path.name)}.*")):
    raise ConfigError(
      f"tf1_checkpoint={prefix!r}: exists already. Name a new prefix, such as "
      f"exported/model.ckpt."
    )
  trainer = build_trainer(entries, build_data(entries))
  checkpoint_files.restore(
    entries["checkpoint_dir"], trainer.model, trainer.optimizer
  )
  _make_folder(path.parent, "tf1_checkpoint")
  tf1_checkpoint.save(prefix, trainer.model, trainer.optimizer)
  _LOG.info("Wrote %s", prefix)
  return prefix


def describe_data(entries: Mapping[str, Any]) -> pathlib.Path:
  """Prints what the data files hold; draws twelve scenes.

  Args:
    entries: the whole configuration; the first `num_scenes` scenes count.

  Returns:
    The picture, in `pictures_dir`.
  """
  dataset = build_data(entries)
  with user_faults(dataset):
    print(f"{dataset.name}, {type(dataset).__name__}")
    print("\n".join(data_description.format_files(dataset)), flush=True)
    scenes = dataset.examples().take(entries["num_scenes"])
    with progress(entries["num_scenes"], "scenes", _LOG) as update:
      statistics = data_description.collect(dataset, _counted(scenes, update))
    lines = data_description.format_statistics(dataset, statistics)
    print("\n".join(lines))
    shown = build_data(entries, batch_size=12, shuffle_buffer=None)
    batch = next(iter(shown("eval")))
  folder = pathlib.Path(entries["pictures_dir"]).expanduser()
  _make_folder(folder, "pictures_dir")
  path = folder / f"{dataset.name}_scenes.png"
  masks = batch["mask"][:, 0, ..., 0].numpy() if "mask" in batch else None
  figure = scene_pictures.scenes_plot(batch["image"][:, 0].numpy(), masks)
  figure.savefig(path, dpi=150)
  _LOG.info("Wrote %s", path)
  return path


def _counted(
  items: Iterable[Any], update: Callable[[int], object]
) -> Iterator[Any]:
  for item in items:
    yield item
    update(1)


def _required(entries: Mapping[str, Any], key: str) -> str:
  if not entries[key]:
    raise ConfigError(f"{key}: missing; name the prefix of the files")
  return entries[key]


def _make_folder(folder: pathlib.Path, key: str) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f"{key}: {folder} cannot be made: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Summary:
  """What a checkpoint's variables amount to."""

  parameters: int
  slots: int
  others: int


def inspect_checkpoint(entries: Mapping[str, Any]) -> None:
  """Prints variables of a checkpoint and the configurations that would fit.

  Args:
    entries: the whole configuration, of which `checkpoint_dir` counts.
  """
  prefix = checkpoint_files.find(entries["checkpoint_dir"])
  values = checkpoint_files.read(prefix)
  width = max((len(name) for name in values), default=0)
  for name in sorted(values):
    value = values[name]
    shape = "x".join(map(str, value.shape)) or "scalar"
    dtype = "string" if value.dtype == object else value.dtype
    print(f"{name:<{width}}  {shape:>12}  {dtype}")
  summary = _summary(values)
  print(
    f"\n{prefix}: {summary.parameters:,} parameters, {summary.slots:,} numbers "
    f"of Adam's, {summary.others} other entries"
  )
  fits = [name for name in resolution.named_configs() if _fits(name, values)]
  print(
    f"Configurations that fit, with any number of slots: "
    f"{', '.join(fits) or 'none'}"
  )


def _summary(values: Mapping[str, np.ndarray]) -> _Summary:
  slots = {n for n in values if n.endswith(("/Adam", "/Adam_1"))}
  weights = {n for n in values if "/" in n and "_mean_var/" not in n} - slots
  return _Summary(
    parameters=sum(values[n].size for n in weights),
    slots=sum(values[n].size for n in slots),
    others=len(values) - len(weights) - len(slots),
  )


def _fits(name: str, values: Mapping[str, np.ndarray]) -> bool:
  """Whether a named configuration describes the checkpoint's model."""
  entries = resolution.complete(resolution.named_configs()[name])
  dataset = resolution.build_part(entries, "data")
  model = resolution.build_part(entries, "model")
  model.initialize(*loading.image_size_and_factors(dataset))
  return tf1_checkpoint.fits(values, model)
