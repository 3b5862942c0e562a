"""Tests of iodine.data.shapes3d: splits and factors."""

import itertools

import numpy as np
import pytest

from iodine import main as command_line
from iodine.data import description, hdf5_files
from iodine.data.datasets import Shapes3D

h5py = pytest.importorskip("h5py")

N = 480_000
VALUES = [
  np.arange(10) / 10,
  np.arange(10) / 10,
  np.arange(10) / 10,
  np.linspace(0.75, 1.25, 8),
  np.arange(4.0),
  np.linspace(-30, 30, 15),
]


@pytest.fixture(name="path", scope="module")
def fixture_path(tmp_path_factory):
  """The genuine layout; images that were never written take no place."""
  path = tmp_path_factory.mktemp("shapes3d") / "3dshapes.h5"
  with h5py.File(path, "w") as file:
    images = file.create_dataset(
      "images", [N, 64, 64, 3], "uint8", chunks=(64, 64, 64, 3)
    )
    for index in (0, 399_999, 400_000, 429_999, 430_000, 459_999):
      images[index] = index // 2000
    file["labels"] = np.array(list(itertools.product(*VALUES)))
  return path


def values_of(dataset):
  scene = next(iter(dataset("eval")))["image"][0]
  return np.unique(np.rint(scene * 255))


@pytest.mark.parametrize(
  ("split", "count", "first", "last"),
  [
    ("train", 400_000, 0, 199),
    ("val", 30_000, 200, 214),
    ("test", 30_000, 215, 229),
  ],
)
def test_published_split(path, split, count, first, last):
  options = {"batch_size": 1, "split": split}
  dataset = Shapes3D(path, **options)
  assert dataset.estimated_num_examples() == count
  assert values_of(dataset) == first
  assert dataset.image_dim == (64, 64)
  if split != "train":  # whose last image is far
    assert values_of(Shapes3D(path, **options, skip=count - 1)) == last


def test_published_split_leaves_hues_out(path):
  floors = {
    split: np.bincount(
      Shapes3D(path, batch_size=1, split=split).categories()["floor_hue"],
      minlength=10,
    )
    for split in ("train", "val", "test")
  }
  assert floors["train"].tolist() == [48_000] * 8 + [16_000, 0]
  assert floors["val"].tolist() == [0] * 8 + [30_000, 0]
  assert floors["test"].tolist() == [0] * 8 + [2_000, 28_000]


def test_categories(path):
  categories = Shapes3D(path, batch_size=1).categories()
  sizes = [len(values) for values in VALUES]
  index = np.stack(np.unravel_index(np.arange(N), sizes))
  np.testing.assert_array_equal(list(categories.values()), index)
  assert list(categories) == [
    "floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation",
  ]  # fmt: skip


def test_random_split(path):
  def members(split, seed):
    return Shapes3D(path, batch_size=1, split=split, split_seed=seed)._members

  splits = [members(split, 1) for split in ("train", "val", "test")]
  assert [int(x.sum()) for x in splits] == [400_000, 30_000, 30_000]
  assert np.sum(splits, axis=0).max() == 1
  assert (splits[1] == members("val", 1)).all()
  assert (splits[1] != members("val", 2)).any()
  dataset = Shapes3D(path, batch_size=1, split="val", split_seed=1)
  assert dataset.estimated_num_examples() == 30_000
  for rank in dataset.categories().values():
    counts = np.bincount(rank)
    assert counts.min() > 0.9 * 30_000 / len(counts)
  assert Shapes3D(path, batch_size=1, split_seed=1)._members is None


def test_random_split_reads_its_own_images(tmp_path, monkeypatch):
  images = np.arange(10, dtype=np.uint8)[:, None, None, None]
  images = np.tile(images, [1, 4, 4, 3])
  path = tmp_path / "a.h5"
  with h5py.File(path, "w") as file:
    file.create_dataset("images", data=images, chunks=(3, 4, 4, 3))
  monkeypatch.setattr(
    "iodine.data.shapes3d._SPLITS", {"train": (0, 6), "val": (6, 9)}
  )
  monkeypatch.setattr(hdf5_files, "_SLICE_BYTES", 3 * 48)
  options = {"batch_size": 10, "image_dim": (4, 4), "split_seed": 0}
  seen = {}
  for split in ("train", "val"):
    (batch,) = Shapes3D(path, split=split, **options)("eval")
    seen[split] = np.rint(batch["image"][:, 0, 0, 0, 0] * 255).astype(int)
    assert (np.diff(seen[split]) > 0).all()  # in the order of the file
  order = np.random.RandomState(0).permutation(10)
  assert sorted(seen["train"]) == sorted(order[:6])
  assert sorted(seen["val"]) == sorted(order[6:9])


def test_description(path):
  lines = description.format_files(Shapes3D(path, batch_size=1, split="val"))
  assert lines == [
    f"data      Shapes3D: {path}, val: 30000 scenes",
    "factors of whole images, as categories:",
    "  floor_hue    8",
    "  wall_hue     3, 4, 5, 6, 7, 8, 9",
    "  object_hue   0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    "  scale        0, 1, 2, 3, 4, 5, 6, 7",
    "  shape        0, 1, 2, 3",
    "  orientation  0 to 14 (15 distinct values)",
  ]


@pytest.mark.parametrize(
  ("shapes", "message"),
  [
    ({"labels": [7, 6]}, "has no dataset 'images'; there is: labels."),
    ({"images": [7, 4, 4]}, "images has the shape (7, 4, 4); expected 4 dim"),
    (
      {"images": [7, 4, 4, 3]},
      "split='train' ends at image 400,000, but there ",
    ),
    (
      {"images": [400_000, 4, 4, 3], "labels": [7, 6]},
      "labels has the shape (7, 6); expected [N, 6] = [400000, 6].",
    ),
  ],
)
def test_files_that_are_something_else(tmp_path, shapes, message):
  path = tmp_path / "a.h5"
  with h5py.File(path, "w") as file:
    for name, shape in shapes.items():
      file.create_dataset(name, shape, "uint8", chunks=True)
  dataset = Shapes3D(path, batch_size=1, split="train")
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    description.format_files(dataset)
  assert str(caught.value).startswith(f"{path}: ")
  assert message in str(caught.value)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"split": "validation"},
      "split='validation': no such value. Valid values: ",
    ),
    ({"split_seed": -1}, "split_seed=-1: expected an integer from 0 to"),
    ({"split_seed": 2**32}, "split_seed=4294967296: expected an integer"),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    Shapes3D("a.h5", batch_size=1, **options)


def test_training_on_the_command_line(path, tmp_path):
  words = (
    "with",
    "slate_shapes3d",
    f"data_dir={path.parent}",
    "data.split_seed=0",
    "data.shuffle_buffer=null",
    "image_dim=[8,8]",
    "batch_size=2",
    "n_z=8",
    "model.vocab_size=8",
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_blocks=1",
    "model.mlp_size=8",
    "stop_after_steps=2",
    f"checkpoint_dir={tmp_path}/run",
  )
  command_line.main(["iodine", *words])
  assert (tmp_path / "run_1" / "model.ckpt-2.index").is_file()
