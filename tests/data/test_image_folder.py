"""Tests of iodine.data.image_folder: a folder, masks, the configuration."""

import json
import logging
import os
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from iodine import main as command_line
from iodine.config import reading
from iodine.config import resolution as configuration
from iodine.data import image_files, opening
from iodine.data.datasets import ImageFolder
from iodine.errors import ConfigError
from tests.support import tiny
from tests.support.tiny_runs import TINY_MODEL, fail, run

H, W = 9, 7
COUNT = 6


def write_images(folder, count=COUNT):
  """Writes images of different sizes, each of one colour: 20 * its number."""
  folder.mkdir(exist_ok=True)
  for i in range(count):
    pixels = np.full([2 * H + i, 3 * W, 3], 20 * i, np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
  return folder


def write_masks(folder, objects=(0, 1, 2, 0, 1, 2)):
  """Writes masks of so many objects, whose labels are far apart."""
  (folder / "masks").mkdir()
  for i, number in enumerate(objects):
    labels = np.zeros([2 * H + i, 3 * W], np.uint16)
    if number > 0:
      labels[4:8] = 300
    if number > 1:
      labels[12:] = 7
    Image.fromarray(labels).save(folder / "masks" / f"{i}.png")
  return folder


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
  return write_images(tmp_path / "images")


def build(folder, **options):
  return ImageFolder(
    folder, **{"batch_size": 2, "image_dim": (H, W), "seed": 0, **options}
  )


def numbers(batch):
  return [round(x * 255 / 20) for x in batch["image"][:, 0, 0, 0, 0].numpy()]


# --- Scenes -------------------------------------------------------------------


def test_images_in_the_order_of_their_names(folder):
  Image.new("RGB", (3, 3)).save(folder / ".hidden.png")
  (folder / "notes.txt").write_text("no image")
  (folder / "more").mkdir()
  Image.new("RGB", (3, 3)).save(folder / "more" / "a.png")
  dataset = build(folder, batch_size=4)
  batches = list(dataset("eval"))
  assert sum(map(numbers, batches), []) == [0, 1, 2, 3, 4, 5]
  assert [set(batch) for batch in batches] == [{"image"}, {"image"}]
  assert batches[0]["image"].shape == (4, 1, H, W, 3)
  assert dataset("train").element_spec == dataset.batch_spec()
  assert dataset.num_true_objects is None
  assert dataset.estimated_num_examples() == COUNT


def test_region_and_grayscale(folder):
  pixels = np.random.default_rng(0).integers(256, size=[30, 40, 3])
  for i in range(COUNT):
    image = Image.fromarray(np.uint8(pixels))
    image.save(folder / f"{i}.png")
  region = ((3, 21), (5, 33))
  dataset = build(folder, crop_region=region, grayscale=True)
  batch = next(iter(dataset("summary")))
  expected = image_files.load_image(folder / "0.png", (H, W), True, region)
  assert batch["image"].shape == (2, 1, H, W, 1)
  np.testing.assert_allclose(batch["image"][1, 0], expected / 255, atol=1e-6)


def test_masks(folder):
  write_masks(folder)
  dataset = build(folder, batch_size=COUNT)
  assert dataset.num_true_objects == 3
  (batch,) = dataset("eval")
  assert set(batch) == {"image", "mask", "visibility", "factors"}
  assert batch["factors"] == {}
  assert batch["mask"].shape == (COUNT, 1, 3, H, W, 1)
  np.testing.assert_array_equal(
    batch["visibility"], [[1, 0, 0], [1, 1, 0], [1, 1, 1]] * 2
  )
  np.testing.assert_array_equal(tf.reduce_sum(batch["mask"], axis=2), 1)
  owner = tf.argmax(batch["mask"], axis=2)[2, 0, :, 0, 0].numpy()
  # Entities are in the order of labels, 7 before 300; rows are sampled in the
  # middle of 20 / 9 stored ones.
  rows = ((np.arange(H) + 0.5) * 20 / H).astype(int)
  expected = np.where(rows >= 12, 1, np.where((rows >= 4) & (rows < 8), 2, 0))
  np.testing.assert_array_equal(owner, expected)
  assert dataset("train").element_spec == dataset.batch_spec()


def test_palettes_of_repeated_colors(folder):
  write_masks(folder)
  for i in range(COUNT):
    labels = np.zeros([2 * H + i, 3 * W], np.uint8)
    labels[4:8], labels[12:] = 9, 3
    mask = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    mask.putpalette([50, 60, 70] * 256)
    mask.save(folder / "masks" / f"{i}.png", transparency=3)
  dataset = build(folder)
  assert dataset.num_true_objects == 3
  owner = next(iter(dataset("summary")))["mask"].numpy().argmax(axis=2)
  rows = ((np.arange(H) + 0.5) * 18 / H).astype(int)
  expected = np.where(rows >= 12, 1, np.where((rows >= 4) & (rows < 8), 2, 0))
  np.testing.assert_array_equal(owner[0, 0, :, 0, 0], expected)


def test_filter_by_objects(folder):
  write_masks(folder)
  dataset = build(folder, max_num_objects=1, min_num_objects=1)
  assert sum((numbers(batch) for batch in dataset("eval")), []) == [1, 4]
  assert sorted(sum((numbers(x) for x in dataset().take(3)), [])) == [
    *[1] * 3,
    *[4] * 3,
  ]


def test_objects_outside_of_the_region_do_not_count(folder):
  write_masks(folder)
  dataset = build(folder, crop_region=((0, 11), (0, 9)), batch_size=COUNT)
  assert dataset.num_true_objects == 2
  (batch,) = dataset("eval")
  np.testing.assert_array_equal(
    batch["visibility"], [[1, 0], [1, 1], [1, 1]] * 2
  )


def test_masks_have_the_orientation_of_what_is_shown(folder):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.new("RGB", (20, 30)).save(folder / "5.png", exif=exif)
  write_masks(folder)
  Image.new("L", (30, 20)).save(folder / "masks" / "5.png")
  assert build(folder).num_true_objects == 3


@pytest.mark.parametrize("with_masks", [False, True])
def test_training_shuffles_the_whole_folder(folder, with_masks):
  if with_masks:
    write_masks(folder)
  # A buffer of one scene would leave the order as it is.
  options = {"skip": 1, "take": 4, "shuffle_buffer": 1}
  stream = list(build(folder, **options).batches().take(6))
  found = [numbers(batch) for batch, _ in stream]
  epochs = np.reshape(found, [3, 4])
  np.testing.assert_array_equal(np.sort(epochs), [[1, 2, 3, 4]] * 3)
  assert len({tuple(epoch) for epoch in epochs}) > 1
  for i, (_, after) in enumerate(stream[:-2]):
    resumed = build(folder, **options).batches(after).take(2)
    assert [numbers(batch) for batch, _ in resumed] == found[i + 1 : i + 3]
  other = build(folder, **{**options, "seed": 1})().take(6)
  assert [numbers(batch) for batch in other] != found
  in_order = build(folder, shuffle_buffer=None)().take(3)
  assert sum(map(numbers, in_order), []) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("with_masks", [False, True])
def test_cache(folder, tmp_path, with_masks):
  if with_masks:
    write_masks(folder)
  options = {"cache_dir": str(tmp_path / "cache")}
  next(iter(build(folder, **options)()))
  next(iter(build(folder, **options)()))
  assert len(list((tmp_path / "cache").iterdir())) == 1
  os.utime(folder / "3.png", ns=(0, 0))
  next(iter(build(folder, **options)()))
  assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_name_that_is_no_text(folder):
  os.rename(folder / "0.png", os.fsencode(folder / "0") + b"\xff.png")
  assert numbers(next(iter(build(folder)("summary")))) == [0, 1]


def test_content_counts_and_what_is_left_out_is_told(folder, caplog):
  caplog.set_level(logging.INFO)
  pixels = Image.fromarray(np.full([H, W, 3], 120, np.uint8))
  pixels.save(folder / "6.jfif", format="JPEG")
  pixels.save(folder / "7", format="PNG")
  pixels.save(folder / "8.tif")
  pixels.save(folder / "9.tif")
  (folder / "more").mkdir()
  os.mkfifo(folder / "pipe.png")
  dataset = build(folder, batch_size=8)
  (batch,) = dataset("eval")
  assert len(batch["image"]) == 8
  lines = [x for x in caplog.messages if x.startswith(str(folder))]
  assert lines == [
    f"{folder}: 3 files are not looked at (.tif, .png)",
    f"{folder}: 1 folder is not searched (more)",
  ]


def test_a_folder_of_other_images_says_what_it_holds(tmp_path):
  Image.new("RGB", (3, 3)).save(tmp_path / "a.tif")
  text = fault(build(tmp_path))
  assert "holds no image" in text
  assert text.endswith("; 1 file is not looked at (.tif)")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_of_masks_in_another_unicode_form(tmp_path, forms):
  folder = write_images(tmp_path / "images", 1)
  write_masks(folder, [2])
  image, mask = (unicodedata.normalize(form, "\u00e9") for form in forms)
  os.rename(folder / "0.png", folder / f"{image}.png")
  os.rename(folder / "masks/0.png", folder / "masks" / f"{mask}.png")
  assert build(folder).num_true_objects == 3


def test_masks_that_belong_to_no_image_are_told(folder, caplog):
  caplog.set_level(logging.INFO)
  write_masks(folder)
  Image.new("L", (3, 3)).save(folder / "masks" / "more.png")
  assert build(folder).num_true_objects == 3
  assert f"{folder}/masks: 1 mask belongs to no image (more.png)" in caplog.text


def test_pixels_of_a_label_to_ignore_belong_to_nothing(folder):
  write_masks(folder)
  dataset = build(folder, batch_size=COUNT, ignore_label=300)
  assert dataset.num_true_objects == 2
  (batch,) = dataset("eval")
  owned = batch["mask"].numpy().sum(axis=2)[2, 0, :, 0, 0]
  rows = ((np.arange(H) + 0.5) * 20 / H).astype(int)
  np.testing.assert_array_equal(owned, (rows < 4) | (rows >= 8))
  np.testing.assert_array_equal(
    batch["visibility"], [[1, 0], [1, 0], [1, 1]] * 2
  )


# --- Folders that cannot be used ----------------------------------------------


def fault(dataset, error=ValueError):
  with pytest.raises(error) as caught:
    dataset("train")
  text = str(caught.value)
  assert "\n" not in text
  return text


def test_no_folder(folder):
  text = fault(build(folder / "none"), FileNotFoundError)
  assert text == f"ImageFolder: there is no folder {folder}/none."
  text = fault(build(folder / "0.png"))
  assert text.startswith(f"ImageFolder: {folder}/0.png is a file. Name the")
  (folder / "empty").mkdir()
  text = fault(build(folder / "empty"))
  assert text.startswith(f"ImageFolder: {folder}/empty holds no image")
  text = fault(build(None))
  assert "no path; name the folder of the images, as in data.path=DIR" in text


def test_without_a_folder_there_is_a_description():
  spec = build(None).batch_spec()
  assert spec == {"image": tf.TensorSpec([2, 1, H, W, 3], tf.float32)}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"image_dim": 5}, "image_dim=5: expected"),
    ({"min_num_objects": -1}, "min_num_objects=-1: expected"),
    ({"ignore_label": 0}, "ignore_label=0: expected"),
    ({"path": ""}, "path='': expected a path or None"),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    ImageFolder(
      **{"path": "a", "batch_size": 2, "image_dim": (H, W), **options}
    )


