"""The commands that draw what a checkpoint has learned."""

import logging
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from iodine import exploration
from iodine.data import datasets
from iodine.files import LIST_FILE
from iodine.pictures import animations, sections
from iodine.pictures import latents as latent_pictures
from tests.support.tiny_runs import NUM_SCENES, TINY, contents, fail, run

K, Z, H, W = 2, 5, 9, 7
# IODINE has no attention and no boxes, and its decomposition shows the
# reconstruction. So few scenes tell of no factors.
PAGE = {*sections.PICTURES, "explore.js", "index.html"} - {
  "attention.gif",
  "attention_still.png",
  "attention.png",
  "boxes.png",
  "factors.png",
  "reconstruction.png",
}
DECOMPOSED = {"image.png", "reconstruction.png", "masks.png", "overview.png"}


@pytest.fixture(autouse=True)
def _log(caplog):
  caplog.set_level(logging.INFO)


@pytest.fixture
def words(data_dir, trained, tmp_path) -> tuple[str, ...]:
  """What all commands are given."""
  return (
    *TINY,
    f"data_dir={data_dir}",
    f"checkpoint_dir={trained}",
    f"pictures_dir={tmp_path}/pictures",
    "seed=5",
  )


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """Where the pictures come."""
  return tmp_path / "pictures" / "tetrominoes"


@pytest.fixture
def inferred(monkeypatch) -> list:
  """What models inferred in a test."""
  infos = []
  infer = exploration.infer

  def remember(*args):
    infos.append(infer(*args))
    return infos[-1]

  monkeypatch.setattr(exploration, "infer", remember)
  return infos


def _names(folder) -> set[str]:
  """Of all files but the list of those that were written."""
  return {path.name for path in folder.iterdir()} - {LIST_FILE}


def _scenes(data_dir) -> np.ndarray:
  path = data_dir / "tetrominoes_train.tfrecords"
  dataset = datasets.Tetrominoes(path, batch_size=NUM_SCENES, image_dim=(H, W))
  return next(iter(dataset("eval")))["image"].numpy()


# --- visualize ----------------------------------------------------------------


def test_visualize_writes_a_page_of_all_its_pictures(
  words, folder, trained, caplog
):
  run("visualize", *words)
  folder = folder / "visualize"
  assert _names(folder) == PAGE
  for name in PAGE - {"explore.js", "index.html"}:
    with Image.open(folder / name) as image:
      image.load()
      assert min(image.size) > 50, name
  page = (folder / "index.html").read_text(encoding="utf-8")
  sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
  assert set(sources) == PAGE - {"index.html"}
  assert "http" not in page
  assert str(trained) not in page
  assert "<dt>Slots</dt><dd>2</dd>" in page
  assert "<dt>Refinement steps</dt><dd>1</dd>" in page
  assert "step 0 comes before the first refinement" in page
  assert f"<dd>{trained.name}/model.ckpt-2</dd>" in page
  assert f"Wrote {folder}/index.html" in caplog.text


@pytest.mark.slow
def test_visualize_again_replaces_its_own_files_only(
  words, folder, trained, tmp_path
):
  folder = folder / "visualize"
  run("visualize", *words)
  for name in ("mine.png", *PAGE):
    (folder / name).write_text("of an earlier run")
  # Without its event files, nothing tells of the training.
  shutil.copytree(
    trained, tmp_path / "run", ignore=shutil.ignore_patterns("events*")
  )
  run("visualize", *words, f"checkpoint_dir={tmp_path}/run")
  after = contents(folder)
  assert set(after) == {*PAGE - {"training.png"}, "mine.png", LIST_FILE}
  old = {k for k, v in after.items() if v == b"of an earlier run"}
  assert old == {"mine.png"}
  assert b"training.png" not in after["index.html"]


