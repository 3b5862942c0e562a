"""Tests of benchmarks.gpu_check, on whatever there is, with tiny settings."""

import json

import pytest
import tensorflow as tf

from benchmarks import gpu_check, train_step
from tests.support.places import PARITY


def _measure(config, batch_size, steps, **entries):
  """Stands for a measurement, of a device with memory for 8 images."""
  if batch_size > 8:
    raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
  return {
    "config": config,
    "batch_size": batch_size,
    "images_per_s": 10.0 * batch_size,
    "step_s": 0.1,
    "compile_s": 1.0,
    **entries,
  }


def test_checks_write_a_file_and_print_a_table(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(train_step, "measure", _measure)
  monkeypatch.setattr(gpu_check.devices, "has_avx512", lambda: False)
  monkeypatch.setattr(
    gpu_check, "PARITY_CASES", PARITY / "slot_attention_preprocessing"
  )
  output = tmp_path / "out.json"
  words = ["--config", "tetrominoes", "--batch-sizes", "2", "16"]
  gpu_check.main([*words, "--seconds", "0", "--output", str(output)])
  results = json.loads(output.read_text())
  table = capsys.readouterr().out
  assert results["parity"] == {"slot_attention_preprocessing": True}
  assert "| published code | 1 of 1 cases agree |" in table
  assert "| 2 | tf32 | yes | 0.1 | 20.0 | 1.0 |" in table
  assert "| 16 | float32 | no | skipped: more memory is needed" in table
  assert len(results["steps"]) == 2 * 3 * 2
  if not tf.config.list_physical_devices("GPU"):
    assert "| 2 | bfloat16 | no | skipped: precision='bfloat16'" in table
    assert results["largest_batch"] == {"skipped": "there is no GPU"}
    assert "| GPUs | none |" in table


def test_batches_double_until_one_does_not_fit(monkeypatch):
  monkeypatch.setattr(train_step, "measure", _measure)
  largest = gpu_check._largest_batch(["GPU:0"], "tetrominoes", 2)
  assert largest == {"batch_size": 8, "images_per_s": 80.0}
  none = gpu_check._largest_batch(["GPU:0"], "tetrominoes", 16)
  assert none == {"skipped": "not even 16 images fit"}


def test_two_gpus_share_a_batch(monkeypatch):
  monkeypatch.setattr(train_step, "measure", _measure)
  found = gpu_check._several_gpus(["GPU:0", "GPU:1"], "tetrominoes", 4, 1)
  assert (found["batch_size"], found["strategy"]) == (8, "mirrored")


@pytest.mark.slow
def test_a_step_is_timed_with_xla():
  found = train_step.measure(
    "demo", 1, 1, num_iters=1, num_components=2, xla=True
  )
  assert found["step_s"] > 0
  assert found["xla"]


@pytest.mark.slow
def test_the_demo_is_trained():
  found = gpu_check._training(1.0)
  assert found["status"] == "COMPLETED"
  assert found["steps"] >= 2


def test_errors(capsys):
  for words in (["--steps", "0"], ["--batch-sizes", "0"], ["--seconds", "-1"]):
    with pytest.raises(SystemExit):
      gpu_check.main(words)
    assert "must be at least" in capsys.readouterr().err
