"""What the slots of a checkpoint tell of objects."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from iodine import errors, exploration
from iodine.commands.evaluate import (
  enough_memory,
  eval_batches,
  results_folder,
  warn_of_few_slots,
)
from iodine.commands.traverse import activeness_of
from iodine.data import shifts
from iodine.data.datasets import IODINEDataset
from iodine.data.opening import data_errors_as_config_errors, first_batch
from iodine.evaluation import dci, probe_report, probes, representations
from iodine.evaluation.factors import Encoding
from iodine.evaluation.probe_report import Findings, Probed
from iodine.evaluation.probes import Examples
from iodine.evaluation.representations import Representations
from iodine.progress import progress
from iodine.runs import loading
from iodine.scene_model import SceneModel
from iodine.training import replicas

__all__ = ["probe"]

# Folder of the results, in the checkpoint's.
PROBE_FOLDER = "probe"

_MOST_TEST_SCENES = 2000  # where no number is given

_LOG = logging.getLogger(__name__)


def probe(entries: Mapping[str, Any]) -> Findings:
  """Measures what slots tell of objects; prints and writes what it finds.

  Representations are inferred once. The first scenes of the data, which
  training holds out, test probes; those after them train and validate them. If
  there is a shift, they are unshifted, and shifted scenes test the same probes.

  Args:
    entries: the whole configuration.

  Returns:
    The findings.

  Raises:
    ConfigError: for a mistake in checkpoint, data or configuration.
  """
  replicas.warn_without_gpu()
  trained = loading.open_trained(entries)
  has_dci = _has_dci(entries)
  wanted = _wanted(entries)
  sources = _sources(entries, trained)
  trained.restore()
  shift = shifts.resolve(trained.dataset.shift)
  name = f"{PROBE_FOLDER}_both" if _trains_shifted(entries) else PROBE_FOLDER
  with results_folder(entries, trained.prefix, name, shift) as folder:
    parts = _parts(entries, trained.model, sources, wanted)
    findings = _findings(entries, trained.model, parts, has_dci, shift)
    print(probe_report.text(findings))
    probe_report.write(folder, findings, entries, trained.prefix)
  _LOG.info("Wrote %s", folder)
  return findings


def _trains_shifted(entries: Mapping[str, Any]) -> bool:
  return entries["probe_shift"] == "both"


def _sources(
  entries: Mapping[str, Any], trained: loading.Trained
) -> tuple[IODINEDataset, IODINEDataset | None]:
  """The scenes of the probes; and shifted ones to test with, or None."""
  dataset = trained.dataset.variant(shuffle_buffer=None)
  if _trains_shifted(entries):
    if dataset.shift is None:
      raise errors.ConfigError("probe_shift='both': there is no data.shift")
    warn_of_few_slots(trained.model, dataset)
    return _opened(dataset), None
  unshifted = dataset.unshifted()
  if unshifted is dataset:
    return _opened(dataset), None
  return _opened(unshifted), _opened(dataset)


def _opened(dataset: IODINEDataset) -> IODINEDataset:
  """Checks the data, before the model has variables."""
  first_batch(dataset)
  if not dataset.batch_spec().get("factors"):
    raise errors.ConfigError(f"probe: {dataset} has no factors of objects")
  with data_errors_as_config_errors(dataset):
    return dataset.with_stored_masks()


def _has_dci(entries: Mapping[str, Any]) -> bool:
  """Whether to measure DCI; by default if there is scikit-learn."""
  if entries["dci"]:
    dci.check_installed()
  if entries["dci"] is None and not dci.is_installed():
    _LOG.info("DCI is left out: it needs scikit-learn, the extra `dci`")
    return False
  return entries["dci"] is not False


def _wanted(entries: Mapping[str, Any]) -> tuple[int, int, int]:
  """Scenes to test, train and validate with."""
  held_out, count = entries["held_out_scenes"], entries["num_test_scenes"]
  if count is None:
    count = min(held_out or _MOST_TEST_SCENES, _MOST_TEST_SCENES)
  elif count > held_out:
    _LOG.warning(
      "num_test_scenes=%s: training held out the first %s scenes; if it was on "
      "these data, the model may have seen the others",
      count,
      held_out,
    )
  return count, entries["num_train_scenes"], entries["num_validation_scenes"]


def _inferred(
  entries: Mapping[str, Any],
  model: SceneModel,
  dataset: IODINEDataset,
  count: int,
) -> Representations:
  with (
    progress(count, "scenes", _LOG, first_compiles=True) as update,
    enough_memory(dataset.batch_size),
  ):
    return representations.infer(
      model,
      eval_batches(dataset.variant(take=count)),
      entries["seed"],
      num_sampled=entries["range_scenes"],
      needs_masks="mask" in entries["match_by"].split(","),
      on_progress=update,
    )


def _parts(
  entries: Mapping[str, Any],
  model: SceneModel,
  sources: tuple[IODINEDataset, IODINEDataset | None],
  wanted: tuple[int, int, int],
) -> dict[str, Representations]:
  """Test, training and validation scenes, and unshifted ones if others test."""
  dataset, shifted = sources
  scenes = _inferred(entries, model, dataset, sum(wanted))
  count = len(scenes.codes)
  sizes = probes.split(count, wanted)
  if sizes != wanted:
    _LOG.warning(
      "The data have %s scenes, not %s: %s test, %s train and %s validate the "
      "probes",
      *(f"{number:,}" for number in (count, sum(wanted), *sizes)),
    )
  parts, start = {}, 0
  for name, size in zip(("test", "train", "validation"), sizes, strict=True):
    parts[name] = scenes.part(start, start + size)
    start += size
  if shifted is not None:
    rest = dataset.variant(skip=dataset.skip + sizes[0])
    parts["unshifted"] = parts["test"]
    parts["test"] = _shifted(entries, model, shifted, rest, sizes[0])
  for name in ("train", "validation"):
    parts[name] = parts[name].without_modified()
  for name, part in parts.items():
    if not part.is_object.any():
      raise errors.ConfigError(
        f"probe: the {len(part.codes)} scenes that are for the {name} have no "
        "visible object"
        + (" that is not modified" if _trains_shifted(entries) else "")
      )
  return parts


def _shifted(
  entries: Mapping[str, Any],
  model: SceneModel,
  dataset: IODINEDataset,
  others: IODINEDataset,
  wanted: int,
) -> Representations:
  """Shifted scenes to test with, none of those that the others hold."""
  with data_errors_as_config_errors(dataset):
    count = dataset.num_before(others, wanted)
  if count < wanted:
    _LOG.warning(
      "shift=%s: %s scenes test the probes, not %s: the data have no others, "
      "or these train them",
      dataset.shift,
      f"{count:,}",
      f"{wanted:,}",
    )
  if not count:
    raise errors.ConfigError(
      f"shift={dataset.shift}: all its scenes train the probes; set a higher "
      "num_test_scenes"
    )
  return _inferred(entries, model, dataset, count)


def _findings(
  entries: Mapping[str, Any],
  model: SceneModel,
  parts: Mapping[str, Representations],
  has_dci: bool,
  shift: shifts.Shift | None,
) -> Findings:
  train, test = parts["train"], parts["test"]
  encoding = Encoding(train.factors, train.is_object)
  if not encoding.properties:
    raise errors.ConfigError("probe: all objects have the same properties")
  if encoding.left_out:
    names = ", ".join(encoding.left_out)
    _LOG.info("Left out, as all objects have the same: %s", names)
  as_published = entries["protocol"] is not None
  affected = () if shift is None else shift.affected_factors
  return Findings(
    shift=None if shift is None else str(shift),
    trained_on_shifted=shift is not None and "unshifted" not in parts,
    scenes={name: len(part.codes) for name, part in parts.items()},
    objects=int(test.is_object.sum()),
    modified=int(test.is_modified.sum()) if affected else None,
    kinds={
      item.name: "R^2" if item.categories is None else "accuracy"
      for item in encoding.properties
    },
    probed=[
      probed
      for match_by in entries["match_by"].split(",")
      for probed in _probed(entries, match_by, encoding, parts, affected)
    ],
    dci=_disentanglement(entries, test.without_modified(), as_published)
    if has_dci
    else None,
    dci_as_published=as_published,
    activeness=_activeness(entries, model, test.samples),
  )


def _probed(
  entries: Mapping[str, Any],
  match_by: str,
  encoding: Encoding,
  parts: Mapping[str, Representations],
  affected: Sequence[str],
) -> Iterator[Probed]:
  """Trains and scores all probes on objects that are matched in one way."""
  sets = {
    key: probes.examples(part, encoding, match_by)
    for key, part in parts.items()
  }
  for name in (probes.BASELINE, *entries["probes"].split(",")):
    yield _train_and_score(entries, name, match_by, encoding, sets, affected)


def _train_and_score(
  entries: Mapping[str, Any],
  name: str,
  match_by: str,
  encoding: Encoding,
  sets: Mapping[str, Examples],
  affected: Sequence[str],
) -> Probed:
  """Trains and scores a probe."""
  _LOG.info("Training %s, matching by %s", name, match_by)
  with progress(probes.MOST_STEPS, "steps", _LOG) as update:
    trained = probes.train(
      name, encoding, sets["train"], sets["validation"], entries["seed"], update
    )
  loss = trained.losses[-1]
  _LOG.info("%s steps, validation loss %.4g", f"{trained.steps:,}", loss)
  scores = probes.scores(trained, encoding, sets["test"], affected)
  if "unshifted" in sets:
    before = probes.scores(trained, encoding, sets["unshifted"])
    scores = {"unshifted": before["all"], **scores}
  return Probed(name, match_by, scores, trained.steps, loss)


def _disentanglement(
  entries: Mapping[str, Any], test: Representations, as_published: bool
) -> dci.Disentanglement | None:
  """DCI of the first `num_scenes` test scenes; None if it cannot be told."""
  if test.iou is None:
    _LOG.warning("DCI is left out: the model has no masks")
    return None
  objects = dci.matched_objects(test.part(0, entries["num_scenes"]))
  _LOG.info("Fitting trees to the factors of %s objects", len(objects.codes))
  # By now there is much work that must not be lost.
  try:
    with progress(len(objects.factors), "factors", _LOG) as update:
      return dci.measure(objects, as_published, update)
  except errors.ConfigError as error:
    _LOG.warning("DCI is left out. %s", error)
    return None


def _activeness(
  entries: Mapping[str, Any], model: SceneModel, samples: np.ndarray | None
) -> np.ndarray | None:
  """Mean activeness [Z] in the first `range_scenes` scenes."""
  if samples is None or not model.can("compose"):
    return None
  _LOG.info("Varying the latents of %s scenes", len(samples))
  limits = exploration.latent_limits(samples)
  return activeness_of(entries, model, samples, limits).mean(axis=0)
