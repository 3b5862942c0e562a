"""Sub-batches: in turn, on replicas, and on workers that come and go."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from iodine import main, training
from iodine.config import resolution
from iodine.errors import ConfigError
from iodine.scene_model import Loss
from iodine.training import replicas
from tests.support import tiny
from tests.support.places import REPOSITORY
from tests.support.tiny_runs import TINY, fail, metrics, run

_SHAPE = (tiny.H, tiny.W, tiny.C)
_B = 4  # a step's batch


@pytest.fixture(autouse=True)
def _log(caplog):
  caplog.set_level("INFO")


# --- In turn ------------------------------------------------------------------


def _trainer(accumulate: int, **overrides: Any) -> training.Trainer:
  """Makes a trainer; all of them start from the same variables."""
  model = tiny.initialized(num_iters=1, **overrides)
  devices = replicas.Distribution(accumulate)
  return training.Trainer(model, training.make_optimizer(1e-3), 7, devices)


def test_a_step_is_the_mean_over_sub_batches():
  accumulate, size = 2, _B // 2
  model = _trainer(accumulate).model
  noise, data = tiny.noise(num_iters=1), tiny.batch()
  variables = model.trainable_variables
  gradients, scalars = [], []
  for start in range(0, _B, size):
    part = tf.nest.map_structure(lambda x, i=start: x[i : i + size], data)
    with tf.GradientTape() as tape:
      loss, values, _ = model(part, noise=noise[:, start : start + size])
    gradients.append([g.numpy() for g in tape.gradient(loss, variables)])
    scalars.append({k: v.numpy() for k, v in values.items()})
  means = [np.mean(parts, axis=0) for parts in zip(*gradients, strict=True)]
  norm = np.sqrt(sum(np.sum(np.square(mean)) for mean in means))

  trainer = _trainer(accumulate)  # whose moments have seen nothing
  result = trainer.step(data, noise)
  for name in scalars[0]:
    expected = np.mean([values[name] for values in scalars])
    np.testing.assert_allclose(result[name], expected, rtol=1e-4, atol=1e-6)
  # Clipped once, as a mean, so that the norm is that of the mean.
  assert norm > 50
  np.testing.assert_allclose(result["debug/global_grad_norm"], norm, rtol=1e-4)
  for variable, mean in zip(variables, means, strict=True):
    first_moment = trainer.optimizer.slots[variable.name]["m"] / (1 - 0.95)
    largest = 5 / norm * np.max(np.abs(mean))
    np.testing.assert_allclose(
      first_moment, 5 / norm * mean, rtol=0, atol=1e-3 * largest
    )
  assert int(trainer.optimizer.step) == 1


def test_the_factors_moments_see_all_sub_batches():
  values = {}
  for accumulate in (1, 4):
    trainer = _trainer(accumulate)
    for _ in range(2):
      trainer.step(tiny.batch())
    values[accumulate] = tiny.values(
      v for v in trainer.model.variables if "_mean_var/" in v.name
    )
  assert len(values[1]) == 3
  for name, value in values[1].items():
    np.testing.assert_allclose(values[4][name], value, rtol=1e-5, atol=1e-6)


class _Model(tf.Module):
  """Shows the trainer's workings in the scalars; counts its traces."""

  geco = None

  def __init__(self):
    super().__init__()
    self.weight = tf.Variable(1.0, name="weight")
    self.unused = tf.Variable(2.0, name="unused")
    self.num_traces = 0

  def initialize(self, image_shape, factors, num_background_entities):
    pass

  def __call__(self, data, noise=None, seed=None, step=None):
    self.num_traces += 1
    loss = self.weight * tf.reduce_mean(data.get("loss", data["image"]))
    draw = tf.random.stateless_uniform([], seed)
    scalars = {"loss/total": loss, "draw": draw, "square": draw**2}
    if "mask" in data:
      scalars["loss/ari"] = data["mask"][0]
    return Loss(loss, scalars)


