"""Training steps that leave TensorFlow, and what is brought back."""

import csv
import json
import os
import pathlib
import shutil
import signal
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from iodine.commands.train import make_trainer
from iodine.config import resolution
from iodine.errors import ConfigError
from iodine.evaluation import scores as scoring
from iodine.runs import loading
from scripts import export_training, import_training, run_training
from tests.support import tiny, tiny_runs

jax = pytest.importorskip("jax")

_NUM_SCENES, _BATCH_SIZE, _STEPS = 7, 2, 5


class _Trainer:
  """Fits a colour to images; has noise, a constant and a score that is NaN."""

  def __init__(self, rate: float = 0.1):
    self._rate = tf.constant(rate)
    self.color = tf.Variable([0.2, 0.4, 0.9], name="color")
    self.step = tf.Variable(0, dtype=tf.int64, name="step")
    self.unused = tf.Variable(5, dtype=tf.int32, name="unused")

  @property
  def variables(self) -> list[tf.Variable]:
    return [self.color, self.step, self.unused]

  def traced_step(self, data: dict[str, Any]) -> tuple[dict, None]:
    seed = tf.cast(tf.stack([self.step, 3]), tf.int32)
    noise = 0.1 * tf.random.stateless_normal([3], seed)
    images = data["image"] * data["factors"]["weight"][..., tf.newaxis]
    with tf.GradientTape() as tape:
      loss = tf.reduce_mean(tf.square(images - self.color - noise))
    self.color.assign_sub(self._rate * tape.gradient(loss, self.color))
    self.step.assign_add(1)
    score = tf.where(self.step % 2 == 0, np.nan, 0.5)
    return {"loss/total": loss, "loss/ari_nobg": score}, None


def _scenes() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  image = rng.integers(256, size=[_NUM_SCENES, 4, 3], dtype=np.uint8)
  weight = rng.random([_NUM_SCENES, 1], np.float32)
  return {"image": image, "factors/weight": weight}


