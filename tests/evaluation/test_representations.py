"""Tests of iodine.evaluation.representations."""

import numpy as np
import pytest
import tensorflow as tf

from iodine import exploration
from iodine.errors import ConfigError, RunError
from iodine.evaluation import representations
from tests.support import tiny


def _boxes(*boxes):
  """Masks [1, n, 40, 40] of boxes (top, bottom, left, right)."""
  masks = np.zeros([1, len(boxes), 40, 40], bool)
  for mask, (top, bottom, left, right) in zip(masks[0], boxes, strict=True):
    mask[top:bottom, left:right] = True
  return masks


def test_overlaps_are_of_the_pixels_that_slots_own():
  true = _boxes((0, 10, 0, 10), (20, 40, 0, 40), (0, 0, 0, 0))
  pred = np.stack([np.full([40, 40], 0.4), np.zeros([40, 40])])[np.newaxis]
  pred[0, 1, 0:10, 5:15] = 0.6
  expected = [[50 / 1550, 50 / 150], [800 / 1500, 0], [0, 0]]
  actual = representations.overlaps(true, pred)
  np.testing.assert_allclose(actual, [expected], rtol=1e-6)


def test_cosines_are_of_soft_masks():
  rng = np.random.default_rng(0)
  true = rng.uniform(size=[2, 3, 5, 4]) < 0.5
  true[1, 2] = False
  pred = rng.uniform(size=[2, 6, 5, 4])
  actual = representations.cosines(true, pred)
  for b, i, k in np.ndindex(2, 3, 6):
    norm = np.linalg.norm(true[b, i]) * np.linalg.norm(pred[b, k])
    product = np.sum(true[b, i] * pred[b, k])
    np.testing.assert_allclose(actual[b, i, k], product / (norm + 1e-6), 1e-5)


def _batches(num_scenes, size, scale=1):
  """Batches whose masks have `scale` times the model's height and width."""
  data = tiny.batch(num_scenes)
  mask = data["mask"].numpy().repeat(scale, axis=3).repeat(scale, axis=4)
  data = {**data, "mask": tf.constant(mask)}
  return [
    tf.nest.map_structure(lambda x, i=i: x[i : i + size], data)
    for i in range(0, num_scenes, size)
  ]


def test_codes_are_posterior_means_and_masks_are_theirs():
  model = tiny.initialized(inner_batch_size=2)
  counts: list[int] = []
  batches = _batches(5, 2, scale=4)
  scenes = representations.infer(
    model, batches, 7, num_sampled=3, on_progress=counts.append
  )
  assert counts == [2, 2, 1]
  info = exploration.infer(model, tiny.batch(5), 7, scenes=range(5))
  means = info["latent"]["z_mean"][:, -1]
  np.testing.assert_allclose(scenes.codes, means, rtol=1e-3, atol=1e-5)
  samples = info["latent"]["z"][:3, -1]
  np.testing.assert_allclose(scenes.samples, samples, rtol=1e-3, atol=1e-5)
  visible = tiny.batch(5)["visibility"].numpy() > 0
  visible[:, 0] = False  # the background
  np.testing.assert_array_equal(scenes.is_object, visible)
  true = tiny.batch(5)["mask"].numpy()[:, 0, ..., 0]
  np.testing.assert_array_equal(scenes.pixels, 16 * true.sum(axis=(2, 3)))
  masks = exploration.render(model, means).masks[..., 0]
  masks = tf.image.resize(
    np.moveaxis(masks, 1, -1), [4 * tiny.H, 4 * tiny.W], "bicubic"
  )
  large = true.repeat(4, axis=2).repeat(4, axis=3) > 0
  measures = (large, np.moveaxis(masks.numpy(), -1, 1))
  np.testing.assert_allclose(
    scenes.iou, representations.overlaps(*measures), atol=2e-3
  )
  np.testing.assert_allclose(
    scenes.cosine, representations.cosines(*measures), rtol=1e-3
  )


def test_a_part_has_some_scenes_and_all_samples():
  model = tiny.initialized(inner_batch_size=2)
  scenes = representations.infer(model, _batches(4, 4), 0, num_sampled=3)
  part = scenes.part(1, 3)
  np.testing.assert_array_equal(part.codes, scenes.codes[1:3])
  np.testing.assert_array_equal(
    part.factors["shape"], scenes.factors["shape"][1:3]
  )
  assert len(part.samples) == 3


def test_modified_objects_can_be_left_out():
  data = tiny.batch(3)
  modified = np.zeros(data["visibility"].shape, np.float32)
  modified[:, 1] = 1.0
  shifted = {"modified": tf.constant(modified)}
  data["visibility"] = tf.tensor_scatter_nd_update(
    data["visibility"], [[2, 1]], [0.0]
  )
  model = tiny.initialized(inner_batch_size=2)
  plain = representations.infer(model, [data], 0)
  assert not plain.is_modified.any()
  scenes = representations.infer(model, [{**data, **shifted}], 0)
  np.testing.assert_array_equal(scenes.is_object, plain.is_object)
  expected = [True, True, False]  # the last is not visible
  np.testing.assert_array_equal(scenes.is_modified[:, 1], expected)
  assert scenes.is_modified.sum() == 2
  others = scenes.without_modified()
  assert not others.is_modified.any() and not others.is_object[:, 1].any()
  np.testing.assert_array_equal(others.is_object[:, 2:], plain.is_object[:, 2:])


def test_data_without_factors_are_an_error():
  scenes = {**tiny.batch(2), "factors": {}}
  with pytest.raises(ConfigError, match="no factors of objects"):
    representations.infer(tiny.initialized(), [scenes], seed=0)


def test_a_model_without_masks_has_none_to_match_by(monkeypatch):
  model = tiny.initialized()
  whole = model.infer
  monkeypatch.setattr(
    model, "infer", lambda *data: {**whole(*data), "outputs": {}}
  )
  monkeypatch.setattr(model, "can", lambda method: False)
  scenes = representations.infer(model, _batches(2, 2), 0)
  assert scenes.iou is None and scenes.cosine is None
  assert scenes.part(0, 1).iou is None
  with pytest.raises(ConfigError, match="match_by=mask: a IODINE has no masks"):
    representations.infer(model, _batches(2, 2), 0, needs_masks=True)


def test_latents_that_are_not_finite_are_an_error():
  model = tiny.initialized()
  model.trainable_variables[0].assign(np.nan * model.trainable_variables[0])
  with pytest.raises(RunError, match="of scenes 1 to 2, .* not finite"):
    representations.infer(model, _batches(2, 2), seed=0)
