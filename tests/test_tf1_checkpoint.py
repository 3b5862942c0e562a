"""Tests of iodine.tf1_checkpoint; names and values are those of the reference.

See also tests/parity, which reads files that the reference wrote.
"""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from iodine import tf1_checkpoint, training
from tests.support import tiny

_DATA = ".data-00000-of-00001"
_INDEX = ".index"
_BETAS = {"beta1_power": 0.95, "beta2_power": 0.999}
_EVALUATOR = "factor_evaluator/repres_content"
_WEIGHTS = "encoder_net/cnn/mlp/linear_0/w"


def _fresh(**overrides) -> tuple[tf.Module, training.Adam]:
  """Makes a model and an optimizer with the values of a new run."""
  model = tiny.build(**overrides)
  model.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  return model, training.make_optimizer(1e-3)


def _is_adam_state(name: str) -> bool:
  return name in _BETAS or name.endswith(("/Adam", "/Adam_1"))


def _is_moment(name: str) -> bool:
  return "_mean_var/" in name


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
  """A checkpoint of everything, with random values that differ everywhere."""
  model, optimizer = _fresh()
  optimizer.initialize(model.trainable_variables)
  rng = np.random.default_rng(0)
  for variable in (*model.variables, *optimizer.variables):
    if variable.dtype == tf.float32:
      variable.assign(rng.random(variable.shape) + 0.5)
  optimizer.step.assign(12_345_678_901)  # More than 32 bits hold.
  path = str(tmp_path_factory.mktemp("whole") / "model.ckpt")
  tf1_checkpoint.save(path, model, optimizer)
  return path


@pytest.fixture(scope="module")
def values(whole) -> dict[str, np.ndarray]:
  return tiny.read_checkpoint(whole)


@pytest.fixture
def write(tmp_path):
  """Writes a checkpoint of {name: value} and returns its prefix."""

  def write_to_tmp_path(named) -> str:
    path = str(tmp_path / "changed.ckpt")
    tiny.write_checkpoint(path, named)
    return path

  return write_to_tmp_path


@pytest.fixture
def state(tmp_path):
  """Returns {name: value} of a model and an optimizer, as they are saved."""

  def read_state(model, optimizer=None) -> dict[str, np.ndarray]:
    path = str(tmp_path / "state.ckpt")
    tf1_checkpoint.save(path, model, optimizer)
    return tiny.read_checkpoint(path)

  return read_state


def _assert_equal(actual, expected):
  """Compares {name: value} to the bit."""
  assert set(actual) == set(expected)
  for name, value in expected.items():
    assert actual[name].dtype == value.dtype, name
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


# --- Round trips --------------------------------------------------------------


def test_round_trip_keeps_every_bit(whole, values, state):
  model, optimizer = _fresh()
  report = tf1_checkpoint.restore(whole, model, optimizer)
  assert report == (tuple(sorted(values)), (), ())
  _assert_equal(state(model, optimizer), values)
  assert int(optimizer.step) == values["global_step"] == 12_345_678_901
  assert {"mean", "M2", "total"} == {
    name.rpartition("/")[2] for name in values if _is_moment(name)
  }


def test_checkpoint_holds_tf1_variables(values):
  # LSTM: gates in TF1's order in one matrix, inputs before hidden state.
  inputs, hidden = 6 + 2 * 2 * tiny.Z + 1, 8
  weights = values["recurrent_net/lstm/lstm/w_gates"]
  assert weights.shape == (inputs + hidden, 4 * hidden)
  assert values["recurrent_net/lstm/lstm/b_gates"].shape == (4 * hidden,)
  # Sonnet 1's names of the layer norm's variables; one entry per channel.
  norm = "model/iodine/preprocess/layer_norm_dcomponents"
  assert values[f"{norm}/gamma"].shape == (tiny.C,)
  assert values[f"{norm}/beta"].shape == (tiny.C,)
  assert values["model/iodine/initial_sample_distribution"].shape == (
    2 * tiny.Z,
  )
  assert values["global_step"].dtype == np.int64
  others = {v.dtype for k, v in values.items() if k != "global_step"}
  assert others == {np.dtype(np.float32)}
  # Both of Adam's moments for whatever is trained, and for nothing else.
  trained = {
    name for name in values if not _is_adam_state(name) and not _is_moment(name)
  } - {"global_step"}
  slots = {name for name in values if _is_adam_state(name)} - set(_BETAS)
  assert slots == {f"{n}/{s}" for n in trained for s in ("Adam", "Adam_1")}


