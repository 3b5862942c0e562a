"""The training loop on a tiny model and a handful of synthetic scenes."""

import contextlib
import fcntl
import logging
import os
import pathlib
import pty
import re
import shutil
import signal
import struct
import termios
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from iodine import progress, training
from iodine.data import datasets
from iodine.errors import ConfigError
from iodine.modules import iodine
from iodine.runs import loop as training_loop
from iodine.runs import summaries
from iodine.signals import Interrupted
from tests.support import tiny
from tests.support.loop_runs import (
  STEPS,
  Metrics,
  checkpoints,
  train,
)
from tests.support.tiny_runs import NUM_SCENES, contents, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data")
  return write_scenes(folder / "scenes.tfrecords", NUM_SCENES)


@pytest.fixture(scope="module")
def whole_run(
  scenes: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, Metrics]:
  """An uninterrupted run's folder and metrics; not to be changed."""
  folder = tmp_path_factory.mktemp("runs") / "whole"
  return folder, train(scenes, folder)


@pytest.fixture
def copied_run(whole_run, tmp_path: pathlib.Path) -> pathlib.Path:
  """A copy of that run's folder."""
  return pathlib.Path(shutil.copytree(whole_run[0], tmp_path / "copy"))


def test_metrics_come_at_every_summary(whole_run):
  _, metrics = whole_run
  assert set(metrics) == {"loss", "ari"}
  for values in metrics.values():
    assert list(values) == list(range(1, STEPS + 1))
    assert np.all(np.isfinite(list(values.values())))
  assert min(metrics["loss"].values()) > 0


def test_checkpoints_are_named_by_step_and_old_ones_go(whole_run):
  folder, _ = whole_run
  # Of steps 3, 6 and the last one, two are kept.
  assert checkpoints(folder) == {"model.ckpt-6", f"model.ckpt-{STEPS}"}
  latest = tf.train.latest_checkpoint(str(folder))
  assert latest == str(folder / f"model.ckpt-{STEPS}")
  step = tf.train.load_variable(
    latest, "trainer/optimizer/step/.ATTRIBUTES/VARIABLE_VALUE"
  )
  assert step == STEPS


def read_events(folder: pathlib.Path) -> dict[str, dict[int, bytes]]:
  """Reads {tag: {step: the summary's tensor}} from TensorBoard's files."""
  events: dict[str, dict[int, bytes]] = {}
  for path in folder.glob("events.out.tfevents.*"):
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        tensor = tf.make_ndarray(value.tensor)
        events.setdefault(value.tag, {})[event.step] = tensor
  return events


def test_tensorboard_holds_the_scalars_of_every_summary(whole_run):
  folder, metrics = whole_run
  events = read_events(folder)
  names = {
    "debug/global_grad_norm",
    "factor/color",
    "factor/loss",
    "factor/position",
    "loss/ari",
    "loss/ari_nobg",
    "loss/kl",
    "loss/mse",
    "loss/nll",
    "loss/recons",
    "loss/total",
  }
  scalars = {k: v for k, v in events.items() if "/" in k}
  assert set(scalars) == names
  for values in scalars.values():
    assert list(values) == list(range(1, STEPS + 1))
  # With a summary at each step, its mean is that step's value.
  for step, loss in metrics["loss"].items():
    np.testing.assert_allclose(events["loss/total"][step], loss, rtol=1e-6)
    np.testing.assert_allclose(
      events["loss/ari_nobg"][step], metrics["ari"][step], rtol=1e-6
    )


def test_tensorboard_holds_pictures(whole_run):
  events = read_events(whole_run[0])
  pictures = {k: v for k, v in events.items() if "/" not in k}
  assert set(pictures) == {"overview", "sequence", "samples"}
  for picture in pictures.values():
    assert list(picture) == [4, STEPS]
    # Width and height come first, then PNG files.
    assert all(x[2].startswith(b"\x89PNG") for x in picture.values())


def test_the_last_picture_is_saved(whole_run):
  path = whole_run[0] / "decomposition.png"
  height, width, _ = tf.io.decode_png(path.read_bytes()).shape
  assert min(height, width) > 50


def last_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
  values = tiny.read_checkpoint(tf.train.latest_checkpoint(str(folder)))
  values.pop("_CHECKPOINTABLE_OBJECT_GRAPH", None)
  return {k: v for k, v in values.items() if "save_counter" not in k}