def _step(accumulate: int, **data: Sequence[float]) -> dict[str, float]:
  devices = replicas.Distribution(accumulate)
  trainer = training.Trainer(
    _Model(), training.make_optimizer(1e-3), 7, devices
  )
  trainer.optimizer.initialize(trainer.model.trainable_variables)
  batch = {key: tf.constant(value, tf.float32) for key, value in data.items()}
  return {k: float(v) for k, v in trainer.step(batch).items()}


def test_a_score_without_objects_is_left_out_of_the_mean():
  nan, image = float("nan"), [0.0, 0.5, 1.0]
  assert _step(3, image=image, mask=[0.5, nan, 0.25])["loss/ari"] == 0.375
  assert np.isnan(_step(3, image=image, mask=[nan] * 3)["loss/ari"])
  # but not a loss:
  assert _step(3, image=image)["loss/total"] == pytest.approx(0.5)
  assert np.isnan(_step(3, image=image, loss=[1.0, nan, 2.0])["loss/total"])


def test_each_sub_batch_has_noise_of_its_own():
  one, two = _step(1, image=[1.0] * 4), _step(2, image=[1.0] * 4)
  variance = two["square"] - two["draw"] ** 2
  assert variance > 1e-4
  assert one["square"] == pytest.approx(one["draw"] ** 2)
  assert two == _step(2, image=[1.0] * 4)


def test_only_the_first_step_is_traced():
  devices, model = replicas.Distribution(2), _Model()
  trainer = training.Trainer(model, training.make_optimizer(1e-3), 7, devices)
  trainer.optimizer.initialize(trainer.model.trainable_variables)
  losses = set()
  for scale in (0.1, 0.2, 0.3):
    data = {"image": tf.fill([4, 3], scale)}
    losses.add(round(float(trainer.step(data)["loss/total"]), 1))
  assert model.num_traces == 1
  assert losses == {0.1, 0.2, 0.3}
  assert float(model.unused) == 2.0  # has no gradient


def test_a_batch_that_cannot_be_cut_is_an_error():
  with pytest.raises(ValueError, match="batch of 3 cannot be cut into 2 equal"):
    _step(2, image=[0.0, 0.5, 1.0])


# --- Configuration ------------------------------------------------------------


@pytest.mark.parametrize(
  "words, error",
  [
    (
      ["strategy=mirored"],
      "strategy='mirored': no such value. Did you mean 'mirrored'? "
      "Valid values: mirrored, multi_worker",
    ),
    (["strategy=2"], "strategy=2: no such value."),
    (["accumulate=0"], "accumulate=0: expected an integer of at least 1"),
    (["accumulate=1.5"], "accumulate=1.5: expected an integer"),
    (
      ["accumulate=3", "batch_size=32"],
      "batch_size=32: must be a multiple of accumulate=3, such as 33",
    ),
  ],
)
def test_mistakes_are_told_before_any_work(words, error, capsys):
  text = fail(capsys, 2, "with", "clevr6", *words)
  assert text.startswith(f"ConfigError: {error}")


def test_the_batch_must_divide_among_the_replicas():
  with pytest.raises(
    ConfigError,
    match=r"batch_size=40: must be a multiple of 8 replicas x accumulate=2, "
    r"such as 48",
  ):
    resolution.sub_batch_size(40, accumulate=2, num_replicas=8)


def _tf_config(index: Any = 0, kind: str = "worker", **cluster: Any) -> str:
  task = {"type": kind, "index": index}
  return json.dumps({"cluster": cluster, "task": task})