def test_fresh_state_is_that_of_tf1(state):
  # The forget gate's bias of 1 is added as the LSTM runs.
  model, optimizer = _fresh()
  optimizer.initialize(model.trainable_variables)
  fresh = state(model, optimizer)
  assert np.max(np.abs(fresh["recurrent_net/lstm/lstm/b_gates"])) < 0.9
  assert fresh["global_step"] == 0
  for name, value in fresh.items():
    if name in _BETAS:
      assert value == np.float32(_BETAS[name])
    elif _is_adam_state(name) or _is_moment(name):
      assert not np.any(value), name


def test_layer_norm_and_adam_slots_are_not_mixed_up(whole, values):
  model, optimizer = _fresh()
  tf1_checkpoint.restore(whole, model, optimizer)
  by_name = {v.name: v for v in model.variables}
  norm = "model/iodine/preprocess/layer_norm_dzp"
  for sonnet, tf1 in (("scale", "gamma"), ("offset", "beta")):
    variable = by_name[f"{norm}/{sonnet}:0"]
    slot = optimizer.slots[variable.name]
    expected = values[f"{norm}/{tf1}"]
    np.testing.assert_array_equal(variable, expected)
    np.testing.assert_array_equal(slot["m"], values[f"{norm}/{tf1}/Adam"])
    np.testing.assert_array_equal(slot["v"], values[f"{norm}/{tf1}/Adam_1"])


def test_without_an_optimizer_the_model_alone(whole, values, state):
  model, _ = _fresh()
  report = tf1_checkpoint.restore(whole, model)
  of_optimizer = {
    name for name in values if _is_adam_state(name) or name == "global_step"
  }
  assert report.missing == ()
  assert set(report.unused) == of_optimizer
  assert set(report.found) == set(values) - of_optimizer
  _assert_equal(
    state(model), {k: v for k, v in values.items() if k not in of_optimizer}
  )


def test_restored_model_computes_the_same(tmp_path):
  model = tiny.initialized()
  path = str(tmp_path / "model.ckpt")
  tf1_checkpoint.save(path, model)
  other, _ = _fresh()
  tf1_checkpoint.restore(path, other)
  expected = model.eval(tiny.batch(), noise=tiny.noise())["losses"]
  actual = other.eval(tiny.batch(), noise=tiny.noise())["losses"]
  for key, value in expected.items():
    np.testing.assert_allclose(actual[key], value, rtol=1e-5, err_msg=key)


def test_path_may_be_a_path(whole, values, state):
  model, optimizer = _fresh()
  tf1_checkpoint.restore(pathlib.Path(whole), model, optimizer)
  _assert_equal(state(model, optimizer), values)


# --- What a checkpoint may lack or have beside --------------------------------


def _half_of_the_slots(name: str) -> bool:
  return name.endswith("/Adam_1")


@pytest.mark.parametrize(
  "left_out",
  [_is_adam_state, _half_of_the_slots, lambda name: name == "beta2_power"],
  ids=["all", "half_of_the_slots", "a_power"],
)
def test_incomplete_adam_state_starts_afresh(values, write, state, left_out):
  named = {k: v for k, v in values.items() if not left_out(k)}
  assert len(named) < len(values)
  model, optimizer = _fresh()
  report = tf1_checkpoint.restore(write(named), model, optimizer)

  adam_state = {name for name in values if _is_adam_state(name)}
  assert set(report.missing) == adam_state
  assert set(report.found) == set(values) - adam_state
  assert report.unused == ()
  after = state(model, optimizer)
  assert int(optimizer.step) == values["global_step"]
  for name in values:
    if name in _BETAS:
      assert after[name] == np.float32(_BETAS[name])
    elif name in adam_state:
      assert not np.any(after[name]), name
    else:
      np.testing.assert_array_equal(after[name], values[name], err_msg=name)


