"""Settings and fixtures that the tests share."""

import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.places import REAL_SCENES

# A shell that runs the tests in the background has them ignore Ctrl-C, and so
# would every process that they start to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# All of these are read when TensorFlow is imported, here and in the processes
# that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Several test processes may share one GPU.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's code for a processor need not be fast, if it is soon there.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
# Several test processes share the cores, too: with every process using all of
# them, each would wait for the others.
_num_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _num_workers > 1:
  _threads = max(1, (os.cpu_count() or 1) // _num_workers)
  os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(_threads))
  os.environ.setdefault("OMP_NUM_THREADS", str(_threads))


@pytest.fixture(autouse=True)
def _own_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
  """Keeps the tests from a data folder of the person who runs them."""
  monkeypatch.delenv("IODINE_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def mini_tfrecords() -> pathlib.Path:
  """Ten real scenes of Tetrominoes, where they lie beside the checkout."""
  path = REAL_SCENES
  if not path.is_file():
    pytest.skip("needs ../shared/data/tetrominoes_mini.tfrecords")
  return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A folder of data, in which Tetrominoes are a handful."""
  # Here, as tests without TensorFlow start sooner.
  from tests.support import tiny_runs

  folder = tmp_path_factory.mktemp("data")
  path = folder / "tetrominoes_train.tfrecords"
  tiny_runs.write_scenes(path, tiny_runs.NUM_SCENES)
  return folder


@pytest.fixture(scope="module")
def trained(
  data_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
  """The folder of a run of two steps. Not to be changed."""
  from tests.support import tiny_runs

  folder = tmp_path_factory.mktemp("trained")
  words = (f"data_dir={data_dir}", "stop_after_steps=2", "seed=3")
  tiny_runs.run(*tiny_runs.TINY, *words, f"checkpoint_dir={folder}/run")
  return folder / "run_1"


@pytest.fixture(params=["eager", "graph"])
def run_mode(request: pytest.FixtureRequest) -> str:
  """Runs a test twice: once for "eager", once for "graph"."""
  return request.param


@pytest.fixture
def run(run_mode: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Runs a test twice: `run(fn)` is `fn`, then `tf.function(fn)`.

  Example:
    def test_decoder(run):
      decoder = ComponentDecoder(...)
      outputs = run(decoder)(latents)
  """
  if run_mode == "eager":
    return lambda fn: fn
  import tensorflow as tf

  return lambda fn: tf.function(fn)