def test_headers_are_checked_before_the_first_scene(folder):
  (folder / "3.png").write_text("no image")
  (folder / "4.png").write_bytes(b"")
  text = fault(build(folder))
  assert text.startswith(f"{folder}/3.png: no image")
  assert text.endswith("(2 of 6 images cannot be used.)")
  (folder / "3.png").unlink()
  (folder / "3.png").symlink_to(folder / "nowhere")
  assert f"{folder}/3.png: there is no such file" in fault(build(folder))


def test_region_beyond_some_images(folder):
  text = fault(build(folder, crop_region=((0, 2 * H + 2), (0, W))))
  assert text.startswith(f"{folder}/0.png: crop_region=((0, 20), (0, 7))")
  assert text.endswith("(2 of 6 images cannot be used.)")


def test_missing_masks(folder):
  write_masks(folder)
  (folder / "masks" / "2.png").unlink()
  (folder / "masks" / "4.png").unlink()
  text = fault(build(folder))
  assert text.startswith(
    "ImageFolder: 2 of 6 images have no mask; the first that is missing is "
    f"{folder}/masks/2.png."
  )


def test_shared_masks(folder):
  write_masks(folder)
  Image.new("RGB", (3 * W, 2 * H + 2)).save(folder / "2.bmp")
  text = fault(build(folder))
  assert f"2 images share the mask {folder}/masks/2.png" in text