def test_figures_for_papers_go_when_none_are_asked_for(words, folder):
  folder = folder / "sample"
  run("sample", *words, "pictures_format=pdf")
  assert _names(folder) == {"samples.png", "samples.pdf"}
  run("sample", *words)
  assert _names(folder) == {"samples.png"}


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["first", "again"])
def test_visualize_that_is_interrupted_changes_nothing(
  words, folder, monkeypatch, there
):
  folder = folder / "visualize"
  if there:
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("of an earlier run")

  def stop(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(latent_pictures, "swap_plot", stop)
  with pytest.raises(SystemExit):
    run("visualize", *words)
  assert folder.exists() == there
  assert not there or contents(folder) == {"index.html": b"of an earlier run"}


@pytest.mark.slow
def test_an_index_never_shows_pictures_of_two_runs(words, folder, monkeypatch):
  folder = folder / "visualize"
  folder.mkdir(parents=True)
  (folder / "index.html").write_text("of an earlier run")
  replace = pathlib.Path.replace

  def fill_the_disk(path, target):
    if path.name == "scores.png":
      raise OSError(28, "No space left on device")
    return replace(path, target)

  monkeypatch.setattr(pathlib.Path, "replace", fill_the_disk)
  with pytest.raises(SystemExit):
    run("visualize", *words)
  assert "decomposition.png" in _names(folder)
  assert "index.html" not in _names(folder)


def test_visualize_one_scene_of_data_without_masks(
  words, folder, trained, tmp_path
):
  pixels = np.random.default_rng(0).integers(256, size=[H, W, 3])
  (tmp_path / "images").mkdir()
  Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / "a.png")
  run(
    "visualize",
    *words,
    "data.constructor=iodine.modules.data.ImageFolder",
    f"data.path={tmp_path}/images",
    "data.max_num_objects=None",
    "data.name=mine",
    "model.factor_evaluator=None",
  )
  page = folder.parent / "mine" / "visualize" / "index.html"
  assert _names(page.parent) == PAGE - {"swap.png"}
  assert "swap.png" not in page.read_text()
  assert "ARI compares" not in page.read_text()


@pytest.mark.parametrize("place", ["file", "file/pictures"])
def test_pictures_that_cannot_be_written(words, tmp_path, capsys, place):
  (tmp_path / "file").write_text("no folder")
  error = fail(
    capsys, 2, "visualize", *words, f"pictures_dir={tmp_path}/{place}"
  )
  assert f"pictures_dir: {tmp_path}/{place}/tetrominoes/visualize" in error
  assert error.count("Error") == 1


# --- traverse -----------------------------------------------------------------


def test_traverse_draws_the_latents_of_a_slot_of_a_scene(
  words, folder, data_dir, inferred, monkeypatch
):
  drawn = []
  plot = latent_pictures.traversal_plot

  def remember(traversal, **kwargs):
    drawn.append(traversal)
    return plot(traversal, **kwargs)

  monkeypatch.setattr(latent_pictures, "traversal_plot", remember)
  run("traverse", *words, "slot=2", "latents=[3,0]", "scene=4")
  (traversal,), (info,) = drawn, inferred
  assert traversal.slot == 1
  np.testing.assert_array_equal(traversal.latents, [3, 0])
  np.testing.assert_allclose(
    info["data"]["image"], _scenes(data_dir)[3:6], atol=1e-6
  )
  folder = folder / "traverse"
  assert _names(folder) == {"scene_4_slot_2.png", "scene_4_slot_2.gif"}
  with Image.open(folder / "scene_4_slot_2.gif") as image:
    assert image.info["loop"] == 0
  # Another slot's pictures stay.
  run("traverse", *words, "scene=13")
  slot = exploration.object_slot(inferred[-1]) + 1
  names = {f"scene_13_slot_{slot}.png", f"scene_13_slot_{slot}.gif"}
  assert names < _names(folder)
  assert len(_names(folder)) == 4


