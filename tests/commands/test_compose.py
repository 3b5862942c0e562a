"""The command that composes a scene of slots of others."""

import logging

import numpy as np
import pytest
from PIL import Image

from iodine import exploration
from iodine.pictures import compositions
from tests.support.tiny_runs import NUM_SCENES, TINY, fail, run

K, H, W = 2, 9, 7


@pytest.fixture
def words(data_dir, trained, tmp_path) -> tuple[str, ...]:
  """What the command is given."""
  return (
    *TINY,
    f"data_dir={data_dir}",
    f"checkpoint_dir={trained}",
    f"pictures_dir={tmp_path}/pictures",
    "seed=5",
  )


@pytest.fixture
def drawn(monkeypatch) -> list:
  """The collages that are drawn in a test, and the numbers of their scenes."""
  collages = []
  plot = compositions.composition_plot

  def remember(*args):
    collages.append(args)
    return plot(*args)

  monkeypatch.setattr(compositions, "composition_plot", remember)
  return collages


def test_slots_of_scenes_come_together(words, tmp_path, drawn, caplog):
  caplog.set_level(logging.INFO)
  run("compose", *words, "scenes=[4,2,4,13]", "slots=[2,1,2,1]")
  ((collage, numbers),) = drawn
  assert numbers == [2, 4, 13]
  assert collage.chosen == ((1, 1), (0, 0), (1, 1), (2, 0))
  assert collage.scene.masks.shape == (4, H, W, 1)
  folder = tmp_path / "pictures" / "tetrominoes" / "compose"
  with Image.open(folder / "scene.png") as image:
    pixels = np.asarray(image)
  factor = len(pixels) // H
  np.testing.assert_allclose(
    pixels[::factor, ::factor] / 255.0,
    collage.scene.recons.clip(0.0, 1.0),
    atol=0.51 / 255,
  )
  with Image.open(folder / "composition.png") as image:
    image.load()
  assert f"Wrote {folder}/composition.png and {folder}/scene.png" in caplog.text


def test_a_scene_is_the_same_whatever_others_are_chosen(words, drawn):
  run("compose", *words, "scenes=[3]", "slots=[1]")
  run("compose", *words, "scenes=[1,3]", "slots=[1,2]")
  (alone, _), (together, numbers) = drawn
  assert numbers == [1, 3]
  np.testing.assert_array_equal(alone.images[0], together.images[1])
  np.testing.assert_allclose(
    alone.components[0], together.components[1], atol=1e-4
  )


@pytest.mark.parametrize(
  "choice, scenes", [((), [0, 1, 2]), (("scenes=[7,2]",), [1, 0])]
)
def test_by_default_objects_come_with_a_background(
  words, drawn, monkeypatch, choice, scenes
):
  monkeypatch.setattr(exploration, "object_slot", lambda info, b: b % K)
  monkeypatch.setattr(exploration, "background_slot", lambda info, b: 1 - b % K)
  run("compose", *words, *choice)
  ((collage, numbers),) = drawn
  assert numbers == ([2, 7] if choice else [1, 2, 3])
  first = scenes[0]
  assert list(collage.chosen) == [
    *((b, b % K) for b in scenes),
    (first, 1 - first % K),
  ]


@pytest.mark.parametrize(
  "choice, error",
  [
    (["slots=[1]"], "slots=[1]: needs scenes, one for each slot, such as"),
    (
      ["scenes=[1,2]", "slots=[1]"],
      "slots=[1], scenes=[1, 2]: expected as many slots as scenes",
    ),
    (
      ["scenes=[1,2]", "slots=[1,3]"],
      "slots=[1, 3]: expected a list of integers from 1 to 2",
    ),
    (["scenes=[0]"], "scenes=[0]: expected a list of integers from 1 on"),
    (["scenes=[]"], "scenes=[]: expected a list of integers from 1 on"),
    (["scenes=1"], "scenes=1: expected a list of integers from 1 on"),
    (
      ["scenes=[2,14]"],
      f"scenes=[2, 14]: the data have {NUM_SCENES} scenes; name one from 1 to "
      f"{NUM_SCENES}",
    ),
  ],
)
def test_what_cannot_be_composed(words, tmp_path, capsys, choice, error):
  told = fail(capsys, 2, "compose", *words, *choice)
  assert told.startswith(f"ConfigError: {error}")
  assert told.count("Error") == 1
  assert not (tmp_path / "pictures").exists()
