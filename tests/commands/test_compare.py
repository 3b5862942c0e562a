"""The command that compares trained models."""

import functools
import gc
import html.parser
import importlib
import json
import logging
import pathlib
import shutil

import pytest
from PIL import Image

from iodine.scene_model import SceneModel
from iodine.synthetic import generation, sprites
from tests.support import tiny
from tests.support.tiny_runs import (
  NUM_SCENES,
  TINY,
  TINY_EFFICIENT_MORL,
  TINY_GNM,
  TINY_SLATE,
  TINY_SLOT_ATTENTION,
  contents,
  fail,
  run,
)

# The module, not the function of its name.
compare = importlib.import_module("iodine.commands.compare")

FILES = {
  *("index.html", "comparison.json", "comparison.md"),
  *("decompositions.png", "slots.png", ".iodine.json"),
}
OTHERS = {
  "slot_attention": TINY_SLOT_ATTENTION,
  "slate": TINY_SLATE,
  "gnm": TINY_GNM,
  "efficient_morl": TINY_EFFICIENT_MORL,
}
KINDS = {
  "slot_attention": "SlotAttentionAutoEncoder",
  "slate": "SLATE",
  "gnm": "GNM",
  "efficient_morl": "EfficientMORL",
}


@pytest.fixture(autouse=True)
def _log(caplog):
  caplog.set_level(logging.INFO)


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory) -> dict[str, pathlib.Path]:
  """A run of a step of each family but IODINE's. Not to be changed."""
  folder = tmp_path_factory.mktemp("runs")
  for name, words in OTHERS.items():
    given = (f"data_dir={data_dir}", "seed=3", "stop_after_steps=1")
    run(*words, *given, f"checkpoint_dir={folder}/{name}")
  return {name: folder / f"{name}_1" for name in OTHERS}


@pytest.fixture
def words(data_dir, tmp_path) -> tuple[str, ...]:
  """What the command is given beside checkpoints."""
  return (
    *("compare", "with", "tetrominoes", f"data_dir={data_dir}"),
    *("batch_size=3", "num_scenes=7", "seed=5"),
    f"pictures_dir={tmp_path}/pictures",
  )


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  return tmp_path / "pictures" / "tetrominoes" / "compare"


@pytest.fixture
def copied(trained, tmp_path) -> pathlib.Path:
  """A copy of IODINE's run without its pictures and events."""
  new = tmp_path / "copied"
  new.mkdir()
  for path in trained.iterdir():
    if path.name.startswith(("checkpoint", "config", "model")):
      shutil.copy(path, new)
  return new


def _listed(*paths: object) -> str:
  return f"checkpoints=[{','.join(map(str, paths))}]"


def _result(folder) -> dict:
  return json.loads((folder / "comparison.json").read_text())


class _Table(html.parser.HTMLParser):
  """The rows of a page's only table."""

  def __init__(self, text: str):
    super().__init__()
    self.rows: list[list[str]] = []
    self._in_cell = False
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    if tag == "tr":
      self.rows.append([])
    self._in_cell = tag in ("th", "td")
    if self._in_cell:
      self.rows[-1].append("")

  def handle_endtag(self, tag):
    self._in_cell = False

  def handle_data(self, data):
    if self._in_cell:
      self.rows[-1][-1] += data


