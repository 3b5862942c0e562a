"""The training loop: steps, progress, summaries, checkpoints, signals."""

import iodine.quiet_tensorflow

import collections
import contextlib
import dataclasses
import logging
import math
import pathlib
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from iodine import metrics, signals
from iodine.data.datasets import IODINEDataset, Position
from iodine.errors import ConfigError, RunError, did_you_mean
from iodine.pictures import decompositions, saving, tiles
from iodine.progress import Progress, progress
from iodine.runs import summaries
from iodine.runs.checkpoints import RunCheckpoints, explain_failed_writes
from iodine.runs.profiling import StepProfiler
from iodine.scene_model import shows_decomposition
from iodine.signals import Interrupted
from iodine.tfrecords import inspection
from iodine.training import Trainer

__all__ = ["Settings", "run"]

PICTURE_NAME = "decomposition.png"
_GRADIENT_NORM = "debug/global_grad_norm"
_NUM_SAMPLES = 16  # in a picture
_TIMED_STEPS = 10  # after which there is an estimate of the time
_DAY = 86400.0  # in seconds; a longer training on a CPU calls for a warning
# Means that a run reports, by Sacred's names: the scalars that they are of.
_REPORTED = {"loss": "loss/total", "ari": "loss/ari_nobg"}

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
  """When a run does what.

  Attributes:
    stop_after_steps: number of the optimizer's steps at which the run ends.
    save_summaries_steps: steps between scalars (TensorBoard, Sacred, log).
    save_images_steps: steps between pictures (TensorBoard).
    save_checkpoint_steps: steps between checkpoints.
    keep_checkpoints: number of checkpoints that stay.
    keep_best: name of the training scalar by which the best checkpoint stays,
      too, and the first one; see `metrics.is_score`.
    profile: whether to write a trace of ten steps for TensorBoard.
  """

  stop_after_steps: int
  save_summaries_steps: int
  save_images_steps: int
  save_checkpoint_steps: int
  keep_checkpoints: int
  keep_best: str | None = None
  profile: bool = False


def run(
  trainer: Trainer,
  dataset: IODINEDataset,
  sample: Mapping[str, Any],
  folder: pathlib.Path | None,
  settings: Settings,
  log_metric: Callable[[str, float, int], None],
  on_ready: Callable[[], None] = lambda: None,
  flush_metrics: Callable[[], None] = lambda: None,
) -> None:
  """Trains until `stop_after_steps`, from the folder's last checkpoint if any.

  Workers that train together all call it. They take the same steps and end at
  the same one, for whichever of them a signal comes.

  Args:
    trainer: takes the steps; it has all variables (`Trainer.initialize`).
    dataset: what to train on.
    sample: a batch to draw pictures of, see `SceneModel.__call__`.
    folder: where checkpoints and summaries go; exists. None for any worker but
      the chief, which alone writes.
    settings: when to end, save, report and draw.
    log_metric: called with name ("loss" or "ari"), mean since the last report,
      and step.
    on_ready: called when the last checkpoint, if any, is restored; until then
      nothing is written.
    flush_metrics: called before a checkpoint is saved. It has to bring all
      metrics to disk, as a continued run does not log them again.

  Raises:
    ConfigError: if the last checkpoint does not fit the model, if there are
      only damaged ones, or if the model has no scalar `keep_best`.
    RunError: if a loss or gradient is not finite, the data fail, the folder
      cannot be written, or another worker is lost.
    Interrupted: after a signal (see `iodine.signals`), when everything is
      saved.
  """
  checkpoints = RunCheckpoints(
    folder, trainer, settings.keep_checkpoints, settings.keep_best
  )
  loop = _Loop(
    trainer=trainer,
    dataset=dataset,
    sample=sample,
    folder=folder,
    settings=settings,
    log_metric=log_metric,
    flush_metrics=flush_metrics,
    checkpoints=checkpoints,
  )
  with trainer.distribution.explain_lost_workers(loop.what_is_saved):
    loop.position = checkpoints.restore(dataset)
    on_ready()
    checkpoints.record_files()
    loop.run()