@pytest.mark.parametrize(
  "text, fault",
  [
    (None, "is not set"),
    ("{", "Expecting property name"),
    ("[]", "must be a mapping"),
    ("{}", "there is no 'cluster'"),
    (_tf_config(worker=["a:1"], ps=["b:1"]), "no use for the jobs ['ps']"),
    (_tf_config(kind="chief", worker=["a:1"]), "there is no 'chief'"),
    (_tf_config(1, worker=["a:1"]), "its cluster has no task worker 1"),
    (_tf_config("0", worker=["a:1"]), "its cluster has no task worker '0'"),
    (_tf_config(worker=["a", "b:1"]), "'a' is not of the form host:port"),
    (_tf_config(worker=[7]), "7 is not of the form host:port"),
    (_tf_config(worker=["a:1", "a:1"]), "workers must differ"),
    (_tf_config(worker=["a:1"], chief=["b:1", "c:1"]), "only one be the chief"),
  ],
)
def test_a_wrong_tf_config_is_one_clear_error(
  text, fault, monkeypatch, capsys, tmp_path
):
  monkeypatch.delenv("TF_CONFIG", raising=False)
  if text is not None:
    monkeypatch.setenv("TF_CONFIG", text)
  error = fail(
    capsys,
    2,
    *("-F", tmp_path / "storage", "with", "tetrominoes"),
    *("strategy=multi_worker", f"checkpoint_dir={tmp_path}/run"),
  )
  assert error.startswith("ConfigError: strategy=multi_worker: TF_CONFIG=")
  assert fault in error
  assert '"task": {"type": "worker", "index": 0}}' in error  # an example
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "text, rank",
  [
    (_tf_config(1, worker=["a:1", "b:2"]), 1),
    (_tf_config(0, worker=["b:2"], chief=["a:1"]), 1),
    (_tf_config(0, "chief", worker=["b:2"], chief=["a:1"]), 0),
  ],
)
def test_tf_config_names_the_workers(text, rank, monkeypatch):
  monkeypatch.setenv("TF_CONFIG", text)
  cluster = replicas.cluster_of_environment()
  assert cluster == (("a:1", "b:2"), rank)
  assert cluster.is_chief == (rank == 0)


def test_other_commands_need_no_cluster(monkeypatch):
  monkeypatch.delenv("TF_CONFIG", raising=False)
  run("print_config", "with", "tetrominoes", "strategy=multi_worker")


@pytest.mark.parametrize(
  "visible, gpus, warned",
  [(None, [], True), ("0", [], True), ("-1", [], False), ("", [], False),
   (None, ["GPU:0"], False)],
)  # fmt: skip
def test_a_machine_without_a_gpu_is_told(
  visible, gpus, warned, monkeypatch, caplog
):
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  if visible is not None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
  replicas.warn_without_gpu()
  assert ("No GPU found" in caplog.text) == warned


# --- A run --------------------------------------------------------------------

_WORDS = (*TINY, f"batch_size={_B}", "seed=3", "save_checkpoint_steps=2")


@pytest.fixture(scope="module")
def in_turn(data_dir, tmp_path_factory) -> pathlib.Path:
  """Five steps of two sub-batches: run_1, and Sacred's files in storage/1."""
  folder = tmp_path_factory.mktemp("turn")
  words = (f"data_dir={data_dir}", f"checkpoint_dir={folder}/run")
  run("-F", folder / "storage", *_WORDS, *words, "accumulate=2")
  return folder


def test_evaluation_divides_inner_losses_by_the_sub_batch(in_turn, caplog):
  saved = json.loads((in_turn / "run_1" / "config.json").read_text())
  assert (saved["batch_size"], saved["accumulate"]) == (_B, 2)
  assert saved["sub_batch_size"] == 2
  loaded = main.load_checkpoint(in_turn / "run_1", batch_size=1, accumulate=1)
  assert loaded["model"].inner_batch_size == 2


def test_other_sub_batches_in_a_continued_run_are_told(
  in_turn, tmp_path, caplog
):
  folder = tmp_path / "run"
  folder.mkdir()
  for path in (in_turn / "run_1").iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  words = ("continue_run=True", f"checkpoint_dir={folder}", "accumulate=1")
  run("with", folder / "config.json", *words, "stop_after_steps=6")
  assert "had sub-batches of 2 images, and now has 4" in caplog.text
  saved = json.loads((folder / "config.json").read_text())
  assert "sub_batch_size" not in saved
  assert "Restored" in caplog.text and "step 6/6" in caplog.text


# --- Two devices --------------------------------------------------------------