def test_incomplete_adam_state_clears_an_optimizer_that_was_used(
  values, write, state
):
  model, optimizer = _fresh()
  optimizer.initialize(model.trainable_variables)
  for variable in optimizer.variables:
    variable.assign(tf.ones_like(variable))
  named = {k: v for k, v in values.items() if not k.endswith("/Adam")}
  tf1_checkpoint.restore(write(named), model, optimizer)
  after = state(model, optimizer)
  assert after["beta1_power"] == np.float32(0.95)
  assert not np.any(after[f"{_WEIGHTS}/Adam_1"])


def test_missing_step_is_zero(values, write, state):
  model, optimizer = _fresh()
  named = {k: v for k, v in values.items() if k != "global_step"}
  report = tf1_checkpoint.restore(write(named), model, optimizer)
  assert report.missing == ("global_step",)
  assert int(optimizer.step) == 0
  _assert_equal(state(model, optimizer), {**values, "global_step": np.int64(0)})


def test_missing_moments_start_afresh(values, write, state):
  model, optimizer = _fresh()
  named = {k: v for k, v in values.items() if not _is_moment(k)}
  report = tf1_checkpoint.restore(write(named), model, optimizer)
  assert set(report.missing) == set(values) - set(named)
  assert set(report.found) == set(named)
  after = state(model, optimizer)
  zeros = {k: np.zeros_like(values[k]) for k in report.missing}
  _assert_equal(after, {**named, **zeros})


def test_missing_factor_evaluator_starts_afresh(values, write, state):
  model, _ = _fresh()
  before = state(model)
  named = {
    name: value
    for name, value in values.items()
    if not name.startswith("factor_evaluator/")
  }
  report = tf1_checkpoint.restore(write(named), model)
  missing = {name for name in before if name.startswith("factor_evaluator/")}
  assert f"{_EVALUATOR}/predict_latents/w" in missing
  assert set(report.missing) == missing
  after = state(model)
  for name in after:
    expected = before if name in missing else values
    np.testing.assert_array_equal(after[name], expected[name], err_msg=name)


def test_checkpoint_without_factor_evaluator_keeps_no_half_of_adam(
  values, write, state
):
  named = {
    name: value
    for name, value in values.items()
    if not name.startswith("factor_evaluator/")
  }
  model, optimizer = _fresh()
  tf1_checkpoint.restore(write(named), model, optimizer)
  assert not np.any(state(model, optimizer)[f"{_WEIGHTS}/Adam"])
  # The same file is complete for a model without an evaluator.
  model, optimizer = _fresh(factor_evaluator=None)
  report = tf1_checkpoint.restore(write(named), model, optimizer)
  assert report == (tuple(sorted(named)), (), ())
  _assert_equal(state(model, optimizer), named)


def test_other_variables_are_reported_unused(values, write, state):
  extra = {
    "dataset/shuffle_seed": np.int32(3),
    f"{_WEIGHTS}/ExponentialMovingAverage": values[_WEIGHTS],
  }
  model, optimizer = _fresh()
  path = write({**values, **extra})
  report = tf1_checkpoint.restore(path, model, optimizer)
  assert report == (tuple(sorted(values)), (), tuple(sorted(extra)))
  _assert_equal(state(model, optimizer), values)


def test_other_variables_may_be_strings(values, write, state):
  # As TF2 puts its object graph beside the variables.
  extra = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"graph")}
  model, optimizer = _fresh()
  path = write({**values, **extra})
  report = tf1_checkpoint.restore(path, model, optimizer)
  assert report.unused == tuple(extra)
  _assert_equal(state(model, optimizer), values)


# --- Errors -------------------------------------------------------------------


@pytest.fixture
def fails(state):
  """Checks that restoring is a CheckpointError and changes nothing."""

  def restore(path, *fragments: str) -> str:
    model, optimizer = _fresh()
    optimizer.initialize(model.trainable_variables)
    before = state(model, optimizer)
    with pytest.raises(tf1_checkpoint.CheckpointError) as error:
      tf1_checkpoint.restore(path, model, optimizer)
    message = str(error.value)
    for fragment in (str(path), *fragments):
      assert fragment in message
    _assert_equal(state(model, optimizer), before)
    return message

  return restore