@dataclasses.dataclass(kw_only=True)
class _Loop:
  """One run of the loop, from a restored state to its end; see `run`."""

  trainer: Trainer
  dataset: IODINEDataset
  sample: Mapping[str, Any]
  folder: pathlib.Path | None
  settings: Settings
  log_metric: Callable[[str, float, int], None]
  flush_metrics: Callable[[], None]
  checkpoints: RunCheckpoints
  position: Position = Position(0, 0)

  def __post_init__(self):
    self._writer = tf.summary.create_noop_writer()
    self._means = _Means(_REPORTED)
    best = self.settings.keep_best
    self._scores = _Means({best: best} if best else {})  # since the last save
    self._overview = tf.function(self._tile_pictures, autograph=False)

  @property
  def _step(self) -> int:
    return int(self.trainer.optimizer.step.numpy())

  def run(self) -> None:
    """Takes the steps, then saves and draws a picture."""
    stop = self.settings.stop_after_steps
    if self._step >= stop:
      _LOG.info("Step %d of %d: nothing is left to do", self._step, stop)
      if self.folder and not (self.folder / PICTURE_NAME).exists():
        self._draw_picture(self.folder)  # an earlier process ended too soon
      return
    with self._summaries(), signals.deferred() as received:
      self._take_steps(stop, received)
    if received:
      _LOG.info(
        "%s at step %d: saved %s. Resume with `continue_run=True "
        "checkpoint_dir=%s`",
        signal.Signals(received[0]).name,
        self._step,
        self.checkpoints.latest,
        self.folder or "...",
      )
      raise Interrupted(received[0], is_told=True)
    picture = self._draw_picture(self.folder) if self.folder else None
    _LOG.info("Done: %s, %s", self.checkpoints.latest, picture or "no picture")
    if best := self.checkpoints.best:
      _LOG.info("Best by %s: %s, %.4g", self.settings.keep_best, *best)

  def _take_steps(self, stop: int, received: list[int]) -> None:
    settings, distribution = self.settings, self.trainer.distribution
    step, saved = self._step, self.checkpoints.latest is not None
    timed = step + 1 + _TIMED_STEPS  # the first one compiles
    batches = iter(self.dataset.batches(self.position))
    with (
      progress(
        stop,
        "steps",
        _LOG,
        done=step,
        counts_are_logged=False,
        first_compiles=True,
      ) as steps,
      StepProfiler(self.folder if settings.profile else None) as profiler,
    ):
      while step < stop and not distribution.any(bool(received)):
        batch, position = self._next(batches, step)
        step += 1
        with profiler.step(step):
          values = self._check_finite(step, self._train_on(batch, step))
        self.position = position
        steps(1)
        if step == timed:
          _warn_of_days(steps)
        self._means.add(values)
        self._scores.add(self._with_best(values))
        if step % settings.save_summaries_steps == 0 or step == stop:
          self._save_summaries(step, values)
          self._report(step, steps)
        if step % settings.save_images_steps == 0 or step == stop:
          self._save_images(step)
        saved = step % settings.save_checkpoint_steps == 0
        if saved:
          self._save()
      if not saved:
        self._save()
    if step < stop and not received:
      received.append(signal.SIGTERM)  # which another worker got, or SIGINT

  def _next(self, batches: Iterator, step: int) -> tuple:
    try:
      return next(batches)
    except (*inspection.READ_ERRORS, ValueError) as error:
      reason = str(error)
      if isinstance(error, inspection.READ_ERRORS):
        reason = inspection.explain(error, source=str(self.dataset))
      raise RunError(
        f"step {step}: the data cannot be read ({reason.rstrip('.')}). "
        f"{self.what_is_saved()}"
      ) from error

  def _train_on(
    self, batch: Mapping[str, Any], step: int
  ) -> Mapping[str, tf.Tensor]:
    try:
      return self.trainer.step(batch)
    except ValueError as error:
      raise RunError(f"step {step}: {error}. {self.what_is_saved()}") from error

  def _check_finite(
    self, step: int, scalars: Mapping[str, tf.Tensor]
  ) -> dict[str, float]:
    """Returns the scalars as numbers; a RunError if one may not be NaN."""
    values = {name: float(value) for name, value in scalars.items()}
    wrong = self._not_finite(values)
    if wrong:
      name, value = next(iter(wrong.items()))
      more = len(wrong) - 1
      others = f" ({more} more are not finite)" if more else ""
      raise RunError(
        f"step {step}: {name} is {value}{others}. {self.what_is_saved()} A "
        f"lower learn_rate may help; so may larger batches."
      )
    return values

  def _not_finite(self, values: Mapping[str, float]) -> dict[str, float]:
    """What is not finite and has to be, losses first.

    If it is the gradients' norm alone, the gradients that are not finite.
    """
    # Parts before what they are part of.
    names = sorted(
      values, key=lambda name: name in ("loss/total", _GRADIENT_NORM)
    )
    wrong = {
      name: values[name]
      for name in names
      if not (metrics.is_score(name) or math.isfinite(values[name]))
    }
    if list(wrong) != [_GRADIENT_NORM]:
      return wrong
    norms = self.trainer.gradient_norms()
    return {
      f"the norm of the gradient of {name}": norm
      for name, norm in norms.items()
      if not math.isfinite(norm)
    } or wrong

  def _with_best(self, values: Mapping[str, float]) -> Mapping[str, float]:
    """The scalars of a step; a ConfigError if `keep_best` is none of them."""
    best = self.settings.keep_best
    if best is not None and best not in values:
      meant = did_you_mean(best, values, "scalars")
      raise ConfigError(f"keep_best={best!r}: no scalar of the model. {meant}")
    return values

  def what_is_saved(self) -> str:
    """Says, in a sentence for errors, which checkpoint is the last."""
    if self.checkpoints.latest is None:
      return "There is no checkpoint yet."
    return f"The last good checkpoint is {self.checkpoints.latest}."

  def _save(self) -> None:
    """Saves a checkpoint, once all records of the steps until it are."""
    with self._explain_summaries():
      self._writer.flush()
    self.flush_metrics()
    self.checkpoints.save(self.dataset, self.position, self._scores.take())

  @contextlib.contextmanager
  def _summaries(self) -> Iterator[None]:
    """Opens the folder's summaries, to go on from here, and closes them."""
    if self.folder is not None:
      with self._explain_summaries():
        self._writer = summaries.open_writer(self.folder, self._step)
    with contextlib.ExitStack() as default:
      default.enter_context(self._writer.as_default())
      try:
        yield
      finally:
        with self._explain_summaries(), contextlib.closing(self._writer):
          default.close()  # which writes, too

  def _explain_summaries(self) -> contextlib.AbstractContextManager[None]:
    return explain_failed_writes(
      f"step {self._step}: the summaries cannot be written",
      then=self.what_is_saved(),
    )

  def _save_summaries(self, step: int, values: Mapping[str, float]) -> None:
    with self._explain_summaries():
      for name, value in values.items():
        tf.summary.scalar(name, value, step=step)

  def _report(self, step: int, steps: Progress) -> None:
    """Shows and logs the means since the last report."""
    means = self._means.take()
    words = [f"loss {means['loss']:.2f}"]
    if "ari" in means:
      words.append(f"ARI-nobg {means['ari']:.3f}")
    if rate := steps.rate:
      words.append(f"{rate * self.dataset.batch_size:.1f} img/s")
    stop = self.settings.stop_after_steps
    steps.show(
      line="  ".join([f"step {step}/{stop}", *words, f"ETA {steps.time_left}"]),
      beside_bar=", ".join(words),
    )
    for name, value in means.items():
      self.log_metric(name, value, step)

  def _save_images(self, step: int) -> None:
    if self.folder is None:
      return
    pictures = self._overview({"image": self.sample["image"]})
    with self._explain_summaries():
      for name, value in pictures.items():
        tf.summary.image(name, value, step=step)
      self._writer.flush()

  def _tile_pictures(self, data: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Returns {name: picture} for TensorBoard; to be compiled."""
    model = self.trainer.model
    pictures = tiles.overview(model.infer(data))
    if model.can("sample"):
      pictures["samples"] = tiles.samples(model.sample(_NUM_SAMPLES).recons)
    return pictures

  def _draw_picture(self, folder: pathlib.Path) -> pathlib.Path | None:
    """Saves the decomposition of the sample's first scenes, if there is one."""
    sample = tf.nest.map_structure(lambda x: x[:4], dict(self.sample))
    info = tf.function(self.trainer.model.infer, autograph=False)(sample)
    if not shows_decomposition(info):
      _LOG.info(
        "A %s does not reconstruct images: there is no decomposition to draw",
        type(self.trainer.model).__name__,
      )
      return None
    outputs = {k: v[:, -1].numpy() for k, v in info["outputs"].items()}
    figure = decompositions.decomposition_plot(
      image=info["data"]["image"][:, -1].numpy(),
      recons=outputs["recons"][:, 0],
      masks=outputs["pred_mask"],
      components=outputs["components"],
    )
    path = folder / PICTURE_NAME
    saving.replace(figure, folder, PICTURE_NAME)
    return path


def _warn_of_days(steps: Progress) -> None:
  """Warns if the rest of a training takes days, and there is no GPU."""
  seconds = steps.seconds_left or 0.0
  if seconds > _DAY and not tf.config.list_physical_devices("GPU"):
    _LOG.warning(
      "Training will take about %.1f days at this rate, %.2g s a step. A GPU "
      "is faster; so are smaller images and networks. stop_after_steps=N ends "
      "earlier",
      seconds / _DAY,
      1.0 / steps.rate,
    )


class _Means:
  """Means of training scalars over some steps.

  Args:
    names: {name of a mean: the scalar that it is of}.
  """

  def __init__(self, names: Mapping[str, str]):
    self._names = names
    self._values = collections.defaultdict[str, list[float]](list)

  def add(self, scalars: Mapping[str, float]) -> None:
    """Takes the scalars of a step; what is NaN or not there counts for none."""
    for name, scalar in self._names.items():
      value = scalars.get(scalar, math.nan)
      if not math.isnan(value):  # ARI, without objects or masks in the batch
        self._values[name].append(value)

  def take(self) -> dict[str, float]:
    """Returns {name: mean} of those that have values, and begins anew."""
    means = {name: statistics.fmean(v) for name, v in self._values.items()}
    self._values.clear()
    return means