@pytest.mark.parametrize(
  "words",
  [
    ["1"],
    pytest.param(["2"], marks=pytest.mark.slow),
    pytest.param(["2", "xla"], marks=pytest.mark.slow),
  ],
)
def test_two_devices_equal_one_that_takes_the_sub_batches_in_turn(words):
  process = subprocess.run(
    [sys.executable, "-m", "tests.support.two_devices", *words],
    cwd=REPOSITORY,
    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
  )
  assert process.returncode == 0, process.stderr
  result = json.loads(process.stdout.splitlines()[-1])
  assert result["replicas"] == 2
  assert set(result["copies"]) == {2}
  assert result["equal"], "the replicas' variables have drifted apart"
  # R^2 takes the variance that a replica knows at that time.
  assert result["scalars"].pop("factor/position") > 1e-3
  # float32 sums in another order; Adam turns small differences of gradients
  # near zero into larger ones of weights.
  for name, distance in result["scalars"].items():
    assert distance < 1e-4, name
  for name, distance in result["variables"].items():
    assert distance < 1e-3, name
  # A run may go on with other devices.
  assert len(result["checkpoint"]) > len(result["variables"])
  for name, distance in result["checkpoint"].items():
    assert distance < 1e-3, name
  assert len(set(result["losses"])) == 5
  # Where there are no running moments to share.
  assert len(set(result["losses_without_factors"])) == 5


# --- Two workers --------------------------------------------------------------


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for each in sockets:
      each.bind(("127.0.0.1", 0))
    return [each.getsockname()[1] for each in sockets]


class _Workers:
  """Two processes that train together; the chief is the first."""

  def __init__(
    self,
    folder: pathlib.Path,
    *words: object,
    of_second: Sequence[object] = (),
  ):
    self.folder = folder
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
    self.processes = []
    for rank in range(2):
      home = folder / f"worker{rank}"
      more = of_second if rank else ()
      home.mkdir(parents=True)
      environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TF_CONFIG": _tf_config(rank, worker=addresses),
        # Two processes share few cores.
        "TF_NUM_INTRAOP_THREADS": "1",
      }
      with open(folder / f"log{rank}", "w") as log:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, "-m", "iodine.main"]
            + [str(word) for word in ("-F", "storage", *words, *more)],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
          )
        )

  def log(self, rank: int) -> str:
    return (self.folder / f"log{rank}").read_text()

  def wait_for(self, text: str, timeout: float = 200) -> None:
    """Waits until the chief tells something."""
    end = time.monotonic() + timeout
    while text not in self.log(0):
      running = [process.poll() is None for process in self.processes]
      assert all(running) and time.monotonic() < end, self.log(0) + self.log(1)
      time.sleep(0.05)

  def exit_codes(self, timeout: float) -> list[int]:
    return [process.wait(timeout) for process in self.processes]

  def files(self, rank: int) -> list[pathlib.Path]:
    return list((self.folder / f"worker{rank}").iterdir())


@contextlib.contextmanager
def _workers(
  folder: pathlib.Path, *words: object, **of_second: Any
) -> Iterator[_Workers]:
  workers = _Workers(folder, *words, "strategy=multi_worker", **of_second)
  try:
    yield workers
  finally:
    for process in workers.processes:
      process.kill()
      process.wait()


def _weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
  values = tiny.read_checkpoint(tf.train.latest_checkpoint(str(folder)))
  return {
    name: value
    for name, value in values.items()
    if isinstance(value, np.ndarray | np.number)
  }