@pytest.mark.parametrize(
  "number, step",
  [(signal.SIGTERM, 2), (signal.SIGINT, 5)],
  ids=["SIGTERM in the first epoch", "SIGINT in the second"],
)
def test_an_interrupted_and_continued_run_equals_an_uninterrupted_one(
  number, step, whole_run, scenes, tmp_path, caplog
):
  folder = tmp_path / "run"
  handler = signal.getsignal(number)

  def interrupt(trainer, at, loss):
    if at == step:
      os.kill(os.getpid(), number)

  caplog.set_level("INFO")
  with pytest.raises(Interrupted) as error:
    train(scenes, folder, on_metric=interrupt)
  assert error.value.signal_number == number
  assert signal.getsignal(number) == handler
  saved = f"{folder}/model.ckpt-{step}"
  assert f"{number.name} at step {step}: saved {saved}" in caplog.text
  assert f"continue_run=True checkpoint_dir={folder}" in caplog.text

  # Other seeds show that those of the checkpoint count.
  continued = train(scenes, folder, seed=1234)
  assert f"Restored {saved}" in caplog.text
  assert list(continued["loss"]) == list(range(step + 1, STEPS + 1))
  whole_folder, whole = whole_run
  for name, values in continued.items():
    for at, value in values.items():
      # On several threads, sums are rounded differently from run to run.
      assert value == pytest.approx(whole[name][at], rel=1e-4, abs=1e-4)
  whole_weights = last_weights(whole_folder)
  weights = last_weights(folder)
  assert weights.keys() == whole_weights.keys()
  for name, value in weights.items():
    np.testing.assert_allclose(
      value, whole_weights[name], rtol=1e-3, atol=1e-5, err_msg=name
    )


def test_losses_depend_on_seed_and_position(whole_run, scenes, tmp_path):
  # Guards the test above: it would pass if all steps saw the same.
  _, whole = whole_run

  class Enough(Exception):
    pass

  losses = []

  def collect(trainer, step, loss):
    losses.append(loss)
    if step == 2:
      raise Enough

  with pytest.raises(Enough):
    train(scenes, tmp_path / "run", seed=1234, on_metric=collect)
  for step, loss in enumerate(losses, start=1):
    assert loss != pytest.approx(whole["loss"][step], rel=1e-3)


def test_a_second_signal_ends_at_once(scenes, tmp_path):
  folder = tmp_path / "run"

  def interrupt_twice(trainer, step, loss):
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(KeyboardInterrupt):
    train(scenes, folder, on_metric=interrupt_twice)
  assert not checkpoints(folder)
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
  "steps, gpus, days",
  [(1_000_000, [], "115.7"), (8_000, [], None)]
  + [(1_000_000, ["a GPU"], None)],
)
def test_days_of_training_without_a_gpu_are_told(
  steps, gpus, days, caplog, monkeypatch
):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
  logger = logging.getLogger("test")
  with progress.progress(steps, "steps", logger, done=10) as update:
    now[0] += 100
    update(10)  # 10 s a step
    training_loop._warn_of_days(update)
  told = [x for x in caplog.messages if x.startswith("Training will take")]
  expected = f"Training will take about {days} days at this rate, 10 s a step."
  assert [x.startswith(expected) for x in told] == [True] * bool(days)


def test_nothing_is_left_to_do_at_the_last_step(copied_run, scenes, caplog):
  before = contents(copied_run)
  caplog.set_level("INFO")
  assert train(scenes, copied_run, stop=STEPS) == {}
  assert f"Step {STEPS} of {STEPS}: nothing is left to do" in caplog.text
  assert {
    k: v for k, v in contents(copied_run).items() if k in before
  } == before


def poison(trainer: training.Trainer) -> None:
  variable = trainer.model.trainable_variables[0]
  variable.assign(tf.fill(variable.shape, np.nan))


def test_a_loss_that_is_not_finite_stops_and_overwrites_nothing(
  scenes, tmp_path
):
  folder = tmp_path / "run"
  good = {}

  def poison_after_five(trainer, step, loss):
    if step == 5:
      good.update(contents(folder))
      poison(trainer)

  with pytest.raises(training_loop.RunError) as error:
    # A checkpoint would be due at the very step that fails.
    train(scenes, folder, on_metric=poison_after_five, save_checkpoint_steps=2)
  text = str(error.value)
  assert text.startswith("step 6: loss/kl is nan (")
  assert f"The last good checkpoint is {folder}/model.ckpt-4." in text
  assert checkpoints(folder) == {"model.ckpt-2", "model.ckpt-4"}
  after = contents(folder)
  for name, value in good.items():
    if "tfevents" not in name:
      assert after[name] == value