@pytest.mark.slow
def test_traverse_between_samples_shows_every_slot(
  words, folder, inferred, monkeypatch
):
  drawn = []
  frames = animations.traversal_frames

  def remember(traversal, **kwargs):
    drawn.append((traversal, kwargs))
    return frames(traversal, **kwargs)

  monkeypatch.setattr(animations, "traversal_frames", remember)
  given = ("range_of=samples", "range_scenes=7")
  run("traverse", *words, *given)
  folder = folder / "traverse"
  pictures = {f"scene_1_slot_{k}.{e}" for k in (1, 2) for e in ("gif", "png")}
  assert _names(folder) == {*pictures, "z_range.txt", "activeness.npy"}
  limits = np.loadtxt(folder / "z_range.txt", delimiter=",")
  active = np.load(folder / "activeness.npy")
  assert limits.shape == (Z, 2)
  assert active.shape == (7, Z)
  order = np.argsort(-active.mean(axis=0))
  for slot, (traversal, kwargs) in enumerate(drawn):
    assert kwargs == {"value_ms": 250, "names": None}
    assert traversal.slot == slot
    assert traversal.scenes.shape[:2] == (Z, 8)
    np.testing.assert_array_equal(traversal.latents, order)
    means = inferred[0]["latent"]["z_mean"][0, -1, slot, order]
    centre, unit = limits[order].mean(axis=1), np.ptp(limits[order], axis=1) / 2
    np.testing.assert_allclose(
      traversal.current, (means - centre) / unit, rtol=1e-4, atol=1e-5
    )
  # A second run replaces all of it; chosen latents need no ranking.
  run("traverse", *words, "range_of=samples", "range_scenes=2", "latents=[1]")
  assert _names(folder) == {*pictures, "z_range.txt"}
  again = np.loadtxt(folder / "z_range.txt", delimiter=",")
  assert again.shape == (Z, 2)
  assert np.all(again[:, 0] >= limits[:, 0])
  assert np.any(again != limits)
  assert len(drawn) == 4


@pytest.mark.parametrize(
  "choice, error",
  [
    ("range_of=data", "range_of='data': no such value"),
    ("slot=3", "slot=3: expected an integer from 1 to 2"),
    ("slot=0", "slot=0: expected an integer of at least 1"),
    ("slot=1.5", "slot=1.5: expected an integer of at least 1"),
    (
      "latents=[1,5]",
      "latents=[1, 5]: expected a list of integers from 0 to 4",
    ),
    ("latents=3", "latents=3: expected a list"),
    ("latents=[]", "latents=[]: expected a list"),
    ("scene=0", "scene=0: expected an integer of at least 1"),
    ("scene=14", "scene=14: the data have 13 scenes; name one from 1 to 13"),
  ],
)
def test_traverse_what_there_is_not(words, tmp_path, capsys, choice, error):
  told = fail(capsys, 2, "traverse", *words, choice)
  assert f"ConfigError: {error}" in told
  assert told.count("Error") == 1
  assert not (tmp_path / "pictures").exists()


def test_a_slot_can_be_one_of_more(words, folder):
  run("traverse", *words, "slot=3", "num_components=3", "latents=[1]")
  assert "scene_1_slot_3.png" in _names(folder / "traverse")


# --- decompose ----------------------------------------------------------------


def _photo(path, mode, size):
  rng = np.random.default_rng(0)
  channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
  pixels = rng.integers(256, size=[6, 8, *channels], dtype=np.uint8)
  Image.fromarray(pixels).resize(size).save(path)
  return path


def _pixels(path, mode) -> np.ndarray:
  """The pixels of a saved picture at the model's size, each once."""
  with Image.open(path) as image:
    assert image.mode == mode
    pixels = np.asarray(image)
  factor = len(pixels) // H
  pixels = pixels.reshape(*pixels.shape[:2], -1)
  small = pixels[::factor, ::factor]
  assert small.shape[:2] == (H, W)
  np.testing.assert_array_equal(pixels, animations.upscale(small, factor))
  return small / 255.0