@pytest.mark.slow
def test_two_workers_equal_one_that_takes_the_sub_batches_in_turn(
  data_dir, tmp_path
):
  # Without a seed, each worker chooses one, and has to take the chief's.
  words = [word for word in _WORDS if not word.startswith("seed=")]
  words.append(f"data_dir={data_dir}")
  with _workers(tmp_path, *words, "checkpoint_dir=run") as workers:
    assert workers.exit_codes(200) == [0, 0], workers.log(0) + workers.log(1)
  chief, turn = tmp_path / "worker0", tmp_path / "turn"
  saved = json.loads((chief / "run_1" / "config.json").read_text())
  words += [f"checkpoint_dir={turn}/run", f"seed={saved['seed']}"]
  run("-F", turn / "storage", *words, "accumulate=2")
  expected = metrics(turn / "storage" / "1")
  found = metrics(chief / "storage" / "1")
  assert found.keys() == expected.keys() == {"loss", "ari"}
  for name, values in expected.items():
    assert list(found[name]) == [1, 2, 3, 4, 5]
    for step, value in values.items():
      assert found[name][step] == pytest.approx(value, rel=1e-4, abs=1e-4)
  weights = _weights(chief / "run_1")
  expected = _weights(turn / "run_1")
  assert weights.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(
      weights[name], value, rtol=1e-3, atol=1e-5, err_msg=name
    )
  assert saved["sub_batch_size"] == 2
  assert not workers.files(1)  # nothing but what the chief writes


def _continue_alone(workers: _Workers, capsys, caplog) -> None:
  """Checks that one process goes on from the chief's last checkpoint."""
  folder = workers.folder / "worker0" / "run_1"
  # A later one may lie there that a killed chief had not finished.
  latest = tf.train.latest_checkpoint(str(folder))
  step = int(latest.rpartition("-")[2])
  with contextlib.redirect_stdout(None):
    run(
      *("with", folder / "config.json", "strategy=None", "accumulate=2"),
      *("continue_run=True", f"checkpoint_dir={folder}"),
      f"stop_after_steps={step + 1}",
    )
  assert f"Restored {latest}" in caplog.text
  assert f"step {step + 1}/{step + 1}" in caplog.text


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("victim", [0, 1], ids=["chief", "other"])
def test_a_killed_worker_is_an_error_in_the_other_within_a_minute(
  victim, data_dir, tmp_path, capsys, caplog
):
  words = (*_WORDS, f"data_dir={data_dir}", "checkpoint_dir=run")
  with _workers(tmp_path, *words, "stop_after_steps=1000000") as workers:
    workers.wait_for("step 5/")
    workers.processes[victim].send_signal(signal.SIGKILL)
    assert workers.processes[1 - victim].wait(60) == 1
  error = workers.log(1 - victim)
  assert "Traceback" not in error
  assert "Error: Another worker is lost (" in error
  where = "run_1/" if victim else ""
  assert re.search(rf"last good checkpoint is {where}model\.ckpt-\d+", error)
  _continue_alone(workers, capsys, caplog)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
  "number, rank", [(signal.SIGINT, 1), (signal.SIGTERM, 0)]
)
def test_a_signal_to_one_worker_saves_once_and_ends_all(
  number, rank, data_dir, tmp_path, capsys, caplog
):
  words = (*_WORDS, f"data_dir={data_dir}", "checkpoint_dir=run")
  with _workers(tmp_path, *words, "stop_after_steps=1000000") as workers:
    workers.wait_for("step 5/")
    workers.processes[rank].send_signal(number)
    codes = workers.exit_codes(60)
  assert codes[rank] == 128 + number
  assert codes[1 - rank] == 128 + signal.SIGTERM
  last = {re.findall(r"step (\d+)/", workers.log(i))[-1] for i in range(2)}
  assert len(last) == 1  # all ended at the same step
  assert f"at step {last.pop()}: saved run_1/model.ckpt-" in workers.log(0)
  assert not workers.files(1)
  _continue_alone(workers, capsys, caplog)


@pytest.mark.slow
def test_a_worker_with_another_configuration_is_an_error(data_dir, tmp_path):
  words = (*_WORDS, f"data_dir={data_dir}", "checkpoint_dir=run")
  with _workers(tmp_path, *words, of_second=["batch_size=8"]) as workers:
    assert workers.exit_codes(200) == [1, 2]
  assert "configuration is not the chief's" in workers.log(1)
  assert "Error: Another worker is lost (" in workers.log(0)
  assert not workers.files(1)