def test_an_absurd_learning_rate_is_such_a_loss(scenes, tmp_path):
  with pytest.raises(training_loop.RunError) as error:
    train(scenes, tmp_path / "run", learn_rate=1e30)
  text = str(error.value)
  assert re.match(r"step \d: (loss/|the norm of the gradient of )\S+ is", text)
  assert "There is no checkpoint yet. A lower learn_rate may help" in text
  assert not checkpoints(tmp_path / "run")


def test_a_gradient_that_is_not_finite_is_named(scenes, tmp_path, monkeypatch):
  def with_steep_loss(model, *args, **kwargs):
    loss = call(model, *args, **kwargs)
    # Zero, with a gradient of infinity times zero.
    steep = tf.sqrt(0 * model.initial_zp[0])
    return loss._replace(total=loss.total + steep)

  call = iodine.IODINE.__call__
  monkeypatch.setattr(iodine.IODINE, "__call__", with_steep_loss)
  folder = tmp_path / "run"
  with pytest.raises(training_loop.RunError) as error:
    train(scenes, folder)
  assert str(error.value).startswith(
    "step 1: the norm of the gradient of model/iodine/"
    "initial_sample_distribution:0 is nan."
  )
  assert not checkpoints(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_an_image_out_of_range_ends_the_run_and_changes_nothing(
  scenes, tmp_path, monkeypatch, value
):
  def batches(dataset, position):
    for step, (batch, after) in enumerate(whole(dataset, position), start=1):
      if step == 5:
        image = batch["image"].numpy()
        image[2, 0, 3, 1, 0] = value
        batch = {**batch, "image": tf.constant(image)}
      yield batch, after

  whole = datasets.IODINEDataset.batches
  monkeypatch.setattr(datasets.IODINEDataset, "batches", batches)
  folder, steps = tmp_path / "run", []
  with pytest.raises(training_loop.RunError) as error:
    train(
      scenes,
      folder,
      save_checkpoint_steps=2,
      on_metric=lambda trainer, step, loss: steps.append(step),
    )
  assert str(error.value) == (
    f"step 5: image: expected float32 in [0, 1], got float32 {value:g} at "
    f"[2, 0, 3, 1, 0]. The last good checkpoint is {folder}/model.ckpt-4."
  )
  assert steps[-1] == 4
  assert checkpoints(folder) == {"model.ckpt-2", "model.ckpt-4"}


def test_data_that_break_off_end_the_run_with_an_error(tmp_path):
  path = write_scenes(tmp_path / "broken.tfrecords", 300)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 4])
  with pytest.raises(training_loop.RunError) as error:
    train(path, tmp_path / "run", 100, save_images_steps=100)
  text = str(error.value)
  assert re.match(r"step \d+: the data cannot be read \(.+\)\.", text)
  last = tf.train.latest_checkpoint(str(tmp_path / "run"))
  assert text.endswith(f"The last good checkpoint is {last}.")


def test_a_model_that_does_not_fit_leaves_the_folder_alone(copied_run, scenes):
  before = contents(copied_run)
  ready = []
  with pytest.raises(ConfigError) as error:
    train(
      scenes, copied_run, STEPS + 1, n_z=3, on_ready=lambda: ready.append(1)
    )
  text = str(error.value)
  assert f"{copied_run}/model.ckpt-{STEPS}: does not fit the model" in text
  assert "[10] in the checkpoint, [6] in the model" in text
  assert contents(copied_run) == before
  assert not ready


def test_a_damaged_checkpoint_alone_is_an_error(copied_run, scenes):
  for path in copied_run.glob("model.ckpt-*.data*"):
    path.write_bytes(path.read_bytes()[:100])
  before = contents(copied_run)
  with pytest.raises(ConfigError, match=r"model\.ckpt-8: .* has 100 bytes"):
    train(scenes, copied_run, STEPS + 1)
  assert contents(copied_run) == before


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_is_gone_ends_the_run(scenes, tmp_path, is_replaced):
  folder = tmp_path / "run"

  def remove(trainer, step, loss):
    shutil.rmtree(folder)
    if is_replaced:
      folder.mkdir()

  with pytest.raises(training_loop.RunError) as error:
    train(
      scenes,
      folder,
      save_checkpoint_steps=2,
      save_images_steps=100,
      save_summaries_steps=2,
      on_metric=remove,
    )
  if is_replaced:
    assert f"{folder}: another folder is there now" in str(error.value)
    assert not list(folder.glob("model.ckpt*"))
  else:
    assert "step 2: the checkpoint cannot be saved (" in str(error.value)
    assert not folder.exists()