@pytest.mark.parametrize(
  "name, mode, size",
  [
    ("transparent.png", "RGBA", (40, 30)),
    ("gray.jpg", "L", (30, 50)),
    ("photo.jpg", "RGB", (4000, 3000)),
    ("tiny.png", "RGB", (3, 2)),
  ],
)
def test_decompose_saves_every_slot_with_its_mask(
  words, folder, tmp_path, inferred, name, mode, size
):
  path = _photo(tmp_path / name, mode, size)
  run("decompose", *words, f"image={path}", "num_components=3", "num_iters=2")
  folder = folder / "decompose" / path.stem
  slots = [f"slot_{k}.png" for k in (1, 2, 3)]
  assert _names(folder) == {*DECOMPOSED, *slots}
  (info,) = inferred
  outputs = {key: value[0, -1] for key, value in info["outputs"].items()}
  close = {"atol": 0.51 / 255}  # as bytes hold it
  image = info["data"]["image"][0, 0]
  np.testing.assert_allclose(
    _pixels(folder / "image.png", "RGB"), image, **close
  )
  np.testing.assert_allclose(
    _pixels(folder / "reconstruction.png", "RGB"),
    outputs["recons"][0].clip(0.0, 1.0),
    **close,
  )
  assert _pixels(folder / "masks.png", "RGB").std() > 0
  for k, slot in enumerate(slots):
    rgba = _pixels(folder / slot, "RGBA")
    np.testing.assert_allclose(
      rgba[..., :3], outputs["components"][k].clip(0.0, 1.0), **close
    )
    np.testing.assert_allclose(rgba[..., 3:], outputs["pred_mask"][k], **close)


def test_decompose_tells_how_well_it_does(
  words, tmp_path, trained, inferred, capsys, caplog
):
  path = _photo(tmp_path / "photo.png", "RGB", (20, 30))
  copy = tmp_path / "run"
  shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("evaluation"))
  given = (*words, f"checkpoint_dir={copy}", f"image={path}")
  run("decompose", *given)
  own = inferred[0]["metrics"]["mse"][0, -1]
  assert f"MSE: {own:.4g} (its data: " in (printed := capsys.readouterr().out)
  assert "end of training" in printed and "ELBO (nats): " in printed
  assert f"30 x 20 pixels become {H} x {W} by fit=crop" in caplog.text
  unlike = "unlike what the model was trained on"
  (copy / "evaluation").mkdir()
  for usual, is_unlike in ((own, False), (own / 5, True)):
    (copy / "evaluation" / "evaluation.json").write_text(
      f'{{"scenes": 1234, "metrics": {{"mse": {{"mean": {usual}}}}}}}'
    )
    caplog.clear()
    run("decompose", *given)
    told = f"(its data: {usual:.4g}, evaluation of 1,234 scenes)"
    assert told in capsys.readouterr().out
    assert (unlike in caplog.text) == is_unlike


def test_decompose_again_leaves_no_slots_of_before(words, folder, tmp_path):
  path = _photo(tmp_path / "photo.png", "RGB", (20, 20))
  run("decompose", *words, f"image={path}", "num_components=4")
  folder = folder / "decompose" / "photo"
  (folder / "mine.png").write_text("precious")
  run("decompose", *words, f"image={path}")
  assert _names(folder) == {
    *DECOMPOSED,
    "mine.png",
    "slot_1.png",
    "slot_2.png",
  }


def test_decompose_keeps_images_of_one_name_apart(words, folder, tmp_path):
  paths = [tmp_path / name for name in ("a/x.png", "b/x.png", "a/x.jpg")]
  for i, path in enumerate(paths):
    path.parent.mkdir(exist_ok=True)
    _photo(path, "RGB", (20 + i, 20))
  for path in (*paths, *paths):
    run("decompose", *words, f"image={path}")
  assert _names(folder / "decompose") == {"x", "x_2", "x_3"}


