"""Tests of iodine.data.hdf5: layout, slices, faults."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from iodine import main as command_line
from iodine.data import hdf5_files, opening
from iodine.data.datasets import HDF5
from iodine.errors import ConfigError

h5py = pytest.importorskip("h5py")

N, L, H, W, F = 7, 4, 9, 11, 6
_RNG = np.random.default_rng(0)
OWNERS = _RNG.integers(L, size=[N, H, W])
OWNERS[2] = 0  # a scene without objects
ARRAYS = {
  "imgs": _RNG.integers(256, size=[N, H, W, 3]).astype(np.uint8),
  "masks": np.uint8(OWNERS[:, None] == np.arange(L)[:, None, None])[..., None]
  * np.uint8(255),
  "factors": _RNG.standard_normal([N, L, F]),
}
COLUMNS = {"position": [1, 0], "shape": [5]}


def write(path, split="test", without=(), options=None, **changes):
  """Writes a file with a split of these arrays, and a smaller one."""
  arrays = {**ARRAYS, **changes}
  with h5py.File(path, "w") as file:
    for name, values in arrays.items():
      if name not in without:
        file.create_dataset(f"{split}/{name}", data=values, **(options or {}))
        file[f"val/{name}"] = values[:2]
  return path


def build(path, **options):
  defaults = {"split": "test", "batch_size": N, "image_dim": (H, W), "seed": 0}
  return HDF5(path, **{**defaults, **options})


@pytest.fixture(name="path")
def fixture_path(tmp_path):
  return write(tmp_path / "a.h5")


@pytest.mark.parametrize("slice_bytes", [1, 3 * 7 * H * W, 2**26])
@pytest.mark.parametrize("options", [{}, {"chunks": True}])
def test_scenes(tmp_path, monkeypatch, slice_bytes, options):
  monkeypatch.setattr(hdf5_files, "_SLICE_BYTES", slice_bytes)
  path = write(tmp_path / "a.h5", options=options)
  dataset = build(path, factor_columns=COLUMNS)
  (batch,) = dataset("eval")
  np.testing.assert_allclose(
    batch["image"][:, 0], ARRAYS["imgs"] / 255, atol=1e-6
  )
  assert batch["mask"].dtype == tf.uint8
  np.testing.assert_array_equal(batch["mask"][:, 0], ARRAYS["masks"] // 255)
  visible = (ARRAYS["masks"] > 0).any(axis=(2, 3, 4))
  np.testing.assert_array_equal(batch["visibility"], visible)
  factors = np.float32(ARRAYS["factors"])
  assert set(batch["factors"]) == {"position", "shape"}
  np.testing.assert_array_equal(
    batch["factors"]["position"], factors[..., [1, 0]]
  )
  np.testing.assert_array_equal(batch["factors"]["shape"], factors[..., 5:])
  assert dataset("train").element_spec == dataset.batch_spec()
  assert dataset.estimated_num_examples() == N


def slices_read(dataset, monkeypatch):
  """Reads a dataset; returns which rows were read at a time."""
  slices = []
  read_images = hdf5_files.read_images

  def recorded(images, rows):
    slices.append((rows.start, rows.stop))
    return read_images(images, rows)

  monkeypatch.setattr(hdf5_files, "read_images", recorded)
  (batch,) = dataset("eval")
  np.testing.assert_allclose(
    batch["image"][:, 0], ARRAYS["imgs"] / 255, atol=1e-6
  )
  return slices


def test_slices_hold_no_more_than_they_may(path, monkeypatch):
  monkeypatch.setattr(hdf5_files, "_SLICE_BYTES", 2 * (3 + L) * H * W)
  read = slices_read(build(path), monkeypatch)
  assert set(read) == {(0, 2), (2, 4), (4, 6), (6, 7)}


def write_chunks(path, image_rows, mask_rows):
  write(path, without=["imgs", "masks", "factors"])
  with h5py.File(path, "w") as file:
    for name, rows in (("imgs", image_rows), ("masks", mask_rows)):
      values = ARRAYS[name]
      file.create_dataset(
        f"test/{name}",
        data=values,
        chunks=(rows, 3, *values.shape[2:]),
        compression="gzip",
      )
  return path


@pytest.mark.parametrize(
  ("slice_scenes", "expected"),
  [
    (7, {(0, 6), (6, 7)}),  # of whole chunks, as many as fit
    (1, {(0, 6), (6, 7)}),  # more than would do otherwise
  ],
)
def test_a_chunk_is_unpacked_once(
  tmp_path, monkeypatch, slice_scenes, expected
):
  monkeypatch.setattr(
    hdf5_files, "_SLICE_BYTES", slice_scenes * (3 + L) * H * W
  )
  path = write_chunks(tmp_path / "a.h5", 2, 3)
  assert set(slices_read(build(path), monkeypatch)) == expected


def test_chunks_that_memory_does_not_hold(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(hdf5_files, "_SLICE_BYTES", (3 + L) * H * W)
  monkeypatch.setattr(hdf5_files, "_MOST_SLICE_BYTES", 5 * (3 + L) * H * W)
  path = write_chunks(tmp_path / "a.h5", 2, 3)
  read = slices_read(build(path), monkeypatch)
  assert set(read) == {(i, i + 1) for i in range(N)}
  (line,) = [x for x in caplog.messages if "chunks" in x]
  assert line.startswith(f"{path}: chunks of 6 rows are too large to hold")
  assert f"-l /test/imgs:CHUNK=1x{H}x{W}x3 " in line
  assert f"-l /test/masks:CHUNK=1x{L}x{H}x{W}x1 OLD NEW" in line


def test_splits(path):
  assert build(path, split="val").estimated_num_examples() == 2
  assert HDF5(path, batch_size=1, image_dim=(H, W)).split == "train"


def test_without_masks(tmp_path):
  path = write(tmp_path / "a.h5", without=["masks", "factors"])
  (batch,) = build(path)("eval")
  assert set(batch) == {"image"}


def test_without_factors(path):
  (batch,) = build(path)("eval")
  assert batch["factors"] == {}
  assert "mask" in batch


def test_filter_crop_and_one_channel(tmp_path):
  path = write(tmp_path / "a.h5", imgs=ARRAYS["imgs"][..., :1])
  region = ((2, 8), (1, 11))
  dataset = build(path, min_num_objects=1, crop_region=region, image_dim=(3, 5))
  (batch,) = dataset("eval")
  assert batch["image"].shape == (N - 1, 1, 3, 5, 1)
  assert build(path, grayscale=True).num_channels == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_other_types(tmp_path, dtype):
  path = write(
    tmp_path / "a.h5",
    imgs=ARRAYS["imgs"].astype(dtype),
    masks=(ARRAYS["masks"] // 255).astype(dtype),
  )
  (batch,) = build(path)("eval")
  np.testing.assert_allclose(
    batch["image"][:, 0], ARRAYS["imgs"] / 255, atol=1e-6
  )
  np.testing.assert_array_equal(batch["mask"][:, 0], ARRAYS["masks"] // 255)


def test_masks_of_three_channels(tmp_path):
  masks = np.repeat(ARRAYS["masks"], 3, axis=-1)
  (batch,) = build(write(tmp_path / "a.h5", masks=masks))("eval")
  np.testing.assert_array_equal(batch["mask"][:, 0], ARRAYS["masks"] // 255)


def test_cache_notices_a_changed_file(tmp_path, path):
  options = {"cache_dir": str(tmp_path / "cache")}
  build(path, **options).build_cache()
  build(path, **options).build_cache()
  assert len(list((tmp_path / "cache").iterdir())) == 1
  write(path, imgs=ARRAYS["imgs"] // 2)
  build(path, **options).build_cache()
  assert len(list((tmp_path / "cache").iterdir())) == 2


# --- Files that cannot be used ------------------------------------------------


def fault(dataset):
  with (
    pytest.raises(ConfigError) as caught,
    opening.data_errors_as_config_errors(dataset),
  ):
    list(dataset("eval"))
  text = str(caught.value)
  assert "\n" not in text
  return text


def test_no_file(tmp_path):
  text = fault(build(tmp_path / "a.h5"))
  assert text == f"data: HDF5: there is no file {tmp_path}/a.h5."
  assert f"{tmp_path} is a folder" in fault(build(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no HDF5 file" * 100])
def test_no_hdf5(tmp_path, content):
  path = tmp_path / "a.h5"
  path.write_bytes(content)
  assert fault(build(path)) == (
    f"data: {path}: no HDF5 file, or its beginning is damaged. Copy or "
    "download it again."
  )


def test_cut_off(path):
  whole = path.read_bytes()
  for size in range(100, len(whole), len(whole) // 20):
    path.write_bytes(whole[:size])
    text = fault(build(path))
    assert text.startswith(f"data: {path}: cut off (")
    assert text.endswith("). Copy or download it again.")


def test_data_that_are_damaged(tmp_path):
  options = {"chunks": True, "compression": "gzip", "fletcher32": True}
  path = write(tmp_path / "a.h5", options=options)
  with h5py.File(path) as file:
    place = file["test/factors"].id.get_chunk_info(0)
  damaged = bytearray(path.read_bytes())
  damaged[place.byte_offset + place.size // 2] ^= 0xFF
  path.write_bytes(damaged)
  text = fault(build(path, factor_columns=COLUMNS))
  assert text.startswith(f"data: {path}: damaged or cut off (")


def test_a_file_that_another_process_writes(path):
  holder = subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import h5py, sys; file = h5py.File(sys.argv[1], 'r+');"
      "print(1, flush=True); sys.stdin.read()",
      path,
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  with holder:
    holder.stdout.readline()
    text = fault(build(path))
    holder.stdin.close()
  assert text.startswith(f"data: {path}: is locked (")
  assert "Another process has it open to write" in text
  assert "HDF5_USE_FILE_LOCKING=FALSE" in text
  assert "download" not in text
  build(path)("eval")


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (PermissionError(13, "unable to open file"), "Permission denied."),
    (OSError(5, "file read failed, errno = 5"), "Input/output error."),
    (OSError(37, "unable to lock file, errno = 37"), "is locked ("),
    (OSError("file is already open for write"), "is marked as being written"),
  ],
)
def test_errors_are_told_by_their_kind(path, monkeypatch, error, message):
  def opened(*args, **kwargs):
    raise error

  monkeypatch.setattr(h5py, "File", opened)
  text = fault(build(path))
  assert text.startswith(f"data: {path}: {message}")
  assert "download" not in text


# --- What is not in the file itself -------------------------------------------


def test_external_storage_is_refused(tmp_path):
  secret = tmp_path / "secret"
  secret.write_bytes(bytes(ARRAYS["imgs"].size))
  path = write(tmp_path / "a.h5", without=["imgs"])
  with h5py.File(path, "a") as file:
    shape = ARRAYS["imgs"].shape
    file["test"].create_dataset(
      "imgs", shape, "u1", external=[(str(secret), 0, ARRAYS["imgs"].size)]
    )
  assert fault(build(path)) == (
    f"data: {path}: the data of /test/imgs are in other files (external "
    "storage). Copy them into this one."
  )


@pytest.mark.parametrize("name", ["imgs", "masks", "factors"])
def test_virtual_data_are_refused(tmp_path, path, name):
  other = write(tmp_path / "b.h5", without=[name])
  with h5py.File(other, "a") as file:
    shape = ARRAYS[name].shape
    layout = h5py.VirtualLayout(shape, ARRAYS[name].dtype)
    layout[...] = h5py.VirtualSource(path, f"test/{name}", shape)
    file["test"].create_virtual_dataset(name, layout)
  text = fault(build(other, factor_columns=COLUMNS))
  assert f"the data of /test/{name} are in other files (virtual st" in text


@pytest.mark.parametrize("linked", ["test", "test/imgs", "test/masks"])
@pytest.mark.parametrize("is_soft", [False, True])
def test_links_to_other_files_are_refused(tmp_path, path, linked, is_soft):
  other = write(tmp_path / "b.h5")
  with h5py.File(other, "a") as file:
    del file[linked]
    place = "elsewhere" if is_soft else linked
    file[place] = h5py.ExternalLink(path, f"/{linked}")
    if is_soft:
      file[linked] = h5py.SoftLink("/elsewhere")
  assert fault(build(other)) == (
    f"data: {other}: /{linked} is in another file, {path}. Copy it into this "
    "one."
  )


def test_links_within_a_file_are_followed(path):
  with h5py.File(path, "a") as file:
    file["more/imgs"] = h5py.SoftLink("/test/imgs")
  (batch,) = build(path, split="more")("eval")
  assert batch["image"].shape[0] == N


def test_a_filter_that_is_not_installed(tmp_path):
  path = write(tmp_path / "a.h5", without=["imgs"])
  with h5py.File(path, "a") as file:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, H, W, 3))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple(ARRAYS["imgs"].shape)
    kind = h5py.h5t.NATIVE_UINT8
    h5py.h5d.create(file["test"].id, b"imgs", kind, space, settings)
  text = fault(build(path))
  assert text.startswith(
    f"data: {path}: /test/imgs is stored with filter 32015 (of no name), which "
    "is not installed. Set HDF5_PLUGIN_PATH"
  )


@pytest.mark.parametrize(
  ("values", "shown"),
  [
    (np.zeros([N, H, W, 3], [("a", "u1")]), "[('a', 'u1')]"),
    (np.zeros([N, H, W, 3], complex), "complex128"),
    (np.full([N, H, W, 3], b"ab"), "|S2"),
    (np.full([N, H, W, 3], "ab", object), "object"),
    (np.zeros([N, H, W, 3], "(2,)u1"), ""),
  ],
)
@pytest.mark.parametrize("name", ["imgs", "factors"])
def test_odd_types(tmp_path, values, shown, name):
  path = write(tmp_path / "a.h5", without=[name])
  with h5py.File(path, "a") as file:
    kind = h5py.string_dtype() if values.dtype == object else values.dtype
    file["test"].create_dataset(name, values.shape, kind)
  text = fault(build(path, factor_columns=COLUMNS))
  assert text.startswith(f"data: {path}: /test/{name} ")
  assert shown in text


def test_a_type_that_numpy_does_not_have(tmp_path):
  path = write(tmp_path / "a.h5", without=["imgs"])
  with h5py.File(path, "a") as file:
    space = h5py.h5s.create_simple(ARRAYS["imgs"].shape)
    kind = h5py.h5t.UNIX_D32LE
    h5py.h5d.create(file["test"].id, b"imgs", kind, space)
  text = fault(build(path))
  assert text.startswith(f"data: {path}: /test/imgs holds no numbers that can")


def test_an_empty_dataset(tmp_path):
  path = write(tmp_path / "a.h5", without=["imgs"])
  with h5py.File(path, "a") as file:
    file["test/imgs"] = h5py.Empty("u1")
  assert "imgs has the shape None; expected 4 dim" in fault(build(path))


def test_missing_group_or_dataset(tmp_path, path):
  text = fault(build(path, split="train"))
  assert f"{path} has no group split='train'; there is: test, val." in text
  write(path, without=["imgs"])
  text = fault(build(path))
  assert "/test has no dataset 'imgs'; there is: factors, masks." in text
  write(path, without=["factors"])
  assert "no dataset 'factors'" in fault(build(path, factor_columns=COLUMNS))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"imgs": ARRAYS["imgs"][..., 0]}, "imgs has the shape (7, 9, 11); exp"),
    ({"imgs": ARRAYS["imgs"].transpose(0, 3, 1, 2)}, "with 1 or 3 channels C"),
    ({"masks": OWNERS}, "masks has the shape (7, 9, 11); expected 5 dimens"),
    ({"masks": OWNERS[:, None, ..., None]}, "with L of 2 or more entities"),
    ({"masks": ARRAYS["masks"][:5]}, "like imgs (7, 9, 11, 3)"),
    ({"masks": ARRAYS["masks"][..., :5, :]}, "like imgs (7, 9, 11, 3)"),
    ({"factors": ARRAYS["factors"][..., :5]}, "[7, 4, 6 or more]"),
    ({"factors": ARRAYS["factors"][:, :3]}, "[7, 4, 6 or more]"),
    ({"imgs": ARRAYS["imgs"] / 255}, "expected integers from 0 to 255. Store"),
    (
      {"imgs": ARRAYS["imgs"].astype(np.int32) + 9},
      "holds int32 from 9 to 264; exp",
    ),
  ],
)
def test_wrong_shapes_and_values(tmp_path, changes, message):
  path = write(tmp_path / "a.h5", **changes)
  text = fault(build(path, factor_columns=COLUMNS))
  assert text.startswith(f"data: {path}: ")
  assert message in text


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": ""}, "split='': expected"),
    ({"factor_columns": ["shape"]}, "factor_columns=.* a mapping from names"),
    ({"factor_columns": {"shape": 3}}, "factor_columns=.* lists of columns"),
    ({"factor_columns": {"shape": [-1]}}, "factor_columns=.* from 0"),
    ({"factor_columns": {"shape": []}}, "factor_columns="),
  ],
)
def test_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    build("a.h5", **options)


def test_h5py_is_an_extra(path, monkeypatch):
  monkeypatch.setitem(sys.modules, "h5py", None)
  text = fault(build(path))
  assert "needs the package h5py, which the extra `hdf5` installs" in text


# --- The configuration --------------------------------------------------------


@pytest.mark.slow
def test_training_on_the_command_line(path, tmp_path):
  words = (
    "with",
    "tetrominoes",
    "data.constructor=iodine.modules.data.HDF5",
    "data_file=a.h5",
    f"data_dir={tmp_path}",
    "data.split=test",
    f"data.factor_columns={dict(COLUMNS, color=[2, 3, 4])}",
    f"image_dim={[H, W]}",
    "num_iters=1",
    "held_out_scenes=2",
    "batch_size=2",
    "stop_after_steps=2",
    f"checkpoint_dir={tmp_path}/run",
  )
  command_line.main(["iodine", *words])
  assert (tmp_path / "run_1" / "model.ckpt-2.index").is_file()