@pytest.mark.parametrize(
  "scalar, is_best",
  [("loss/total", min), ("loss/ari_nobg", max)],
)
def test_the_best_checkpoint_stays(scenes, tmp_path, caplog, scalar, is_best):
  caplog.set_level("INFO")
  folder = tmp_path / "run"
  train(scenes, folder, save_checkpoint_steps=1, keep_checkpoints=1)
  assert checkpoints(folder) == {f"model.ckpt-{STEPS}"}
  settings = dict(save_checkpoint_steps=1, keep_checkpoints=1, keep_best=scalar)
  train(scenes, folder, 2 * STEPS, **settings)
  steps, values = summaries.read_scalars(folder)[scalar]
  scores = dict(zip(steps[STEPS:].tolist(), values[STEPS:], strict=True))
  best = is_best(scores, key=scores.__getitem__)
  # Beside the best one: the first, and the last.
  expected = {f"model.ckpt-{step}" for step in (STEPS, best, 2 * STEPS)}
  assert checkpoints(folder) == expected
  assert f"Best by {scalar}: {folder}/model.ckpt-{best}" in caplog.text


def test_an_unknown_score_is_an_error(scenes, tmp_path):
  with pytest.raises(ConfigError) as error:
    train(scenes, tmp_path / "run", keep_best="loss/ari_nobgg")
  assert "keep_best='loss/ari_nobgg': no scalar of the model" in str(
    error.value
  )
  assert "loss/ari_nobg" in str(error.value)


def test_without_a_terminal_there_are_plain_lines(
  scenes, tmp_path, caplog, capsys
):
  caplog.set_level("INFO")
  train(scenes, tmp_path / "run", 5, save_summaries_steps=2)
  lines = [x for x in caplog.messages if re.match(r"step \d", x)]
  number = r"-?\d+\.\d+"
  pattern = (
    rf"step (\d)/5  loss {number}  ARI-nobg {number}  "
    rf"{number} img/s  ETA \d\d:\d\d"
  )
  matches = [re.fullmatch(pattern, line) for line in lines]
  assert all(matches), lines
  assert [match[1] for match in matches] == ["2", "4", "5"]
  assert "\r" not in capsys.readouterr().err


@contextlib.contextmanager
def pseudo_terminal(monkeypatch):
  """Makes standard error a terminal; yields what is written, as it comes."""
  master, slave = pty.openpty()
  size = struct.pack("HHHH", 24, 100, 0, 0)  # rows, columns, unused
  fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
  written = []

  def read():
    with contextlib.suppress(OSError):  # how Linux reports the end
      while chunk := os.read(master, 1024):
        written.append(chunk)

  reader = threading.Thread(target=read)
  reader.start()
  try:
    with os.fdopen(slave, "w") as stream, monkeypatch.context() as patch:
      patch.setattr("sys.stderr", stream)
      yield written
  finally:
    reader.join()
    os.close(master)


def test_a_terminal_shows_a_bar(scenes, tmp_path, monkeypatch, caplog):
  caplog.set_level("INFO")
  with pseudo_terminal(monkeypatch) as written:
    train(scenes, tmp_path / "run", 3, save_images_steps=100)
  text = b"".join(written).decode()
  last = text.split("\r")[-2 if text.endswith("\n") else -1]
  assert re.search(r"\| 3/3 \[", last), text
  for word in ("loss ", "ARI-nobg ", "img/s"):
    assert word in last
  assert not [x for x in caplog.messages if re.match(r"step \d", x)]


def test_means_are_those_since_the_last_summary(whole_run, scenes, tmp_path):
  metrics = train(
    scenes, tmp_path / "run", 5, save_summaries_steps=3, save_images_steps=100
  )
  _, whole = whole_run
  for name in ("loss", "ari"):
    each = whole[name]
    expected = {
      3: np.mean([each[1], each[2], each[3]]),
      5: np.mean([each[4], each[5]]),
    }
    assert list(metrics[name]) == [3, 5]
    for step, value in metrics[name].items():
      assert value == pytest.approx(expected[step], rel=1e-4, abs=1e-4)