@pytest.mark.parametrize("name", ["...png", "....png", "\x1b[31m.png"])
def test_decompose_stays_in_its_folder(words, folder, tmp_path, name):
  path = tmp_path / name
  _photo(tmp_path / "photo.png", "RGB", (20, 20)).rename(path)
  folder = folder / "decompose"
  folder.mkdir(parents=True)
  (folder.parent / "slot_1.png").write_text("of the user")
  run("decompose", *words, f"image={path}")
  assert {p.name for p in folder.parent.iterdir()} == {
    "decompose",
    "slot_1.png",
  }
  (own,) = folder.iterdir()
  assert own.name.isprintable()
  assert _names(own) >= DECOMPOSED


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "/tmp/x", "", 1])
def test_names_of_data_that_lead_elsewhere(words, tmp_path, capsys, name):
  error = fail(capsys, 2, "visualize", *words, f"data.name={name!r}")
  assert "name=" in error and "expected a name that files" in error
  assert not (tmp_path / "pictures").exists()


def test_decompose_needs_no_data(words, folder, tmp_path):
  path = _photo(tmp_path / "photo.png", "RGB", (20, 20))
  run("decompose", *words, f"image={path}", f"data_dir={tmp_path}/nowhere")
  assert (folder / "decompose" / "photo" / "overview.png").is_file()


@pytest.mark.slow
def test_decompose_with_a_model_of_one_channel(
  words, folder, tmp_path, data_dir
):
  gray = ("data.grayscale=True", f"checkpoint_dir={tmp_path}/run")
  run(*TINY, f"data_dir={data_dir}", "stop_after_steps=1", *gray)
  path = _photo(tmp_path / "photo.png", "RGB", (20, 20))
  gray = ("data.grayscale=True", f"checkpoint_dir={tmp_path}/run_1")
  run("decompose", *words, *gray, f"image={path}")
  folder = folder / "decompose" / "photo"
  assert _pixels(folder / "image.png", "L").shape == (H, W, 1)
  assert _pixels(folder / "reconstruction.png", "L").shape == (H, W, 1)
  assert _pixels(folder / "slot_2.png", "RGBA").shape == (H, W, 4)


def test_decompose_shows_a_sequential_model_a_still(
  words, folder, tmp_path, inferred
):
  path = _photo(tmp_path / "photo.png", "RGB", (20, 20))
  run("decompose", *words, f"image={path}", "model.sequential=True")
  frames = inferred[0]["data"]["image"][0]
  assert len(frames) == 2
  np.testing.assert_array_equal(frames[0], frames[1])
  assert (folder / "decompose" / "photo" / "slot_1.png").is_file()


@pytest.mark.parametrize(
  "image, error",
  [
    ("text.png", "text.png: no image, or a damaged one"),
    ("nothing.png", "nothing.png: there is no such file"),
    ("", "Is a directory"),
    (None, "image: missing; name a picture, image=PATH"),
  ],
)
def test_decompose_what_is_no_picture(words, tmp_path, capsys, image, error):
  (tmp_path / "text.png").write_text("no picture")
  given = [] if image is None else [f"image={tmp_path}/{image}"]
  told = fail(capsys, 2, "decompose", *words, *given)
  assert told.startswith("ConfigError: image: ")
  assert error in told
  assert told.count("Error") == 1
  assert not (tmp_path / "pictures").exists()


def test_decompose_with_a_dataset_whose_file_tells_its_channels(
  words, tmp_path, capsys
):
  pytest.importorskip("h5py")
  path = _photo(tmp_path / "photo.png", "RGB", (20, 20))
  hdf5 = ("data.constructor=iodine.modules.data.HDF5", f"data.path={path}.h5")
  error = fail(capsys, 2, "decompose", *words, *hdf5, f"image={path}")
  assert error.startswith("ConfigError: data: ")
  assert f"{path}.h5" in error


@pytest.mark.parametrize("command", ["visualize", "traverse", "decompose"])
def test_commands_without_a_checkpoint(words, tmp_path, capsys, command):
  path = _photo(tmp_path / "photo.png", "RGB", (20, 20))
  (tmp_path / "empty").mkdir()
  error = fail(
    capsys,
    2,
    command,
    *words,
    f"checkpoint_dir={tmp_path}/empty",
    f"image={path}",
  )
  assert f"{tmp_path}/empty: there is no checkpoint" in error
  assert not (tmp_path / "pictures").exists()
