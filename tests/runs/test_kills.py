"""Kills runs with SIGKILL, takes disk and data from them, and continues them.

A continued run has to end with the losses, the TensorBoard record and the files
of one that nothing ever happened to. Its numbers are compared bit for bit, as
runs are deterministic here.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from tests.support import tiny
from tests.support.accidents import KILLED_AT_FILE, LIMITED
from tests.support.places import REPOSITORY
from tests.support.tiny_runs import TINY, metrics, start, write_scenes

pytestmark = pytest.mark.faults

NUM_SCENES = 40
STEPS = 80
CHECKPOINT_STEPS = 10
KEPT = 2
NUM_STORMS, KILLS_OF_A_STORM = 12, 5
# Dies just before a file that was written gets its name.
KILLED_AT_RENAMING = """
import os, pathlib, signal, sys
name, *words = sys.argv[1:]
replace = pathlib.Path.replace

def die(path, target):
  if pathlib.Path(target).name == name:
    os.kill(os.getpid(), signal.SIGKILL)
  return replace(path, target)

pathlib.Path.replace = die
from iodine import main
main.main(["iodine", *words])
"""
# Dies at the n-th change of files below a folder: one by Python, of which the
# interpreter tells, or one by TensorFlow, of which a thread sees the traces.
KILLED_AT_CHANGE = """
import os, signal, sys, threading
folder, count, *words = sys.argv[1:]
left = [int(count)]
sys.setswitchinterval(1e-4)

def change():
  left[0] -= 1
  if left[0] <= 0:
    os.kill(os.getpid(), signal.SIGKILL)

def notice(event, args):
  is_written = event == "open" and isinstance(args[2], int) and args[2] & (
      os.O_WRONLY | os.O_RDWR | os.O_CREAT)
  if is_written or event in (
      "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
    if str(args[0]).startswith(folder):
      change()

def state():
  found = []
  for place, _, names in os.walk(folder):
    for name in names:
      path = os.path.join(place, name)
      try:
        found.append((path, os.stat(path).st_size))
      except OSError:
        pass
  return sorted(found)

def watch():
  before = state()
  while True:
    now = state()
    if now != before:
      before = now
      change()

sys.addaudithook(notice)
threading.Thread(target=watch, daemon=True).start()
from iodine import main
main.main(["iodine", *words])
"""
# Opening a file of a folder to write it fails, as superusers have all rights.
READ_ONLY = """
import errno, os, sys
folder, *words = sys.argv[1:]

def refuse(event, args):
  if event == "open" and str(args[0]).startswith(folder) and (
      args[2] & (os.O_WRONLY | os.O_RDWR)):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), args[0])

from iodine import main
sys.addaudithook(refuse)
main.main(["iodine", *words])
"""


class Run:
  """A run in a folder of its own that is started and continued at will."""

  def __init__(
    self,
    folder: pathlib.Path,
    data: pathlib.Path,
    storage: pathlib.Path | None = None,
  ):
    self.base = folder
    self.data = data
    self.storage = storage or folder / "storage"

  @property
  def folder(self) -> pathlib.Path | None:
    """Of the checkpoints, if the run got that far."""
    found = sorted(self.base.glob("run_*"))
    assert len(found) < 2
    return found[0] if found else None

  def words(self, *more: str) -> list[str]:
    """The command that a user would give now."""
    place = [f"checkpoint_dir={self.base}/run"]
    if self.folder is not None:
      place = [f"checkpoint_dir={self.folder}", "continue_run=True"]
    return [
      *("-F", str(self.storage)),
      *TINY,
      f"data.path={self.data}",
      f"stop_after_steps={STEPS}",
      f"save_checkpoint_steps={CHECKPOINT_STEPS}",
      f"keep_checkpoints={KEPT}",
      *("save_images_steps=40", "seed=3", "deterministic=True"),
      *place,
      *more,
    ]

  def start(self, *more: str, script: str = "", args: tuple = ()):
    """Starts or continues it, by a script of its own if there is one."""
    if not script:
      return start(*self.words(*more), cwd=self.base)
    return subprocess.Popen(
      [sys.executable, "-c", script, *args, *self.words(*more)],
      cwd=self.base,
      env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def finish(self) -> str:
    """Lets it come to its end."""
    process = self.start()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output

  def fail(self, *more: str, **options) -> str:
    """Lets it end with an error of its own."""
    process = self.start(*more, **options)
    output = process.communicate(timeout=300)[0]
    assert process.returncode in (1, 2), output
    assert "Traceback" not in output, output
    return output

  def kill(self, wait: Callable[[subprocess.Popen], None]) -> None:
    """Starts or continues it, waits, and kills it."""
    process = self.start()
    try:
      wait(process)
      assert process.poll() is None
    finally:
      process.kill()
      process.communicate()

  def die(self, script: str, *args: str) -> None:
    """Lets a script kill the process that it runs in."""
    process = self.start(script=script, args=args)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == -signal.SIGKILL, output

  def events(self) -> dict[int, float]:
    """{step: loss} as TensorBoard shows them; no step comes twice."""
    accumulator = plugin_event_accumulator.EventAccumulator(
      str(self.folder),
      size_guidance={plugin_event_accumulator.TENSORS: 0},
    )
    accumulator.Reload()
    events = accumulator.Tensors("loss/total")
    steps = [event.step for event in events]
    assert steps == sorted(set(steps))
    return {
      event.step: tf.make_ndarray(event.tensor_proto).item() for event in events
    }

  def recorded(self) -> dict[int, float]:
    """{step: loss} in Sacred's records, the later ones over the earlier."""
    values: dict[int, float] = {}
    folders = [x for x in self.storage.iterdir() if x.name.isdecimal()]
    for folder in sorted(folders, key=lambda path: int(path.name)):
      if (folder / "metrics.json").exists():
        values.update(metrics(folder).get("loss", {}))
    return values

  def names(self) -> set[str]:
    """Of all files, the events' shortened."""
    assert self.folder is not None
    return {
      re.sub(r"tfevents\..*", "tfevents", path.name)
      for path in self.folder.iterdir()
    }

  def weights(self) -> dict[str, np.ndarray]:
    values = tiny.read_checkpoint(tf.train.latest_checkpoint(str(self.folder)))
    values.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    return {k: v for k, v in values.items() if "save_counter" not in k}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data")
  return write_scenes(folder / "scenes.tfrecords", NUM_SCENES)


