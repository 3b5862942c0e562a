"""The scores of a checkpoint, printed and written."""

import contextlib
import logging
import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from iodine import errors
from iodine.compiling import check_xla, xla_errors_explained
from iodine.data import shifts
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import data_errors_as_config_errors, first_batch
from iodine.data.shifts.selection import MoreObjects
from iodine.evaluation import efficient_morl
from iodine.evaluation import report as evaluation_report
from iodine.evaluation import scores as scoring
from iodine.files import make_folder, results_in
from iodine.progress import progress
from iodine.runs import checkpoint_files, loading
from iodine.scene_model import SceneModel
from iodine.training import replicas

__all__ = [
  "enough_memory",
  "eval_batches",
  "evaluate",
  "results_folder",
  "score_scenes",
  "warn_of_few_slots",
]

# Folder of the results, in the checkpoint's.
EVALUATION_FOLDER = "evaluation"

_PROTOCOLS = {None: scoring.OWN, "efficientmorl": efficient_morl.PROTOCOL}

_LOG = logging.getLogger(__name__)


def evaluate(entries: Mapping[str, Any]) -> scoring.Evaluation:
  """Scores a checkpoint over unshuffled scenes; prints and writes the scores.

  Args:
    entries: the whole configuration.

  Returns:
    The scores.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration.
  """
  replicas.warn_without_gpu()
  trained = loading.open_trained(entries)
  if entries["xla"]:
    check_xla()
  paper = entries["paper_scores"]
  evaluation_report.check_paper(paper)
  dataset = trained.dataset.variant(
    take=entries["num_scenes"], shuffle_buffer=None
  )
  warn_of_few_slots(trained.model, dataset)
  first_batch(dataset)  # any fault of the files, before the model has variables
  if entries["protocol"] is not None:
    with data_errors_as_config_errors(dataset):
      dataset = dataset.with_stored_masks()
  trained.restore()
  shift = shifts.resolve(dataset.shift)
  with results_folder(
    entries, trained.prefix, EVALUATION_FOLDER, shift
  ) as folder:
    result = score_scenes(entries, trained.model, dataset)
    if shift is not None:
      print(f"shift: {shift}")
    print(evaluation_report.text_table(result, paper))
    evaluation_report.write(
      folder,
      result,
      paper,
      entries,
      trained.prefix,
      None if shift is None else str(shift),
    )
  if math.isfinite(rate := result.images_per_second):  # not of one batch
    _LOG.info("%.1f scenes/s without the first batch", rate)
  _LOG.info("Wrote the scores to %s", folder)
  return result


def warn_of_few_slots(model: SceneModel, dataset: IODINEDataset) -> None:
  """Warns if the shift asks for more slots than the model has."""
  if not isinstance(dataset.shift, MoreObjects):
    return
  most = (dataset.num_true_objects or 0) - dataset.num_background_entities
  if model.num_components <= most:
    _LOG.warning(
      "data.shift=%s: scenes have up to %s objects and a background, but the "
      "model has %s slots; num_components=%s gives one to each",
      dataset.shift,
      most,
      model.num_components,
      most + 1,
    )


def score_scenes(
  entries: Mapping[str, Any], model: SceneModel, dataset: IODINEDataset
) -> scoring.Evaluation:
  """Scores a restored model by the `protocol` of a configuration.

  Args:
    entries: the whole configuration.
    model: restored model.
    dataset: of the scenes; for a protocol other than this project's, with
      masks of their stored size.

  Raises:
    RunError: if a batch needs more memory than there is.
  """
  with (
    progress(entries["num_scenes"], "scenes", _LOG) as update,
    enough_memory(dataset.batch_size),
    xla_errors_explained(entries["xla"]),
  ):
    result = scoring.evaluate(
      model,
      eval_batches(dataset),
      batch_size=dataset.batch_size,
      seed=entries["seed"],
      num_samples=entries["num_samples"],
      on_progress=update,
      protocol=_PROTOCOLS[entries["protocol"]],
      xla=entries["xla"],
    )
  if result.scenes < entries["num_scenes"]:
    _LOG.warning(
      "The data have %s scenes, not num_scenes=%s",
      result.scenes,
      entries["num_scenes"],
    )
  return result


@contextlib.contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
  """Raises RunError if a batch needs more memory than there is."""
  try:
    yield
  except tf.errors.ResourceExhaustedError as error:
    raise errors.RunError(
      "a batch needs more memory than there is; set a lower batch_size than "
      f"{batch_size}"
    ) from error


def eval_batches(dataset: IODINEDataset) -> Iterator[dict[str, Any]]:
  """Reads all scenes once, in file order; data errors become ConfigErrors."""
  with data_errors_as_config_errors(dataset):
    yield from dataset("eval")


@contextlib.contextmanager
def results_folder(
  entries: Mapping[str, Any],
  prefix: str,
  name: str,
  shift: shifts.Shift | None,
) -> Iterator[pathlib.Path]:
  """Makes the folder of the results, and removes it if none come.

  Args:
    entries: the whole configuration.
    prefix: of the checkpoint, in whose folder it lies unless `evaluation_dir`
      names another.
    name: of the folder, to which those of protocol and shift are added.
    shift: of the scenes; None: none.

  Yields:
    The folder.

  Raises:
    ConfigError: if it cannot be written to.
  """
  given, protocol = entries["evaluation_dir"], entries["protocol"]
  parts = [name, protocol, None if shift is None else shift.name]
  name = "_".join(filter(None, parts))
  folder = pathlib.Path(prefix).parent / name
  if checkpoint_files.is_shipped(prefix):  # which stays as it came
    folder = pathlib.Path(name)
  if given is not None:
    folder = pathlib.Path(given).expanduser()
  with results_in(folder, "evaluation_dir"):
    make_folder(folder, "evaluation_dir")
    # Before hours of work, not after.
    with tempfile.TemporaryFile(dir=folder):
      pass
    yield folder