@pytest.mark.slow
def test_all_families_are_compared(words, folder, trained, runs, capsys):
  run(*words, _listed(trained, *runs.values()))
  assert set(contents(folder)) == FILES
  result = _result(folder)
  models = {model["name"]: model for model in result["models"]}
  kinds = {f"IODINE {trained.name}": "IODINE"}
  kinds |= {f"{KINDS[name]} {runs[name].name}": KINDS[name] for name in runs}
  assert {name: m["model"] for name, m in models.items()} == kinds
  assert list(models) == list(kinds)  # in their order
  for model in models.values():
    assert tiny.MASK_SCORES | {"mse"} <= set(model["metrics"])
    assert model["metrics"]["mse"]["stderr"] > 0
    assert model["milliseconds_per_image"] > 0
    assert model["parameters"] > 100
    # Probes of factors are trained for one dataset.
    assert not any(name.startswith("factor/") for name in model["metrics"])
  # Each is shown the scenes as it was trained to see them.
  assert [m["image_shape"][:2] for m in models.values()] == [
    *([9, 7], [9, 7], [12, 8], [16, 16], [9, 7])
  ]
  slots = [m["num_components"] for m in models.values()]
  assert slots[:3] == [2, 3, 3] and slots[3] > 3
  assert result["scenes"] == 7
  assert result["configuration"]["seed"] == 5
  printed = capsys.readouterr().out
  rows = _Table((folder / "index.html").read_text()).rows
  assert rows[0] == ["", *kinds]
  cells = {row[0]: row[1:] for row in rows}
  for label, texts in cells.items():
    assert len(texts) == len(kinds)
    assert label in printed
    assert all(text in printed for text in texts)
  score = models[f"IODINE {trained.name}"]["metrics"]["mse"]
  assert cells["MSE"][0] == f"{score['mean']:.4g} +- {score['stderr']:.2g}"
  # SLATE and Slot Attention have no posterior.
  assert [bool(text) for text in cells["KL (nats)"]] == [
    *(True, False, False, True, True)
  ]
  published = cells["ARI without background, published"]
  assert published[0] == "0.992 +- 0.004" and published[4] == "0.997"
  markdown = (folder / "comparison.md").read_text()
  assert "| 0.992 +- 0.004 |" in markdown
  for name in FILES - {".iodine.json"}:
    if name.endswith(".png"):
      assert f'src="{name}"' in (folder / "index.html").read_text()
      with Image.open(folder / name) as picture:
        picture.load()


def test_scores_are_those_of_evaluate(
  words, folder, trained, data_dir, tmp_path
):
  run(*words, _listed(trained))
  (model,) = _result(folder)["models"]
  run(
    *("evaluate", *TINY, f"data_dir={data_dir}", "num_scenes=7", "seed=5"),
    *(f"checkpoint_dir={trained}", f"evaluation_dir={tmp_path}"),
  )
  expected = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
  for name, score in model["metrics"].items():
    assert score["mean"] == pytest.approx(expected[name]["mean"], rel=1e-4)
    assert score["stderr"] == pytest.approx(
      expected[name]["stderr"], rel=1e-3, abs=1e-9
    )


@pytest.mark.slow
def test_a_protocol_holds_for_all(words, folder, trained, runs):
  given = _listed(trained, runs["efficient_morl"])
  run(*words, given, "protocol=efficientmorl", "names=[a, 2]")
  models = _result(folder)["models"]
  assert [model["name"] for model in models] == ["a", "2"]
  for model in models:
    assert set(model["metrics"]) == {"ari_nobg", "mse", "kl"}
  title = (folder / "comparison.md").read_text().splitlines()[0]
  assert title == "2 models on tetrominoes, protocol efficientmorl"


def test_one_model_at_a_time_is_in_memory(words, trained, copied, monkeypatch):
  alive = []
  score_scenes = compare.score_scenes

  def count(*args):
    models = [x for x in gc.get_objects() if isinstance(x, SceneModel)]
    alive.append(len({id(m) for m in models if m.variables}))
    return score_scenes(*args)

  monkeypatch.setattr(compare, "score_scenes", count)
  run(*words, _listed(trained, copied))
  first, second = alive
  assert first == second  # with those that other tests have


def test_checkpoints_of_one_folder_have_names_of_their_own(
  words, folder, copied
):
  run(*words, _listed(copied, copied / "model.ckpt-2"))
  names = [model["name"] for model in _result(folder)["models"]]
  assert names == [
    f"IODINE copied ({copied})",
    f"IODINE copied ({copied}/model.ckpt-2)",
  ]


def test_scores_are_not_published_for_other_scenes(words, folder, copied):
  path = copied / "config.json"
  config = json.loads(path.read_text())
  config["data"]["max_num_objects"] = 2
  path.write_text(json.dumps(config))
  run(*words, _listed(copied))
  assert _result(folder)["models"][0]["published"] == {}
  assert ", published |" not in (folder / "comparison.md").read_text()