@pytest.mark.parametrize(
  ("mask", "message"),
  [
    (Image.new("L", (3, 5)), "5 rows and 3 columns, but the image has 20 and "),
    (Image.new("RGB", (3 * W, 20)), "a mask in colour"),
  ],
)
def test_masks_that_do_not_fit(folder, mask, message):
  write_masks(folder)
  mask.save(folder / "masks" / "2.png")
  text = fault(build(folder))
  assert text.startswith(f"{folder}/masks/2.png: ")
  assert message in text
  assert text.endswith("(1 of 6 images cannot be used.)")


def test_a_photograph_is_no_mask(folder):
  write_masks(folder)
  labels = np.arange(20 * 3 * W, dtype=np.uint16).reshape(20, 3 * W)
  Image.fromarray(labels).save(folder / "masks" / "2.png")
  text = fault(build(folder, image_dim=(20, 3 * W)))
  assert "419 labels are more than 255. Do its pixels hold the" in text


def test_filter_without_masks(folder):
  text = fault(build(folder, max_num_objects=3))
  assert "there are no masks to count objects by" in text


@pytest.mark.parametrize("number", [0, 5])
def test_an_image_that_is_cut_off(folder, number):
  path = folder / f"{number}.png"
  path.write_bytes(path.read_bytes()[:-30])
  dataset = build(folder)
  with (
    pytest.raises(ConfigError) as caught,
    opening.data_errors_as_config_errors(dataset),
  ):
    list(dataset("eval"))
  text = str(caught.value)
  assert text.startswith(f"data: {path}: damaged or cut off (")
  assert "\n" not in text


