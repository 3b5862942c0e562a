"""Tests of iodine.metrics, against counts in NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics

from iodine import metrics

B, L, K, H, W, C = 5, 6, 4, 9, 7, 3


def _true_masks(rng, entities=L, least=1):
  """[B, L, H, W, 1]; later scenes lack their last entities but the least."""
  ids = np.stack(
    [rng.integers(max(least, entities - i), size=[H, W]) for i in range(B)]
  )
  one_hot = ids[:, None] == np.arange(entities).reshape(1, -1, 1, 1)
  return one_hot[..., None].astype(np.float32), ids


def _pred_masks(rng, ids, slots=K):
  """[B, slots, H, W, 1] probabilities that follow the true ids in part."""
  scores = rng.random([B, slots, H, W])
  follows = ids[:, None] % slots == np.arange(slots).reshape(1, -1, 1, 1)
  scores += 0.7 * follows
  scores /= scores.sum(1, keepdims=True)
  return scores[..., None].astype(np.float32)


def _scores(true_mask, pred_mask, background):
  """One scene, by all ways to pair its entities with segments."""
  true = true_mask[..., 0].reshape(len(true_mask), -1) > 0
  labels = pred_mask[..., 0].argmax(0).ravel()
  pred = labels == np.arange(len(pred_mask))[:, None]
  pred &= true.any(0)
  count = max(len(true), len(pred))
  true, pred = (
    np.concatenate([x, np.zeros([count - len(x), x.shape[1]], bool)])
    for x in (true, pred)
  )
  compare = lambda score: np.array(
    [[score(t, p, zero_division=0) for p in pred] for t in true]
  )
  iou = compare(sklearn_metrics.jaccard_score)
  dice = compare(sklearn_metrics.f1_score)
  rows = np.arange(count)
  present = true.any(1)
  is_pair = lambda order: present | pred.any(1)[list(order)]
  order = list(
    max(
      itertools.permutations(range(count)),
      # Of equally good ones, that with the fewest pairs.
      key=lambda o: (round(iou[rows, list(o)].sum(), 9), -is_pair(o).sum()),
    )
  )
  objects = rows >= background
  pairs = is_pair(order).sum()
  object_pairs = pairs - (present & ~objects).sum()
  size = true.sum(1) * objects
  best = iou.max(1)
  with np.errstate(invalid="ignore"):
    return {
      "miou": iou[rows, order].sum() / pairs,
      "miou_nobg": iou[rows, order][objects].sum() / object_pairs,
      "dice": dice[rows, order].sum() / pairs,
      "dice_nobg": dice[rows, order][objects].sum() / object_pairs,
      "sc": (best * size).sum() / size.sum(),
      "covering": (best * (size > 0)).sum() / (size > 0).sum(),
      "segment_count": float(present.sum() == pred.any(1).sum())
      if present.any()
      else np.nan,
    }


def _check_scores(run, true_mask, pred_mask, background):
  """Compares all scores with those of `_scores`, and returns them."""
  actual = run(lambda *masks: metrics.segmentation_scores(*masks, background))(
    tf.constant(true_mask), tf.constant(pred_mask)
  )
  expected = [
    _scores(t, p, background) for t, p in zip(true_mask, pred_mask, strict=True)
  ]
  assert actual.keys() == expected[0].keys()
  for name, values in actual.items():
    wanted = [scene[name] for scene in expected]
    # Counts are exact in float32; divisions and a sum of a few remain.
    np.testing.assert_allclose(values, wanted, 1e-6, err_msg=name)
  return {name: values.numpy() for name, values in actual.items()}


@pytest.mark.parametrize("background", [1, 2, 4])
def test_segmentation_scores_agree_with_scikit_learn(run, background):
  rng = np.random.default_rng(background)
  true_mask, ids = _true_masks(rng)
  pred_mask = _pred_masks(rng, ids)
  scores = _check_scores(run, true_mask, pred_mask, background)
  for name in ("covering", "sc"):
    assert np.isnan(scores[name]).any() == (background > 1)
  assert not np.isnan(scores["miou"]).any()


def test_segments_of_entities(run):
  # Entity 3 is nowhere; entity 1 has a pixel of the segment of entity 0 alone.
  true = np.array([[0, 0, 0, 1, 2, 2], [2, 2, 1, 1, 0, 0]])
  segments = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 2, 1, 1, 1]])
  masks = [
    np.eye(size, dtype=np.float32)[x].transpose(0, 2, 1)[:, :, None, :, None]
    for size, x in ((4, true), (3, segments))
  ]
  actual = run(metrics.matched_segments)(*masks)
  np.testing.assert_array_equal(actual, [[1, -1, 0, -1], [1, 2, 0, -1]])


@pytest.mark.parametrize("entities, slots", [(3, 6), (6, 3), (4, 4)])
def test_segmentation_scores_of_any_numbers(run, entities, slots):
  rng = np.random.default_rng(entities)
  true_mask, ids = _true_masks(rng, entities)
  pred_mask = _pred_masks(rng, ids, slots)
  pred_mask[1, -1] = 0.0  # a slot without a pixel
  pred_mask[2, 1:] = 0.0  # a single segment
  _check_scores(run, true_mask, pred_mask, 1)


def _stripes(*labels, count):
  """[1, count, 1, W, 1] masks of one row of pixels; of negative labels none."""
  masks = np.array(labels)[None] == np.arange(count)[:, None]
  return masks.reshape(1, count, 1, -1, 1).astype(np.float32)


def test_superfluous_segments_lower_the_scores_of_pairs(run):
  true = _stripes(*(0, 0, 0, 0, 1, 1, 2, 2), count=4)
  split = _stripes(*(0, 0, 3, 4, 1, 1, 2, 2), count=6)
  scores = _check_scores(run, true, split, 1)
  # Five segments for three entities, both objects perfect.
  np.testing.assert_allclose(scores["miou"], [(1 / 2 + 1 + 1) / 5])
  np.testing.assert_allclose(scores["miou_nobg"], [2 / 4])
  np.testing.assert_allclose(scores["dice"], [(2 / 3 + 1 + 1) / 5], 1e-6)
  np.testing.assert_allclose(scores["dice_nobg"], [2 / 4])
  assert scores["sc"] == scores["covering"] == 1
  assert scores["segment_count"] == 0


def test_leftovers_are_paired_whatever_their_order(run):
  # One segment has both objects; the background is split in two.
  true = _stripes(*(0, 0, 0, 0, 1, 1, 2, 2), count=6)
  for slots in ([0, 1, 2], [5, 0, 3], [2, 4, 1]):
    labels = np.take(slots, [0, 0, 0, 1, 2, 2, 2, 2])
    scores = _check_scores(run, true, _stripes(*labels, count=6), 1)
    np.testing.assert_allclose(scores["miou"], [(3 / 4 + 1 / 2) / 3], 1e-6)
    np.testing.assert_allclose(scores["miou_nobg"], [1 / 4], 1e-6)
    assert scores["segment_count"] == 1


def test_one_segment_may_cover_several_objects(run):
  true = _stripes(*(0, 0, 0, 0, 1, 1, 1, 2), count=3)
  merged = _stripes(*(0, 0, 0, 0, 1, 1, 1, 1), count=3)
  scores = _check_scores(run, true, merged, 1)
  np.testing.assert_allclose(scores["covering"], [(3 / 4 + 1 / 4) / 2])
  np.testing.assert_allclose(scores["sc"], [(3 * 3 / 4 + 1 / 4) / 4])
  np.testing.assert_allclose(scores["miou_nobg"], [3 / 4 / 2])


def test_objects_room_has_four_background_entities(run):
  true = _stripes(*(0, 0, 1, 1, 2, 3, 4, 4, 5, -1), count=7)
  pred = _stripes(*(0, 0, 0, 0, 0, 0, 1, 1, 2, 2), count=4)
  scores = _check_scores(run, true, pred, 4)
  for name in ("miou_nobg", "dice_nobg", "sc", "covering"):
    assert scores[name] == 1
  assert scores["miou"] < 0.5
  assert scores["segment_count"] == 0


def test_a_scene_without_objects(run):
  true = _stripes(*(0, 0, 0, 0), count=3)
  scores = _check_scores(run, true, _stripes(*(1, 1, 1, 1), count=2), 1)
  nothing = {"miou_nobg", "dice_nobg", "sc", "covering"}
  assert {name for name in scores if np.isnan(scores[name])} == nothing
  assert scores["miou"] == scores["segment_count"] == 1
  scores = _check_scores(run, true, _stripes(*(1, 1, 1, 0), count=2), 1)
  assert scores["miou_nobg"] == 0  # superfluous


def test_a_scene_of_objects_alone(run):
  true = _stripes(*(1, 1, 2, 2), count=3)
  scores = _check_scores(run, true, _stripes(*(0, 0, 1, 1), count=2), 1)
  assert all(scores[name] == 1 for name in scores)


def test_nothing_is_defined_where_no_pixel_belongs_to_an_entity(run):
  true = _stripes(*(-1, -1, -1), count=3)
  scores = _check_scores(run, true, _stripes(*(0, 1, 1), count=2), 1)
  assert all(np.isnan(scores[name]) for name in scores)


def test_a_perfect_decomposition_has_the_highest_scores():
  true_mask, _ = _true_masks(np.random.default_rng(0))
  scores = metrics.segmentation_scores(true_mask, true_mask, 1)
  for values in scores.values():
    np.testing.assert_allclose(values, np.ones(B), rtol=1e-6)


def test_scores_over_many_scenes_need_a_mask_at_a_time():
  # [B, H * W, L, K] would be 52 MB here.
  sizes = [8, 8, 64, 64, 1]
  function = tf.function(
    lambda *masks: metrics.segmentation_scores(*masks, 1)
  ).get_concrete_function(*[tf.TensorSpec(sizes)] * 2)
  largest = max(
    output.shape.num_elements() or 0
    for operation in function.graph.get_operations()
    for output in operation.outputs
    if output.shape.rank is not None
  )
  assert largest <= np.prod(sizes)


@pytest.mark.parametrize("background", [1, 2])
def test_rand_indices_agree_with_scikit_learn(run, background):
  rng = np.random.default_rng(1)
  true_mask, ids = _true_masks(rng, entities=7, least=4)
  pred_mask = _pred_masks(rng, ids)
  indices = run(
    lambda *masks: metrics.adjusted_rand_indices(*masks, background)
  )(true_mask, pred_mask)
  assert set(indices) == {"ari", "ari_nobg"}
  segments = pred_mask[..., 0].argmax(1)
  for i in range(B):
    objects = ids[i] >= background
    expected = {
      "ari": sklearn_metrics.adjusted_rand_score(
        ids[i].ravel(), segments[i].ravel()
      ),
      "ari_nobg": sklearn_metrics.adjusted_rand_score(
        ids[i][objects], segments[i][objects]
      ),
    }
    assert expected["ari"] != pytest.approx(expected["ari_nobg"], abs=1e-4)
    for name, value in expected.items():
      np.testing.assert_allclose(indices[name][i], value, atol=1e-5)


def test_mean_squared_error_is_per_image(run):
  rng = np.random.default_rng(2)
  image, recons = rng.random([2, B, H, W, C]).astype(np.float32)
  expected = ((image - recons).astype(np.float64) ** 2).mean((1, 2, 3))
  actual = run(metrics.mean_squared_error)(image, recons)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_frame():
  sequence = tf.reshape(tf.range(2 * 3 * 5), [2, 3, 5])
  for t in range(3):
    frame = metrics.frame(sequence, t)
    np.testing.assert_array_equal(frame, sequence[:, t : t + 1])
    still = metrics.frame(sequence[:, :1], t)
    np.testing.assert_array_equal(still, sequence[:, :1])


@pytest.mark.parametrize(
  ("scores", "expected"),
  [([0.5, np.nan, 1.0], 0.75), ([0.25], 0.25), ([np.nan, np.nan], np.nan)],
)
def test_mean_of_defined(scores, expected):
  mean = metrics.mean_of_defined(tf.constant(scores))
  np.testing.assert_equal(mean.numpy(), np.float32(expected))


def test_pixels_that_belong_to_nothing_do_not_count():
  owner = np.array([[0, 0, 1, 1, -1, -1]])
  true = np.float32(owner[:, None] == np.arange(2)[:, None])
  for last in (0, 1):  # what is predicted there
    segments = np.array([[0, 0, 1, 1, last, last]])
    predicted = np.float32(segments[:, None] == np.arange(2)[:, None])
    shape = (1, 2, 1, 6, 1)
    masks = (tf.reshape(true, shape), tf.reshape(predicted, shape))
    scores = metrics.segmentation_scores(*masks, 1)
    assert all(float(values[0]) == 1 for values in scores.values())
    assert float(metrics.adjusted_rand_indices(*masks, 1)["ari"][0]) == 1
