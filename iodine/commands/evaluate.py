"""The scores of a checkpoint, printed and written."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from iodine import errors
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import data_errors_as_config_errors, first_batch
from iodine.evaluation import dci, efficient_morl
from iodine.evaluation import report as evaluation_report
from iodine.evaluation import scores as scoring
from iodine.files import make_folder, results_in
from iodine.progress import progress
from iodine.runs import checkpoint_files, loading
from iodine.scene_model import SceneModel
from iodine.training import replicas

__all__ = ["evaluate"]

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
  paper = entries["paper_scores"]
  evaluation_report.check_paper(paper)
  if entries["dci"]:
    dci.check_installed()
  dataset = trained.dataset.variant(
    take=entries["num_scenes"], shuffle_buffer=None
  )
  first_batch(dataset)  # any fault of the files, before the model has variables
  stored = _with_stored_masks(entries, dataset)
  trained.restore()
  with _evaluation_folder(entries, trained.prefix) as folder:
    used = dataset if entries["protocol"] is None else stored
    result = _scores(entries, trained.model, used)
    if entries["dci"]:
      others = _dci(entries, trained.model, stored)
      result = dataclasses.replace(result, scores={**result.scores, **others})
    print(evaluation_report.text_table(result, paper))
    evaluation_report.write(folder, result, paper, entries, trained.prefix)
  if math.isfinite(rate := result.images_per_second):  # not of one batch
    _LOG.info("%.1f images/s", rate)
  _LOG.info("Wrote %s", folder)
  return result


def _scores(
  entries: Mapping[str, Any], model: SceneModel, dataset: IODINEDataset
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
        protocol=_PROTOCOLS[entries["protocol"]],
      )
    except tf.errors.ResourceExhaustedError as error:
      raise errors.RunError(
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


def _with_stored_masks(
  entries: Mapping[str, Any], dataset: IODINEDataset
) -> IODINEDataset:
  """The dataset with masks of their stored size, where scores need them."""
  if entries["protocol"] is None and not entries["dci"]:
    return dataset
  if entries["dci"] and not dataset.batch_spec().get("factors"):
    raise errors.ConfigError(f"dci: {dataset} has no factors of objects")
  with data_errors_as_config_errors(dataset):
    return dataset.with_stored_masks()


def _dci(
  entries: Mapping[str, Any], model: SceneModel, dataset: IODINEDataset
) -> dict[str, scoring.Score]:
  """Scores of disentanglement, of the scenes' posterior means."""
  with progress(entries["num_scenes"], "scenes", _LOG) as update:
    objects = dci.matched_objects(
      model, _eval_batches(dataset), entries["seed"], update
    )
  return dci.scores(objects, as_published=entries["protocol"] is not None)


def _eval_batches(dataset: IODINEDataset) -> Iterator[dict[str, Any]]:
  with data_errors_as_config_errors(dataset):
    yield from dataset("eval")


@contextlib.contextmanager
def _evaluation_folder(
  entries: Mapping[str, Any], prefix: str
) -> Iterator[pathlib.Path]:
  """Makes the folder of the results, and removes it if none come."""
  given, protocol = entries["evaluation_dir"], entries["protocol"]
  name = "_".join(filter(None, [EVALUATION_FOLDER, protocol]))
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