@pytest.fixture(scope="module")
def undisturbed(
  scenes: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
  run = Run(tmp_path_factory.mktemp("undisturbed"), scenes)
  run.finish()
  return run


@pytest.fixture
def run(scenes: pathlib.Path, tmp_path: pathlib.Path) -> Run:
  return Run(tmp_path, scenes)


def assert_as_undisturbed(run: Run, undisturbed: Run) -> None:
  """Nothing is lost, nothing is left over."""
  expected = undisturbed.events()
  assert list(expected) == list(range(1, STEPS + 1))
  assert run.events() == expected
  assert run.recorded() == undisturbed.recorded()
  assert run.names() == undisturbed.names()
  weights, expected_weights = run.weights(), undisturbed.weights()
  assert weights.keys() == expected_weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(value, expected_weights[name], err_msg=name)
  assert run.folder is not None
  assert (run.folder / "run.lock").read_text() == ""
  config = json.loads((run.folder / "config.json").read_text())
  assert config["seed"] == 3


# --- Kills --------------------------------------------------------------------


def after(seconds: float) -> Callable[[subprocess.Popen], None]:
  return lambda process: time.sleep(seconds)


def at_step(step: int, seconds: float) -> Callable[[subprocess.Popen], None]:
  def wait(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    for line in process.stdout:
      if f"step {step}/" in line:
        break
    time.sleep(seconds)

  return wait


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments_lose_nothing(run, undisturbed, seed):
  rng = random.Random(seed)
  # During start-up, which is most of such a short run, or between steps.
  run.kill(after(rng.uniform(1.0, 8.0)))
  for first in (rng.randrange(1, 20), rng.randrange(21, 40)):
    run.kill(at_step(first, rng.uniform(0.0, 0.1)))
  run.kill(after(rng.uniform(1.0, 8.0)))
  run.kill(at_step(rng.randrange(41, 70), rng.uniform(0.0, 0.05)))
  run.finish()
  assert_as_undisturbed(run, undisturbed)


@pytest.mark.parametrize("seed", range(NUM_STORMS))
def test_a_storm_of_kills_at_changes_of_files_loses_nothing(
  run, undisturbed, seed
):
  rng = random.Random(seed)
  for _ in range(KILLS_OF_A_STORM):
    run.die(KILLED_AT_CHANGE, str(run.base), str(rng.randrange(1, 60)))
  run.finish()
  assert_as_undisturbed(run, undisturbed)


@pytest.mark.parametrize(
  "pattern",
  [
    ".model.ckpt.saving",
    ".model.ckpt.saving/*_temp",
    ".model.ckpt.saving/*.index",
    "model.ckpt-*.data-*",
    "model.ckpt-*.index",
  ],
)
def test_kills_while_a_checkpoint_is_written_lose_nothing(
  run, undisturbed, pattern
):
  for _ in range(2):
    run.die(KILLED_AT_FILE, str(run.folder or run.base / "run_1"), pattern)
  run.finish()
  assert_as_undisturbed(run, undisturbed)


@pytest.mark.parametrize(
  "name",
  [
    "checkpoint",
    "config.json",
    "data.json",
    "decomposition.png",
    "manifest.json",
    "metrics.json",
    "versions.json",
  ],
)
def test_kills_while_another_file_is_written_lose_nothing(
  run, undisturbed, name
):
  for _ in range(2):
    run.die(KILLED_AT_RENAMING, name)
  run.finish()
  assert_as_undisturbed(run, undisturbed)


def test_a_run_killed_before_its_first_checkpoint_keeps_its_seed(
  run, undisturbed
):
  run.kill(at_step(3, 0.0))
  process = run.start("seed=4")
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output
  assert "seed=4 has no effect: a continued run keeps its seed, 3" in output
  assert_as_undisturbed(run, undisturbed)


# --- Disks --------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: pathlib.Path, *words: object) -> Iterator[None]:
  """Mounts something on a folder, where this process may."""
  folder.mkdir()
  command = ["mount", *map(str, words), str(folder)]
  try:
    done = subprocess.run(command, capture_output=True, text=True)
  except FileNotFoundError:
    pytest.skip("needs the command mount")
  if done.returncode:
    pytest.skip(f"may not mount: {done.stderr.strip()}")
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_full_disk_ends_the_run_and_loses_nothing(
  scenes, tmp_path, undisturbed, share
):
  files = list(undisturbed.folder.iterdir())
  size = round(share * sum(path.stat().st_size for path in files))
  disk = tmp_path / "disk"
  with mounted(disk, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
    run = Run(disk, scenes, storage=tmp_path / "storage")
    output = run.fail()
    assert re.search(r"Error: .* cannot be (saved|written)", output), output
    assert "No space left on device" in output
    # Nor does it go on as long as there is no space.
    assert "No space left on device" in run.fail()
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    run.finish()
    assert_as_undisturbed(run, undisturbed)


@pytest.mark.parametrize("part", ["data", "tfevents"])
def test_files_that_may_not_grow_end_the_run_and_lose_nothing(
  run, undisturbed, part
):
  # What any user may try instead of a full disk.
  (*_, path) = sorted(undisturbed.folder.glob(f"*{part}*"))
  limit = str(path.stat().st_size // 2)
  output = run.fail(script=LIMITED, args=(limit,))
  assert re.search(r"Error: .* cannot be (saved|written)", output), output
  assert "File too large" in output
  run.finish()
  assert_as_undisturbed(run, undisturbed)


def test_a_full_disk_for_sacred_is_an_error(tmp_path, scenes):
  disk = tmp_path / "disk"
  with mounted(disk, "-t", "tmpfs", "-o", "size=4k", "tmpfs"):
    run = Run(tmp_path, scenes, storage=disk)
    output = run.fail()
    assert f"ConfigError: --file_storage={disk}: cannot be written" in output


def test_a_read_only_disk_is_an_error(run, tmp_path):
  run.kill(at_step(CHECKPOINT_STEPS + 1, 0.0))
  folder = run.folder
  before = {path: path.read_bytes() for path in folder.iterdir()}
  frozen = tmp_path / "frozen"
  with mounted(frozen, "--bind", "-o", "ro", folder):
    output = run.fail(f"checkpoint_dir={frozen}")
    assert (
      f"ConfigError: checkpoint_dir='{frozen}': cannot be written" in output
    )
    assert "Read-only file system" in output
    output = run.fail("continue_run=False", f"checkpoint_dir={frozen}/run")
    assert "cannot be made: " in output
  assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_may_not_be_written_is_an_error(run, undisturbed):
  run.kill(at_step(CHECKPOINT_STEPS + 1, 0.0))
  output = run.fail(script=READ_ONLY, args=(str(run.folder),))
  assert f"checkpoint_dir='{run.folder}': cannot be written" in output
  assert "Read-only file system" in output
  run.finish()
  assert_as_undisturbed(run, undisturbed)


# --- Data ---------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["removed", "truncated", "emptied"])
def test_data_that_go_in_mid_run_end_it_and_lose_nothing(
  run, scenes, undisturbed, tmp_path, harm
):
  content = scenes.read_bytes()
  run.data = tmp_path / "scenes.tfrecords"
  run.data.write_bytes(content)
  process = run.start()
  try:
    at_step(CHECKPOINT_STEPS + 1, 0.0)(process)
    if harm == "removed":
      run.data.unlink()
    else:
      os.truncate(run.data, len(content) // 2 if harm == "truncated" else 0)
    output = process.communicate(timeout=300)[0]
  finally:
    process.kill()
  assert process.returncode == 1, output
  assert "Traceback" not in output
  assert re.search(r"Error: step \d+: the data cannot be read", output), output
  assert f"The last good checkpoint is {run.folder}/model.ckpt-" in output
  assert str(run.data) in run.fail()  # as long as they are not there
  run.data.write_bytes(content)
  run.finish()
  assert_as_undisturbed(run, undisturbed)