# --- The configuration --------------------------------------------------------

TINY = (
  "with",
  "folder",
  "image_dim=[9, 7]",
  *TINY_MODEL,
  "save_summaries_steps=1",
  "stop_after_steps=2",
)


def scalars(folder):
  """The names of a run's scalars in TensorBoard."""
  (path,) = folder.glob("events*")
  return {
    value.tag
    for event in tf.compat.v1.train.summary_iterator(str(path))
    for value in event.summary.value
    if value.metadata.plugin_data.plugin_name == "scalars"
  }


@pytest.mark.parametrize(
  "with_masks", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_train_and_evaluate(folder, tmp_path, capsys, caplog, with_masks):
  caplog.set_level(logging.INFO)
  if with_masks:
    write_masks(folder, [2] * COUNT)
  words = (*TINY, f"data.path={folder}")
  run("-F", tmp_path / "storage", *words, f"checkpoint_dir={tmp_path}/run")
  run_folder = tmp_path / "run_1"
  assert (run_folder / "decomposition.png").is_file()
  lines = [line for line in caplog.messages if line.startswith("step ")]
  assert len(lines) == 2
  assert all(("ARI" in line) == with_masks for line in lines)
  names = scalars(run_folder)
  assert "loss/mse" in names
  assert any("ari" in name for name in names) == with_masks
  metrics = json.loads((tmp_path / "storage/1/metrics.json").read_text())
  assert set(metrics) == ({"loss", "ari"} if with_masks else {"loss"})
  # The run's own file is a valid argument, and says where the images are.
  saved = run_folder / "config.json"
  capsys.readouterr()
  run("evaluate", "with", saved, f"checkpoint_dir={run_folder}")
  assert ("ARI" in capsys.readouterr().out) == with_masks
  (path,) = (run_folder / "evaluation").glob("*.json")
  scores = set(json.loads(path.read_text())["metrics"])
  assert {"mse", "recons", "kl", "elbo"} <= scores
  assert scores & tiny.MASK_SCORES == (
    tiny.MASK_SCORES if with_masks else set()
  )


def test_a_missing_path_is_an_error(tmp_path, capsys):
  error = fail(capsys, 2, *TINY, f"checkpoint_dir={tmp_path}/run")
  assert error.endswith(
    "ConfigError: data: ImageFolder: no path; name the folder of the images, "
    "as in data.path=DIR.\n"
  )
  assert not list(tmp_path.iterdir())


def resolved(*words):
  run_ = command_line.ex.run_commandline(["iodine", "print_config", *words])
  return run_.config


@pytest.mark.parametrize(
  ("words", "outer", "inner"),
  [
    (("folder",), [64, 64], [64, 64]),
    (("folder", "image_dim=[32,48]"), [32, 48], [32, 48]),
    (("folder", "data.image_dim=[32,48]"), [64, 64], [32, 48]),
    (("tetrominoes",), None, [35, 35]),
    (("tetrominoes", "image_dim=[32,48]"), [32, 48], [32, 48]),
    (("tetrominoes", "data.image_dim=[32,48]"), None, [32, 48]),
  ],
)
def test_image_dim_is_an_entry_of_its_own(words, outer, inner):
  entries = resolved("with", *words)
  assert entries["image_dim"] == outer
  (dataset,) = configuration.build(entries, ("data",))
  assert list(dataset.image_dim) == inner


def test_image_dim_follows_an_override_of_a_saved_configuration(tmp_path):
  saved = tmp_path / "config.json"
  entries = resolved("with", "folder", "image_dim=[32,48]")
  saved.write_text(json.dumps({k: entries[k] for k in ("image_dim", "data")}))
  entries = resolved("with", "folder", str(saved), "image_dim=[16,24]")
  (dataset,) = configuration.build(entries, ("data",))
  assert dataset.image_dim == (16, 24)


def test_image_dim_of_a_wrong_value_is_told_once(capsys):
  error = fail(capsys, 2, "with", "folder", "image_dim=64", "data.path=a")
  assert error == (
    "ConfigError: image_dim=64: expected (height, width), two positive "
    "integers\n"
  )


@pytest.mark.slow
def test_the_named_configuration_describes_a_model_without_a_folder():
  entries = configuration.resolve(reading.named_configs()["folder"])
  dataset, model = configuration.build(entries, ("data", "model"))
  assert dataset.batch_spec()["image"].shape == (16, 1, 64, 64, 3)
  model.initialize((64, 64, 3), {})
