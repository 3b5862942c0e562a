"""Tests of iodine.compiling: what XLA compiles gives what TensorFlow gives."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.train_step import random_batch
from iodine import compiling, training
from iodine.config import parsing, reading, resolution
from iodine.errors import ConfigError
from iodine.evaluation import efficient_morl
from iodine.evaluation import scores as scoring
from iodine.runs import loading
from iodine.training.replicas import Distribution
from tests.support import tiny, tiny_runs

_BATCH = 2
_SMALL = ("num_iters=1", f"batch_size={_BATCH}")  # every operation takes time
_SETS = (
  "with",
  "slot_attention_clevr10_properties",
  "image_dim=[9,7]",
  "n_z=6",
  "num_components=3",
  "model.encoder.output_channels=[4]",
  "model.encoder.kernel_shapes=[3]",
  "model.encoder.strides=[2]",
  "model.encoder.mlp_sizes=[5, 5]",
)
_SLOW = pytest.mark.slow
_FAMILIES = [
  pytest.param(tiny_runs.TINY, id="iodine"),
  pytest.param(tiny_runs.TINY_SLOT_ATTENTION, id="slot_attention", marks=_SLOW),
  pytest.param(_SETS, id="set_prediction", marks=_SLOW),
  pytest.param(
    (*tiny_runs.TINY_SLATE, "image_dim=[8,4]"), id="slate", marks=_SLOW
  ),
  pytest.param(tiny_runs.TINY_GNM, id="gnm", marks=_SLOW),
  pytest.param(tiny_runs.TINY_EFFICIENT_MORL, id="efficient_morl", marks=_SLOW),
]
# A few hundred float32 operations, in another order.
_TOLERANCE = {"rtol": 2e-3, "atol": 1e-4}


def _build(words):
  """Dataset, model and optimizer of a command line."""
  _, name, *overrides = words
  given, _ = parsing.parse_words(overrides)
  entries = resolution.resolve(reading.named_configs()[name], given)
  return resolution.build(entries)


def _trained(words, xla, accumulate=1):
  """The trainer after two steps, a batch, and what the steps told."""
  tf.random.set_seed(0)
  dataset, model, optimizer = _build(words)
  distribution = Distribution(accumulate)
  trainer = training.Trainer(model, optimizer, 0, distribution, xla=xla)
  loading.initialize(trainer, dataset)
  batch = random_batch(dataset.batch_spec(dataset.batch_size))
  steps = [trainer.step(batch) for _ in range(2)]
  return trainer, batch, [{k: float(v) for k, v in x.items()} for x in steps]


def _check_alike(actual, expected):
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, **_TOLERANCE, err_msg=name)


@pytest.mark.parametrize("words", _FAMILIES)
def test_training_and_evaluation_agree(words):
  _, _, expected = _trained((*words, *_SMALL), xla=False)
  trainer, batch, steps = _trained((*words, *_SMALL), xla=True)
  for actual, plain in zip(steps, expected, strict=True):
    _check_alike(actual, plain)
  of_xla, plain = (
    scoring.evaluate(trainer.model, [batch], _BATCH, seed=0, xla=xla).scores
    for xla in (True, False)
  )
  _check_alike(
    *({k: v.per_step for k, v in x.items()} for x in (of_xla, plain))
  )


@pytest.mark.slow
def test_sub_batches_agree():
  words = (*tiny_runs.TINY_SLOT_ATTENTION, *_SMALL)
  *_, expected = _trained(words, xla=False, accumulate=2)
  *_, steps = _trained(words, xla=True, accumulate=2)
  for actual, plain in zip(steps, expected, strict=True):
    _check_alike(actual, plain)


@pytest.mark.slow
def test_scores_by_the_protocol_of_efficient_morl_agree():
  batch = tiny.batch(_BATCH, without=("visibility", "factors"))
  larger = tf.repeat(tf.repeat(batch["mask"], 2, axis=3), 3, axis=4)
  model = tiny.initialized(factors={}, factor_evaluator=None, num_iters=1)
  of_xla, plain = (
    scoring.evaluate(
      model,
      [{**batch, "mask": larger}],
      _BATCH,
      seed=0,
      protocol=efficient_morl.PROTOCOL,
      xla=xla,
    ).scores
    for xla in (True, False)
  )
  _check_alike(
    *({k: v.per_step for k, v in x.items()} for x in (of_xla, plain))
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", reading.named_configs())
def test_xla_takes_all_operations_of_a_configuration(name):
  configs = reading.named_configs()
  config = configs[name]
  if name == "slate_shapes3d":  # The sizes are in its data file.
    config |= {k: configs["folder"][k] for k in ("data", "image_dim")}
  entries = resolution.resolve(config, {"batch_size": 1, "curriculum": None})
  dataset, model, optimizer = resolution.build(entries)
  if model.can("set_num_iters"):
    model.set_num_iters(min(model.num_iters, 2))
  trainer = training.Trainer(model, optimizer, 0, xla=True)
  loading.initialize(trainer, dataset)
  batch = random_batch(dataset.batch_spec(1))
  noise = model.noise([np.random.default_rng(0)])
  measure = compiling.compiled(
    lambda *args: scoring.OWN.measure(model, *args), xla=True
  )
  for compiled, args in (
    (trainer._gradients_of_part, (0, batch, None)),
    (measure, (batch, noise)),
  ):
    # Without the processor's code, which takes most of the time.
    program = compiled.experimental_get_compiler_ir(*args)(stage="hlo")
    assert "ENTRY" in program


# --- Arithmetic ---------------------------------------------------------------


@pytest.mark.parametrize("allowed", [False, True])
def test_xla_multiplies_in_tf32_only_where_it_is_allowed(allowed):
  multiply = compiling.compiled(lambda a, b: tf.matmul(a, b), xla=True)
  args = [tf.ones([2, 3]), tf.ones([3, 2])]
  tf.config.experimental.enable_tensor_float_32_execution(allowed)
  try:
    program = multiply.experimental_get_compiler_ir(*args)(stage="hlo")
  finally:
    tf.config.experimental.enable_tensor_float_32_execution(True)
  assert ("operand_precision={highest,highest}" in program) != allowed


# --- Errors -------------------------------------------------------------------


def test_what_is_traced_knows_of_xla():
  seen = []

  def function(x):
    seen.append(compiling.is_for_xla())
    return x + 1

  for xla in (True, False):
    assert compiling.compiled(function, xla)(tf.constant(1)) == 2
  assert seen == [True, False]
  assert not compiling.is_for_xla()


def test_what_xla_cannot_compile_is_told():
  compiling.check_xla()
  function = lambda x: tf.numpy_function(np.sin, [x], tf.float32)
  call = compiling.compiled(function, xla=True)
  with (
    pytest.raises(ConfigError, match="xla=True: XLA cannot .*Set it to False"),
    compiling.xla_errors_explained(),
  ):
    call(tf.ones([2]))
  with pytest.raises(tf.errors.OpError), compiling.xla_errors_explained(False):
    call(tf.ones([2]))


def test_a_device_without_xla_is_told(monkeypatch):
  def fails(*_, **__):
    raise tf.errors.InternalError(
      None, None, "libdevice not found at ./libdevice.10.bc"
    )

  monkeypatch.setattr(tf, "exp", fails)
  with pytest.raises(ConfigError, match=r"libdevice not found .*Set it to"):
    compiling.check_xla()