def test_missing_variables_are_all_listed(values, write, fails):
  missing = [_WEIGHTS, "model/iodine/initial_sample_distribution"]
  named = {k: v for k, v in values.items() if k not in missing}
  message = fails(write(named), "Not in the checkpoint:", *missing)
  assert "conv_2d_0" not in message


def test_misfits_are_all_listed_with_both_shapes(values, write, fails):
  changes = {
    _WEIGHTS: [5, 7],
    "model/iodine/initial_sample_distribution": [12],
    f"{_EVALUATOR}/predict_latents/b": [],
    "pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_1/w/Adam": [3, 3, 4],
  }
  zeros = {k: np.zeros(shape, np.float32) for k, shape in changes.items()}
  lines = [
    f"  {name}: {shape} in the checkpoint, {list(values[name].shape)} in the "
    f"model"
    for name, shape in changes.items()
  ]
  message = fails(write({**values, **zeros}), "Shapes or types differ:", *lines)
  assert message.count("in the checkpoint,") == len(changes)


def test_missing_and_misfitting_variables_are_listed_together(
  values, write, fails
):
  named = {k: v for k, v in values.items() if k != _WEIGHTS}
  name = "encoder_net/cnn/mlp/linear_0/b"
  named[name] = np.zeros([7], np.float32)
  line = f"  {name}: [7] in the checkpoint, [6] in the model"
  fails(write(named), line, f"Not in the checkpoint:\n  {_WEIGHTS}")


def test_checkpoint_of_another_architecture(whole, tmp_path):
  model = tiny.build(n_z=tiny.Z + 1)
  model.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  name = "model/iodine/initial_sample_distribution"
  line = f"{name}: [10] in the checkpoint, [12] in the model"
  with pytest.raises(tf1_checkpoint.CheckpointError, match=re.escape(line)):
    tf1_checkpoint.restore(whole, model)


@pytest.fixture
def copy(whole, tmp_path):
  """A checkpoint whose files may be broken."""
  path = str(tmp_path / "copy.ckpt")
  for suffix in (_DATA, _INDEX):
    shutil.copy(whole + suffix, path + suffix)
  return path


@pytest.mark.parametrize("suffix", [_DATA, _INDEX])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.9999])
def test_truncated_files(copy, fails, suffix, kept):
  size = os.path.getsize(copy + suffix)
  os.truncate(copy + suffix, int(size * kept))
  fails(copy)


@pytest.mark.parametrize("suffix", [_DATA, _INDEX])
def test_corrupt_files(copy, fails, suffix):
  path = pathlib.Path(copy + suffix)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)
  fails(copy)


@pytest.mark.parametrize("suffix", [_DATA, _INDEX])
def test_one_file_of_the_pair_is_missing(copy, fails, suffix):
  os.remove(copy + suffix)
  fails(copy, "Expected the prefix of a pair")


def test_what_is_no_checkpoint(tmp_path, fails):
  fails(str(tmp_path / "nowhere" / "model.ckpt"), "cannot be read")
  (tmp_path / "folder").mkdir()
  fails(str(tmp_path / "folder"), "cannot be read")
  (tmp_path / "empty").touch()
  fails(str(tmp_path / "empty"), "cannot be read")
  (tmp_path / "text").write_text("not a checkpoint\n" * 99)
  fails(str(tmp_path / "text"), "cannot be read")


def test_checkpoint_of_a_tf2_run(tmp_path, fails):
  model, optimizer = _fresh()
  trainer = training.Trainer(model, optimizer)
  path = tf.train.Checkpoint(trainer=trainer).write(str(tmp_path / "tf2.ckpt"))
  fails(path, "Not in the checkpoint:", _WEIGHTS)


def test_model_without_variables(whole, tmp_path):
  model = tiny.build()
  message = "has no variables yet: call it once, or `initialize`"
  with pytest.raises(ValueError, match=message):
    tf1_checkpoint.restore(whole, model)
  with pytest.raises(ValueError, match=message):
    tf1_checkpoint.save(str(tmp_path / "model.ckpt"), model)
