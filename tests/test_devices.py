"""Tests of iodine.devices."""

import pytest
import tensorflow as tf

from iodine import devices
from iodine.config import parsing, reading, resolution
from iodine.errors import ConfigError
from iodine.runs import loading
from tests.support.tiny_runs import TINY, TINY_SLOT_ATTENTION, fail


def _cpuinfo(monkeypatch, tmp_path, flags):
  path = tmp_path / "cpuinfo"
  path.write_text(f"flags : {flags}\n")
  monkeypatch.setattr(devices, "_CPUINFO", path)


@pytest.fixture
def tf32():
  """Whether TF32 is allowed, as a function; TensorFlow's default afterwards."""
  yield tf.config.experimental.tensor_float_32_execution_enabled
  tf.config.experimental.enable_tensor_float_32_execution(True)


@pytest.mark.parametrize(
  "precision, allowed",
  [("float32", False), ("tf32", True), ("bfloat16", False)],
)
def test_tf32_is_a_choice(precision, allowed, tf32):
  tf.config.experimental.enable_tensor_float_32_execution(not allowed)
  devices.set_up(precision)
  assert tf32() == allowed


def test_runs_share_gpus(monkeypatch, tf32):
  grows = []

  def set_memory_growth(gpu, enable):
    if gpu == "GPU:0":
      raise RuntimeError("it has been initialised")
    grows.append((gpu, enable))

  gpus = ["GPU:0", "GPU:1"]
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
  monkeypatch.setattr(
    tf.config.experimental, "set_memory_growth", set_memory_growth
  )
  devices.set_up("float32")
  assert grows == [("GPU:1", True)]


def test_processors_are_told_apart(monkeypatch, tmp_path):
  for flags, expected in (("fma avx2", False), ("avx2 avx512f", True)):
    _cpuinfo(monkeypatch, tmp_path, flags)
    assert devices.has_avx512() == expected
  monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "none")
  assert devices.has_avx512()  # as far as one can know


def test_gradients_in_bfloat16_need_avx512_or_a_gpu(monkeypatch, tmp_path):
  _cpuinfo(monkeypatch, tmp_path, "fma avx2")
  devices.check_training("float32")
  with pytest.raises(ConfigError, match="no AVX-512, .*Set precision=float32"):
    devices.check_training("bfloat16")
  gpus = ["GPU:0"]
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
  devices.check_training("bfloat16")


# --- Commands -----------------------------------------------------------------


def test_training_in_bfloat16_ends_before_it_begins(
  data_dir, tmp_path, monkeypatch, capsys
):
  _cpuinfo(monkeypatch, tmp_path, "fma avx2")
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run")
  error = fail(capsys, 2, *words, "precision=bfloat16")
  assert "precision='bfloat16': this processor has no AVX-512" in error
  assert not list(tmp_path.glob("run*"))


def test_models_without_bfloat16_say_so(capsys):
  error = fail(capsys, 2, *TINY_SLOT_ATTENTION, "precision=bfloat16")
  assert "this model does not compute in it; set precision=float32" in error


def test_commands_set_the_devices_up(trained, data_dir, tf32):
  assert not tf32()  # training, in float32, did
  words = (*TINY, f"data_dir={data_dir}", f"checkpoint_dir={trained}")
  given, _ = parsing.parse_words([*words[2:], "precision=tf32"])
  entries = reading.named_configs()[TINY[1]]
  loading.open_trained(resolution.resolve(entries, given))
  assert tf32()
