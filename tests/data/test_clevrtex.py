"""Tests of iodine.data.clevrtex: layout, splits, masks, factors, faults."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from iodine.config import reading, resolution
from iodine.data import (
  clevrtex,
  clevrtex_objects,
  image_files,
  scene_files,
)
from iodine.modules.data import ClevrTex
from tests.support import clevrtex_files
from tests.support.small_datasets import fault
from tests.support.tiny_runs import TINY_MODEL, run

COUNT = 20
H, W = 96, 48


@pytest.fixture(name="stored", scope="module")
def fixture_stored(tmp_path_factory):
  """The files of all tests that do not change them."""
  folder = tmp_path_factory.mktemp("clevrtex")
  return clevrtex_files.write(folder, COUNT)


@pytest.fixture(name="few", autouse=True)
def fixture_few(monkeypatch):
  for variant in clevrtex.NUM_SCENES:
    monkeypatch.setitem(clevrtex.NUM_SCENES, variant, COUNT)


def build(folder, **options):
  options.setdefault("path", folder)
  defaults = {"batch_size": 2, "image_dim": (H, W), "seed": 0, "split": "test"}
  return ClevrTex(**{**defaults, **options})


def numbers(batch):
  """Numbers of the scenes of a batch."""
  red = batch["image"][:, 0, 0, 0, 0].numpy()
  return [round(float(value) * 255 / 10) for value in red]


def all_numbers(dataset):
  return sum((numbers(batch) for batch in dataset("eval")), [])


# --- Scenes -------------------------------------------------------------------


def test_splits_are_the_published_ones(stored):
  assert all_numbers(build(stored)) == [0, 1]
  assert all_numbers(build(stored, split="val")) == [2, 3]
  train = build(stored, split="train", batch_size=4)
  assert all_numbers(train) == list(range(4, 20))
  assert train.estimated_num_examples() == 16


def test_published_numbers_of_scenes(monkeypatch):
  monkeypatch.undo()
  expected = {
    ("full", "test"): (0, 4_999),
    ("full", "val"): (5_000, 9_999),
    ("full", "train"): (10_000, 49_999),
    ("camo", "train"): (4_000, 19_999),
    ("outd", "test"): (0, 9_999),
  }
  for (variant, split), ends in expected.items():
    dataset = build("nowhere", dataset_variant=variant, split=split)
    indices = dataset._indices()
    assert (indices[0], indices[-1]) == ends


def test_image_is_cropped_and_resized_as_published(stored):
  (batch,) = build(stored)("eval")
  path = clevrtex_files.path_of(stored, 1, ".png", "full")
  with Image.open(path) as image:
    assert image.mode == "RGBA"
    pixels = Image.fromarray(np.array(image)[..., :3])
  square = pixels.crop((64, 24, 256, 216))
  expected = np.array(square.resize((W, H), Image.Resampling.BILINEAR))
  found = batch["image"][1, 0].numpy() * 255
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_masks_and_visibility_are_those_of_the_crop(stored):
  dataset = build(stored)
  (batch,) = dataset("eval")
  mask = batch["mask"].numpy()
  assert mask.shape == (2, 1, 11, H, W, 1)
  np.testing.assert_array_equal(mask.sum(axis=2), 1)
  labels = Image.fromarray(clevrtex_files.labels_of(1)[24:216, 64:256])
  expected = np.array(labels.resize((W, H), Image.Resampling.NEAREST))
  np.testing.assert_array_equal(mask.argmax(axis=2)[1, 0, ..., 0], expected)
  # Object 1 lies outside of the crop; there are three and four objects.
  np.testing.assert_array_equal(
    batch["visibility"],
    [[1, 0, 1, 1, 0] + [0] * 6, [1, 0, 1, 1, 1] + [0] * 6],
  )
  assert dataset("train").element_spec == dataset.batch_spec()


def test_whole_image(stored):
  dataset = build(stored, crop_region=None, image_dim=(240, 320))
  (batch,) = dataset("eval")
  found = batch["mask"].numpy().argmax(axis=2)[0, 0, ..., 0]
  np.testing.assert_array_equal(found, clevrtex_files.labels_of(0))
  assert batch["visibility"][0].numpy().sum() == 4


def test_factors_by_entity(stored):
  dataset = build(stored)
  (batch,) = dataset("eval")
  factors = {name: x[0].numpy() for name, x in batch["factors"].items()}
  material = 1 + clevrtex_objects.MATERIALS.index("Bricks01")
  assert factors["material"][:, 0].tolist() == [0] + [material] * 3 + [0] * 7
  assert factors["shape"][:5, 0].tolist() == [0, 2, 3, 4, 0]
  assert factors["size"][:5, 0].tolist() == [0, 2, 1, 3, 0]
  np.testing.assert_allclose(factors["rotation"][:4, 0], [0, 30.5, 61, 91.5])
  np.testing.assert_allclose(factors["location"][2], [1.0, -0.5, 0.7])
  np.testing.assert_allclose(factors["position"][3], [110, 75, 12.5])
  assert not any(x[4:].any() for x in factors.values())
  assert set(factors) == set(clevrtex_objects.FACTORS) - {"color"}


@pytest.mark.parametrize("variant", ["vbg", "outd"])
def test_other_variants(tmp_path, variant):
  clevrtex_files.write(tmp_path, COUNT, variant)
  dataset = build(tmp_path, dataset_variant=variant, batch_size=COUNT)
  (batch,) = dataset("eval")
  factors = {name: x[0, :3, 0] for name, x in batch["factors"].items()}
  if variant == "vbg":
    assert numbers(batch) == [0, 1]
    assert factors["color"].numpy().tolist() == [0, 8, 1]
    assert factors["shape"].numpy().tolist() == [0, 2, 3]
  else:
    assert numbers(batch) == list(range(COUNT))
    assert "color" not in factors
    assert factors["shape"].numpy().tolist() == [0, 6, 7]


def test_the_mislabelled_material_has_its_right_name(tmp_path):
  clevrtex_files.write(tmp_path, COUNT)
  content = clevrtex_files.content_of(0, "full")
  wrong = "poliigonfabricupholsterybrightanglepattern001"
  content["objects"][0]["material"] = wrong  # of the third object
  path = clevrtex_files.path_of(tmp_path, 0, ".json", "full")
  path.write_text(json.dumps(content))
  (batch,) = build(tmp_path)("eval")
  number = int(batch["factors"]["material"][0, 3, 0])
  name = "FabricUpholsteryMidCenturyPebbles001"
  assert clevrtex_objects.MATERIALS[number - 1] == name


def test_filter_counts_what_the_crop_leaves_or_the_whole_scene(stored):
  options = {"split": "train", "max_num_objects": 6, "batch_size": 16}
  cropped = all_numbers(build(stored, **options))
  whole = all_numbers(build(stored, count_objects="scene", **options))
  objects = {i: clevrtex_files.num_objects(i) for i in range(4, COUNT)}
  assert cropped == [i for i, count in objects.items() if count - 1 <= 6]
  assert whole == [i for i, count in objects.items() if count <= 6]
  masks_alone = build(stored, metadata=False, count_objects="scene", **options)
  assert all_numbers(masks_alone) == whole


def test_without_metadata_there_are_no_factors(tmp_path):
  clevrtex_files.write(tmp_path, COUNT)
  for path in tmp_path.rglob("*.json"):
    path.unlink()
  dataset = build(tmp_path / "clevrtex_full", metadata=False)
  (batch,) = dataset("eval")
  assert batch["factors"] == {}
  assert batch["visibility"].numpy().sum() == 3 + 4
  assert len(dataset.stored_files()) == 2 * 2


def test_training_shuffles_all_scenes_and_resumes(stored):
  options = {"split": "train", "batch_size": 8, "shuffle_buffer": 1}
  stream = list(build(stored, **options).batches().take(4))
  found = [numbers(batch) for batch, _ in stream]
  for epoch in (found[0] + found[1], found[2] + found[3]):
    assert sorted(epoch) == list(range(4, COUNT))
    assert epoch != sorted(epoch)
  after = stream[0][1]
  resumed = build(stored, **options).batches(after).take(1)
  assert [numbers(batch) for batch, _ in resumed] == found[1:2]


def test_cache_of_each_variant_and_split(stored, tmp_path):
  options = {"cache_dir": str(tmp_path)}
  for split in ("test", "val", "test"):
    batch = next(iter(build(stored, split=split, **options)("train")))
    assert set(numbers(batch)) <= ({0, 1} if split == "test" else {2, 3})
  assert len(list(tmp_path.iterdir())) == 2


def test_files_that_stand_for_all(stored, monkeypatch):
  monkeypatch.setattr(scene_files, "_MOST_COMPARED", 3)
  dataset = build(stored, split="train")
  names = [path[-15:] for path in dataset.stored_files()[::3]]
  assert names == [f"full_{index:06d}.png" for index in (4, 12, 19)]
  assert len(dataset.variant(verify=True).stored_files()) == 3 * 16


# --- Files that cannot be used ------------------------------------------------


@pytest.fixture(name="own")
def fixture_own(stored, tmp_path):
  return shutil.copytree(stored, tmp_path / "own")


@pytest.mark.parametrize("index", [4, 9, 19])
@pytest.mark.parametrize("suffix", [".png", "_flat.png", ".json"])
def test_missing_file(own, index, suffix):
  path = clevrtex_files.path_of(own, index, suffix, "full")
  path.unlink()
  text = fault(build(own, split="train"))
  assert f"there is no file {path}. The split train of full has" in text
  assert "the scenes 4 to 19: fetch and unpack all archives" in text
  assert all_numbers(build(own)) == [0, 1]  # None of these is missing.


def test_no_folder(tmp_path):
  text = fault(build(tmp_path))
  assert f"there is no folder {tmp_path}/clevrtex_full. Fetch it: " in text
  assert text.endswith("./download_datasets.sh clevrtex_full")


def test_masks_whose_palette_was_expanded(own):
  path = clevrtex_files.path_of(own, 1, "_flat.png", "full")
  with Image.open(path) as mask:
    gray, colored = mask.convert("L"), mask.convert("RGB")
  gray.save(path)
  text = fault(build(own))
  assert f"{path}: label 226, but there are 4 objects at most" in text
  assert "The indices of its palette are the labels" in text
  colored.save(path)
  assert f"{path}: a mask in colour (mode RGB)" in fault(build(own))


def test_more_labels_than_objects(own):
  path = clevrtex_files.path_of(own, 0, "_flat.png", "full")
  clevrtex_files.write_mask(path, clevrtex_files.labels_of(3))
  assert f"{path}: label 6, but there are 3 objects" in fault(build(own))


@pytest.mark.parametrize("suffix", [".png", "_flat.png"])
def test_images_of_another_size(own, suffix):
  path = clevrtex_files.path_of(own, 1, suffix, "full")
  with Image.open(path) as image:
    smaller = image.resize((128, 120))
  smaller.save(path)
  text = fault(build(own))
  assert f"{path}: 120 rows and 128 columns; expected the 240 and 320" in text


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"image_index": 7}, "it is of image 7, not 1. Was it renamed?"),
    ({"objects": [{}]}, "not as ClevrTex's files are (KeyError: 'index')"),
    ({"objects": [{"index": 2}]}, "its objects have the indices [2]"),
    ({"objects": None}, "not as ClevrTex's files are (TypeError: "),
    ({"shape": "cat"}, "shape 'cat' is none of ClevrTex's; metadata=False"),
    ({"material": "Wood"}, "material 'Wood' is none of ClevrTex's; metadata="),
  ],
)
def test_odd_metadata(own, change, message):
  path = clevrtex_files.path_of(own, 1, ".json", "full")
  content = clevrtex_files.content_of(1, "full")
  if change.keys() <= content.keys():
    content |= change
  else:
    content["objects"][0] |= change
  path.write_text(json.dumps(content))
  assert f"{path}: {message}" in fault(build(own))


@pytest.mark.parametrize("content", [b'{"a": "b', b"\xff", b"[" * 99_999])
def test_damaged_metadata(own, content):
  path = clevrtex_files.path_of(own, 1, ".json", "full")
  path.write_bytes(content)
  text = fault(build(own))
  assert f"{path}: damaged or cut off (" in text
  assert text.endswith("Copy it again.")


def test_damaged_image(own):
  path = clevrtex_files.path_of(own, 1, ".png", "full")
  path.write_bytes(path.read_bytes()[:-99])
  assert f"{path}: damaged or cut off (" in fault(build(own))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"dataset_variant": "ful"}, "Did you mean 'full'?"),
    ({"split": "valid"}, "split='valid': no such value"),
    (
      {"dataset_variant": "outd", "split": "train"},
      "split='train': outd has no splits, all of it is for tests; set 'test'",
    ),
    ({"metadata": 1}, "metadata=1: expected True or False"),
    ({"count_objects": "all"}, "count_objects='all': no such value"),
    ({"crop_region": ((0, 241), (0, 5))}, "beyond the 240 rows and 320 col"),
    ({"crop_region": ((0, 5), (0, 321))}, "beyond the 240 rows and 320 col"),
    ({"max_num_objects": "6"}, "max_num_objects='6': is text"),
    ({"min_num_objects": 11}, "min_num_objects=11: expected an integer from"),
    ({"path": ""}, "path='': expected a path"),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    build("nowhere", **options)


def test_materials_are_distinct_and_fit_a_byte():
  names = [name.lower() for name in clevrtex_objects.MATERIALS]
  assert len(names) == len(set(names)) == 88
  assert tf.as_dtype(clevrtex_objects.FACTORS["material"][0]).max >= 88


def test_alpha_that_is_dropped(tmp_path):
  path = tmp_path / "a.png"
  Image.new("RGBA", (3, 2), (10, 20, 30, 0)).save(path)
  loaded = image_files.load_image(path, keep_alpha=False)
  np.testing.assert_array_equal(loaded, np.full([2, 3, 3], [10, 20, 30]))
  assert (image_files.load_image(path) == 255).all()


# --- The configuration --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "expected"),
  [
    (
      "clevrtex",
      {"n_z": 128, "num_components": 11, "num_iters": 5, "learn_rate": 3e-4},
    ),
    (
      "slot_attention_clevrtex",
      {"n_z": 64, "num_components": 11, "num_iters": 3, "learn_rate": 4e-4},
    ),
    ("gnm_clevrtex", {"learn_rate": 1e-4, "stop_after_steps": 300_000}),
  ],
)
def test_configurations(name, expected):
  entries = resolution.resolve(reading.named_configs()[name])
  assert expected.items() <= entries.items()
  assert entries["batch_size"] == 32
  assert entries["held_out_scenes"] == 0
  assert not entries["paper_scores"]  # None could be verified.
  dataset, model = resolution.build(entries, ("data", "model"))
  factors = {name: size for name, (_, size) in dataset.factors.items()}
  model.initialize((128, 128, 3), factors)
  if name == "gnm_clevrtex":
    assert entries["model"]["sigma"] == 0.5
  if name == "clevrtex":
    pixels = entries["model"]["output_dist"]["component_dist"]
    assert (pixels["dist"], pixels["scale_val"]) == ("normal", 0.1)
    sizes = {x.name: x.size for x in model.factor_evaluator.mapping}
    assert sizes["material"] == 1 + len(clevrtex_objects.MATERIALS)


def test_trains_evaluates_and_describes(stored, tmp_path, capsys):
  words = (
    "with",
    "clevrtex",
    f"data.path={stored}",
    f"checkpoint_dir={tmp_path}/run",
    f"pictures_dir={tmp_path}",
    "image_dim=[18,14]",
    *TINY_MODEL,
    "stop_after_steps=2",
  )
  run(*words)
  words = (*words, f"checkpoint_dir={tmp_path}/run_1")
  capsys.readouterr()
  run("evaluate", *words, "data.split=val")
  output = capsys.readouterr().out
  assert "ARI without background" in output
  assert "accuracy of material" in output
  run("describe_data", *words, "data.split=test")
  output = capsys.readouterr().out
  assert f"ClevrTex: {stored}, full, test: 2 scenes" in output
  assert "11 a scene: 1 background first, then up to 10 objects" in output
  assert (tmp_path / "clevrtex_scenes.png").is_file()
