"""Tests of iodine.evaluation.latent_factors."""

import numpy as np
import pytest

from iodine.evaluation import latent_factors, representations
from iodine.evaluation.representations import Representations
from tests.support import tiny

N, L, K, Z = 30, 3, 4, 5


def _scenes(pixels=9, **changed):
  """Objects 1 and 2 are in slots 3 and 0, whose latent 2 is their x."""
  rng = np.random.default_rng(0)
  codes = rng.normal(size=[N, K, Z]).astype(np.float32)
  x = rng.normal(size=[N, L, 1])
  codes[:, 3, 2], codes[:, 0, 2] = x[:, 1, 0], x[:, 2, 0]
  iou = np.zeros([N, L, K], np.float32)
  iou[:, 1, 3] = iou[:, 2, 0] = 0.5
  is_object = np.ones([N, L], bool)
  is_object[:, 0] = False
  scenes = Representations(
    codes=codes,
    is_object=is_object,
    is_modified=np.zeros_like(is_object),
    factors={
      "x": x,
      "orientation": x.copy(),
      "color": rng.normal(size=[N, L, 3]),
      "shape": np.ones([N, L, 1], np.uint8),
    },
    pixels=np.full([N, L], pixels),
    iou=iou,
    cosine=None,
    samples=None,
  )
  return scenes._replace(**changed)


@pytest.fixture
def measured(monkeypatch):
  def measure(scenes):
    monkeypatch.setattr(representations, "infer", lambda *a, **k: scenes)
    return latent_factors.measure(None, (), 0)

  return measure


def test_factors_of_the_objects_that_slots_hold(measured):
  found = measured(_scenes())
  # Neither the angle nor the factor that all objects have in common.
  assert found.factors == ("x", "color_0", "color_1", "color_2")
  assert found.num_objects == 2 * N
  assert found.name(2) == "x 1.00"


@pytest.mark.parametrize(
  "changed",
  [
    {"iou": None},
    {"factors": {"shape": np.ones([N, L, 1], np.uint8)}},
    {"pixels": np.full([N, L], 4)},
    {"iou": np.zeros([N, L, K], np.float32)},
  ],
  ids=["no masks", "all alike", "small", "not found"],
)
def test_what_cannot_be_told(measured, changed):
  assert measured(_scenes(**changed)) is None


def test_of_a_model():
  model = tiny.initialized()
  found = latent_factors.measure(model, [tiny.batch(5)], 7)
  assert found is None  # so few objects