def _chosen(seed: int, step: int) -> np.ndarray:
  return np.asarray(
    run_training._choose(jax.random.key(seed), step, _NUM_SCENES, _BATCH_SIZE)
  )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Not to be changed."""
  folder = tmp_path_factory.mktemp("exported")
  export_training.write(
    folder,
    _Trainer(),
    _scenes(),
    batch_size=_BATCH_SIZE,
    seed=11,
    stop_after_steps=_STEPS,
  )
  return folder


@pytest.fixture
def folder(exported: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(exported, tmp_path / "folder"))


def _trained(folder: pathlib.Path) -> dict[str, np.ndarray]:
  return dict(np.load(folder / run_training.TRAINED_FILE))


def test_an_epoch_has_each_scene_once():
  steps_per_epoch = _NUM_SCENES // _BATCH_SIZE
  epochs = [
    np.concatenate(
      [_chosen(1, e * steps_per_epoch + i) for i in range(steps_per_epoch)]
    )
    for e in range(4)
  ]
  assert all(len(set(epoch)) == len(epoch) == 6 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
  assert len({tuple(_chosen(seed, 0)) for seed in range(9)}) > 1


class TestSteps:
  def test_are_those_of_tensorflow(self, folder: pathlib.Path):
    assert run_training.train(folder) == _STEPS
    trainer, scenes = _Trainer(), _scenes()
    step = tf.function(trainer.traced_step, jit_compile=True, autograph=False)
    losses = []
    for i in range(_STEPS):
      chosen = _chosen(11, i)
      image = tf.constant(scenes["image"][chosen] / np.float32(255))
      weight = tf.constant(scenes["factors/weight"][chosen])
      scalars, _ = step({"image": image, "factors": {"weight": weight}})
      losses.append(float(scalars["loss/total"]))
    trained = _trained(folder)
    np.testing.assert_allclose(trained["color:0"], trainer.color, rtol=1e-5)
    assert trained["step:0"].dtype == np.int64 and trained["step:0"] == _STEPS
    assert trained["unused:0"] == 5
    assert not np.allclose(trained["color:0"], [0.2, 0.4, 0.9])
    with (folder / run_training.SCALARS_FILE).open() as file:
      row = list(csv.DictReader(file))[-1]
    assert int(row["step"]) == _STEPS
    assert float(row["loss/ari_nobg"]) == 0.5
    # All but those that were done as the first one was compiled.
    assert any(
      np.isclose(float(row["loss/total"]), np.mean(losses[i:]), rtol=1e-5)
      for i in range(1, _STEPS)
    )

  def test_go_on_exactly(self, folder: pathlib.Path, tmp_path: pathlib.Path):
    other = pathlib.Path(shutil.copytree(folder, tmp_path / "other"))
    assert run_training.train(folder, steps=3) == 3
    assert run_training.train(folder) == _STEPS
    assert run_training.train(folder) == _STEPS  # nothing is left to do
    run_training.train(other)
    a, b = _trained(folder), _trained(other)
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)

  def test_end_at_a_signal_and_are_saved(
    self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ):
    advance = run_training._Run.advance

    def interrupted(run: run_training._Run) -> list[np.ndarray]:
      if run.step == 1:
        os.kill(os.getpid(), signal.SIGINT)
      return advance(run)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(run_training._Run, "advance", interrupted)
    assert run_training.train(folder) == 2
    assert _trained(folder)["step:0"] == 2
    assert signal.getsignal(signal.SIGINT) is before

  def test_end_in_time(self, folder: pathlib.Path):
    assert run_training.train(folder, minutes=0.0) == 0
    assert _trained(folder)["step:0"] == 0

  def test_that_are_not_finite_end_the_training(
    self, folder: pathlib.Path, capsys: pytest.CaptureFixture
  ):
    start = dict(np.load(folder / run_training.START_FILE))
    start["color:0"][1] = np.inf
    np.savez(folder / run_training.START_FILE, **start)
    with pytest.raises(SystemExit, match="loss/total is inf"):
      run_training.train(folder)
    assert not (folder / run_training.TRAINED_FILE).exists()


def test_the_folder_runs_without_the_project(folder: pathlib.Path):
  script = (folder / run_training.NAME).read_text()
  assert "iodine" not in script and "tensorflow" not in script
  with pytest.raises(SystemExit):
    run_training.main([str(folder / "elsewhere")])


# --- The whole way ------------------------------------------------------------


def _words(data_dir: pathlib.Path, *more: str) -> list[str]:
  words = [f"data_dir={data_dir}", "held_out_scenes=3", "seed=3"]
  return [*tiny_runs.TINY[1:], *words, *more]


@pytest.mark.parametrize(
  "word, message",
  [
    ("curriculum=[[0, 1]]", "curriculum=.*Set curriculum=null"),
    ("batch_size=11", "batch_size=11: there are only 10 scenes"),
    ("num_components=1", "num_components"),
  ],
)
def test_what_cannot_be_exported(
  data_dir: pathlib.Path, tmp_path: pathlib.Path, word: str, message: str
):
  entries = export_training.resolve(_words(data_dir, word))
  with pytest.raises(ConfigError, match=message):
    export_training.export(entries, tmp_path / "new")
  assert not (tmp_path / "new").exists()


def test_faults_of_folders(data_dir: pathlib.Path, tmp_path: pathlib.Path):
  entries = export_training.resolve(_words(data_dir))
  with pytest.raises(ConfigError, match="exists already"):
    export_training.export(entries, tmp_path)
  with pytest.raises(ConfigError, match="train first"):
    import_training.import_run(tmp_path, tmp_path / "run")


@pytest.mark.slow
def test_a_run_leaves_and_comes_back(
  data_dir: pathlib.Path, tmp_path: pathlib.Path
):
  folder, run = tmp_path / "exported", tmp_path / "run"
  entries = export_training.resolve(_words(data_dir))
  export_training.export(entries, folder)
  scenes = dict(np.load(folder / run_training.SCENES_FILE))
  assert len(scenes["image"]) == tiny_runs.NUM_SCENES - 3
  assert run_training.train(folder, steps=3) == 3
  assert import_training.import_run(folder, run) == "model.ckpt-3"

  # The same steps by TensorFlow, without XLA.
  trained = _trained(folder)
  dataset, model, optimizer = resolution.build(entries)
  trainer = make_trainer(dataset, model, optimizer, 3)
  start = dict(np.load(folder / run_training.START_FILE))
  for variable in trainer.variables:
    variable.assign(start[variable.name])
  spec = json.loads((folder / run_training.SPEC_FILE).read_text())
  for i in range(3):
    chosen = np.asarray(
      run_training._choose(
        jax.random.key(spec["seed"]), i, len(scenes["image"]), 3
      )
    )
    flat = {name: tf.constant(x[chosen]) for name, x in scenes.items()}
    trainer.step(export_training.as_trained_on(flat))
  for variable in trainer.variables:
    np.testing.assert_allclose(
      variable.numpy(),
      trained[variable.name],
      rtol=1e-3,
      atol=1e-5,
      err_msg=variable.name,
    )
  assert any(
    not np.array_equal(trained[name], start[name])
    for name in trained
    if name in start
  )

  # All variables are those that were trained, to the bit.
  saved = tiny.read_checkpoint(run / "model.ckpt-3")
  for variable in trainer.variables:
    assert any(
      np.array_equal(trained[variable.name], value) for value in saved.values()
    ), variable.name
  loaded = loading.open_trained(loading.entries_of(str(run)))
  loaded.restore()
  for variable in loaded.model.variables:
    np.testing.assert_array_equal(variable, trained[variable.name])
  result = scoring.evaluate(
    loaded.model, loaded.dataset.variant(take=3)("eval"), batch_size=3, seed=0
  )
  assert result.scenes == 3
