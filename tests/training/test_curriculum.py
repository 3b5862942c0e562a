"""Numbers of refinement steps that change during training."""

import re

import numpy as np
import pytest

from iodine import training
from iodine.training import Curriculum
from tests.support import tiny
from tests.support.tiny_runs import TINY_SLATE, TINY_SLOT_ATTENTION, fail, run


@pytest.mark.parametrize(
  "step, expected",
  [(0, 3), (9, 3), (10, 1), (11, 1), (19, 1), (20, 2), (10**9, 2)],
)
def test_the_last_stage_that_has_begun_counts(step, expected):
  assert Curriculum([[0, 3], [10, 1], [20, 2]])(step) == expected


@pytest.mark.parametrize(
  "stages, fault",
  [
    ([], "expected a list of [first step, number of refinement steps], such"),
    (3, "expected a list of [first step, number of refinement steps], such"),
    ("[[0, 3]]", "is text; expected a list of"),
    ([0, 3], "expected a list of [first step,"),
    ([[0, 3, 1]], "expected a list of [first step,"),
    ([[0, 1.5]], "expected a list of [first step,"),
    ([[0, True]], "expected a list of [first step,"),
    ([[0, -1]], "expected a list of [first step,"),
    ([[1, 3]], "the first stage must begin at step 0"),
    ([[0, 3], [9, 2], [9, 1]], "each stage must begin after the one before"),
  ],
)
def test_faults(stages, fault):
  expected = re.escape(f"curriculum={stages!r}: {fault}")
  with pytest.raises(ValueError, match=expected):
    Curriculum(stages)


@pytest.mark.parametrize(
  "options, stages, most_frames, fault",
  [
    ({}, [[0, 2], [5, 0]], None, "at step 5, num_iters=0: expected an integer"),
    ({}, [[0, 1001]], None, "at step 0, num_iters=1001: is too large"),
    (
      {"iter_loss_weight": [0.0, 0.5, 1.0]},
      [[0, 2], [5, 1]],
      None,
      "at step 5, iter_loss_weight=[0.0, 0.5, 1.0]: 3 weights, but num_iters=1 "
      "needs 2",
    ),
    (
      {"sequential": True},
      [[0, 1], [5, 3]],
      3,
      "at step 5, the model needs 4 frames of a scene, but the dataset has 3",
    ),
  ],
)
def test_all_stages_must_suit_the_model(options, stages, most_frames, fault):
  model = tiny.build(**options)
  with pytest.raises(ValueError, match=re.escape(f"{stages}: {fault}")):
    Curriculum(stages).check(model, most_frames)
  assert (model.num_iters, model.num_steps) == (tiny.NUM_ITERS, tiny.S)


def _trainer(num_iters, curriculum=None):
  return training.Trainer(
    tiny.initialized(num_iters=num_iters, factor_evaluator=None),
    training.make_optimizer(3e-3),
    seed=7,
    curriculum=curriculum,
  )


def _move(source, target):
  """Gives a trainer the state of another one."""
  target.initialize((tiny.H, tiny.W, tiny.C), tiny.FACTORS)
  values = tiny.values(source.variables)
  for variable in target.variables:
    variable.assign(values[variable.name])


def test_a_stage_is_training_with_that_number_of_iterations(caplog):
  caplog.set_level("INFO")
  trainer_module = training.Trainer.__module__  # TensorFlow warns of traces
  data = tiny.batch()
  trainer = _trainer(3, Curriculum([[0, 2], [2, 1]]))
  losses = [float(trainer.step(data)["loss/total"]) for _ in range(4)]
  first, second = _trainer(2), _trainer(1)
  expected = [float(first.step(data)["loss/total"]) for _ in range(2)]
  _move(first, second)
  expected += [float(second.step(data)["loss/total"]) for _ in range(2)]
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  # A trainer that takes over within a stage goes on with it.
  again = _trainer(3, Curriculum([[0, 2], [2, 1]]))
  _move(trainer, again)
  np.testing.assert_allclose(
    again.step(data)["loss/total"], second.step(data)["loss/total"], rtol=1e-5
  )
  told = [r.message for r in caplog.records if r.name == trainer_module]
  assert told == [
    "From step 0 on: num_iters=2 in training",
    "From step 2 on: num_iters=1 in training",
    "From step 4 on: num_iters=1 in training",
  ]
  # Evaluation has the number of the configuration.
  info = trainer.model.infer(data)
  assert info["outputs"]["recons"].shape[1] == 3 + 1


@pytest.mark.parametrize("words", [TINY_SLOT_ATTENTION, TINY_SLATE])
def test_other_models_have_stages_too(words, data_dir, tmp_path, caplog):
  caplog.set_level("INFO")
  run(
    *(*words, "seed=3", "curriculum=[[0, 1], [1, 3]]", "stop_after_steps=2"),
    *(f"data_dir={data_dir}", f"checkpoint_dir={tmp_path}/run"),
  )
  assert "From step 0 on: num_iters=1" in caplog.text
  assert "From step 1 on: num_iters=3" in caplog.text


@pytest.mark.parametrize(
  "stages, fault",
  [
    ("[[0, 3], [0, 1]]", "each stage must begin after the one before"),
    ("[[0, 3], [9, 0]]", "at step 9, num_iters=0: expected an integer of at"),
  ],
)
def test_mistakes_are_told_before_any_work(stages, fault, capsys):
  error = fail(capsys, 2, "with", "tetrominoes", f"curriculum={stages}")
  assert error.startswith(f"ConfigError: curriculum={stages}: {fault}")