def test_scenes_of_another_dataset(trained, tmp_path):
  """As IODINE was not trained on them, they are as the configuration says."""
  generation.write_tfrecords(
    tmp_path / "demo_train.tfrecords",
    sprites.FEATURES,
    functools.partial(sprites.sample_scenes, num_objects=2),
    num_scenes=NUM_SCENES,
    seed=0,
  )
  given = (
    *(f"data_dir={tmp_path}", f"pictures_dir={tmp_path}", "seed=5"),
    *("num_scenes=4", "batch_size=2", "data.image_dim=[9,7]"),
  )
  run("compare", "with", "demo", *given, _listed(trained))
  (model,) = _result(tmp_path / "sprites" / "compare")["models"]
  assert model["image_shape"] == [9, 7, 3]
  assert tiny.MASK_SCORES <= set(model["metrics"])
  assert model["published"] == {}  # for Tetrominoes


# --- Mistakes -----------------------------------------------------------------


@pytest.fixture
def nothing_is_scored(monkeypatch):
  """Fails a test in which work begins."""
  unexpected = lambda *args: pytest.fail("work has begun")
  monkeypatch.setattr(compare, "_measure", unexpected)


@pytest.mark.usefixtures("nothing_is_scored")
def test_all_faults_are_told_at_once(
  words, folder, trained, copied, tmp_path, capsys
):
  (copied / "config.json").unlink()
  given = _listed(trained, copied, tmp_path / "none")
  error = fail(capsys, 2, *words, given)
  assert f"checkpoints: {copied}: there is no {copied}/config.json" in error
  assert "copy that of its run there, or name a configuration" in error
  assert f"checkpoints: {tmp_path}/none: there is no checkpoint" in error
  assert str(trained) not in error
  assert not folder.exists()


@pytest.mark.usefixtures("nothing_is_scored")
def test_images_of_another_size(words, trained, capsys):
  words = [w if w != "tetrominoes" else "demo" for w in words]
  error = fail(capsys, 2, *words, _listed(trained))
  assert f"checkpoints: {trained}: this IODINE was trained on images of " in (
    error
  )
  assert "images of 9 x 7 x 3 (" in error
  assert "are of 16 x 16 x 3 (" in error
  assert "choose a configuration of its data" in error


@pytest.mark.usefixtures("nothing_is_scored")
def test_a_checkpoint_that_does_not_fit_its_configuration(
  words, trained, copied, capsys
):
  path = copied / "config.json"
  config = json.loads(path.read_text())
  config["n_z"] = config["model"]["n_z"] = 4
  path.write_text(json.dumps(config))
  error = fail(capsys, 2, *words, _listed(trained, copied))
  assert f"checkpoints: {copied}/model.ckpt-2: does not fit" in error


@pytest.mark.usefixtures("nothing_is_scored")
@pytest.mark.parametrize(
  "given, expected",
  [
    ((), "checkpoints: missing; name the models to compare"),
    (("checkpoints=demo",), "checkpoints='demo': expected a list, such as"),
    (("checkpoints=[]",), "checkpoints=[]: expected a list, such as"),
    (("checkpoints=[demo,[a]]",), "expected a list, such as"),
    (("checkpoints=[demo,demo]",), "'demo' is there twice"),
    (("checkpoints=[demo]", "names=[a,b]"), "2 for 1 checkpoints"),
    (("checkpoints=[a,b]", "names=[c,c]"), "'c' is there twice"),
    (("checkpoints=[nowhere/a]",), "checkpoints: nowhere/a: there is no"),
  ],
)
def test_wrong_choices(words, given, expected, capsys):
  assert expected in fail(capsys, 2, *words, *given)


@pytest.mark.usefixtures("nothing_is_scored")
def test_a_scene_that_there_is_not(words, trained, capsys):
  error = fail(capsys, 2, *words, _listed(trained), "scene=99")
  assert f"the data have {NUM_SCENES} scenes" in error


@pytest.mark.parametrize("has_earlier", [False, True])
def test_an_interrupt_changes_nothing(
  words, folder, trained, copied, monkeypatch, capsys, has_earlier
):
  if has_earlier:
    run(*words, _listed(trained))
  before = contents(folder) if has_earlier else None
  score_scenes, calls = compare.score_scenes, []

  def interrupt(*args):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return score_scenes(*args)

  monkeypatch.setattr(compare, "score_scenes", interrupt)
  fail(capsys, 130, *words, _listed(trained, copied))
  assert (contents(folder) if folder.exists() else None) == before
