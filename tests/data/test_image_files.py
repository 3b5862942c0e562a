"""Tests of iodine.data.image_files: formats, modes, orientation, damage."""

import errno
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from iodine import checks
from iodine.data import image_files
from iodine.data.image_files import ImageFileError

H, W = 11, 17
PIXELS = np.random.default_rng(0).integers(256, size=[H, W, 3], dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(4, size=[H, W], dtype=np.uint8)


def save(path, image, **options):
  image.save(path, **options)
  return str(path)


def encode(image, file_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


def png(width, height, depth, color_type, rows, before=(), after=()):
  """Lays out a PNG file of any header, with more chunks around the pixels."""

  def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum

  header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + b"".join(chunk(*more) for more in before)
    + chunk(b"IDAT", zlib.compress(rows))
    + b"".join(chunk(*more) for more in after)
    + chunk(b"IEND", b"")
  )


# --- Images -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "gif", "jpg"])
def test_formats(tmp_path, suffix):
  # Smooth, so that lossy formats stay near.
  ramp = np.add.outer(np.arange(H) * 8, np.arange(W) * 5)
  pixels = np.uint8(np.stack([ramp, ramp, ramp], axis=-1))
  options = {"lossless": True} if suffix == "webp" else {}
  path = save(tmp_path / f"a.{suffix}", Image.fromarray(pixels), **options)
  loaded = image_files.load_image(path)
  assert loaded.dtype == np.uint8
  assert loaded.shape == (H, W, 3)
  error = np.abs(loaded.astype(int) - pixels).max()
  assert error <= (12 if suffix == "jpg" else 0)
  assert image_files.image_size(path) == (H, W)
  assert f".{suffix}" in image_files.IMAGE_SUFFIXES


def test_first_image_of_an_animation(tmp_path):
  frames = [Image.new("RGB", (W, H), color) for color in ("red", "blue")]
  path = tmp_path / "a.gif"
  frames[0].save(path, save_all=True, append_images=frames[1:])
  loaded = image_files.load_image(path)
  np.testing.assert_array_equal(loaded, np.full([H, W, 3], [255, 0, 0]))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_modes(tmp_path, mode):
  image = Image.fromarray(PIXELS).convert(mode)
  suffix = "jpg" if mode == "CMYK" else "png"
  path = save(tmp_path / f"a.{suffix}", image)
  with Image.open(path) as stored:
    assert stored.mode == mode
  expected = np.array(image.convert("RGB")).astype(int)
  loaded = image_files.load_image(path)
  if mode == "CMYK":  # which JPEG blurs
    loaded, expected = loaded.mean(), expected.mean()
  np.testing.assert_allclose(loaded, expected, atol=6 if mode == "CMYK" else 0)


def test_sixteen_bits(tmp_path):
  values = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
  path = save(tmp_path / "a.png", Image.fromarray(values))
  loaded = image_files.load_image(path)
  expected = np.rint(values / 65535 * 255)
  np.testing.assert_array_equal(loaded, np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette"])
def test_transparent_pixels_lie_on_white(tmp_path, mode):
  alpha = np.full([H, W], 255, np.uint8)
  alpha[:, :5] = 0
  if mode == "palette":
    image = Image.fromarray(PIXELS).quantize(7)
    pixels = np.array(image.convert("RGB"))
    alpha = np.where(np.array(image) == 3, 0, 255)
    path = save(tmp_path / "a.png", image, transparency=3)
  else:
    opaque = Image.fromarray(PIXELS).convert(mode[:-1])
    pixels = np.array(opaque.convert("RGB"))
    opaque.putalpha(Image.fromarray(alpha))
    path = save(tmp_path / "a.png", opaque)
  expected = np.where(alpha[..., None] == 0, 255, pixels)
  np.testing.assert_array_equal(image_files.load_image(path), expected)
  assert (alpha == 0).any()


def packed(depth, values):
  """Lays out a row of values without a filter."""
  digits = "".join(format(value, f"0{depth}b") for value in values)
  digits += "0" * (-len(digits) % 8)
  return b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")


@pytest.mark.parametrize(
  ("depth", "values", "clear", "expected"),
  [
    (1, [0, 1, 0], 0, [255, 255, 255]),
    (1, [0, 1, 0], 1, [0, 255, 0]),
    (2, [0, 1, 2, 3], 1, [0, 255, 170, 255]),
    (4, [0, 5, 9, 15], 5, [0, 255, 153, 255]),
    (8, [0, 5, 9, 255], 5, [0, 255, 9, 255]),
    # Those of the same upper byte stay.
    (16, [0, 5140, 5141, 65535], 5140, [0, 255, 20, 255]),
    (16, [0, 1, 65535], 0, [255, 0, 255]),
  ],
)
def test_a_transparent_gray_lies_on_white(
  tmp_path, depth, values, clear, expected
):
  path = tmp_path / "a.png"
  key = (b"tRNS", struct.pack(">H", clear))
  rows = packed(depth, values)
  path.write_bytes(png(len(values), 1, depth, 0, rows, before=[key]))
  loaded = image_files.load_image(path)
  np.testing.assert_array_equal(loaded[0, :, 0], expected)
  np.testing.assert_array_equal(loaded[0, :, 2], expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_lies_on_white(tmp_path, depth):
  path = tmp_path / "a.png"
  unit = 257 if depth == 16 else 1
  clear = np.array([10, 20, 30]) * unit
  pixels = np.stack([clear, clear + [0, 0, 1], [40 * unit] * 3])
  key = (b"tRNS", struct.pack(">HHH", *clear))
  exif = (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0\2\0" + bytes(6))
  rows = packed(depth, pixels.ravel())
  path.write_bytes(png(3, 1, depth, 2, rows, before=[key, exif]))
  mirrored = image_files.load_image(path)[:, ::-1]
  expected = [[255] * 3, [10, 20, 30 + (depth == 8)], [40] * 3]
  np.testing.assert_array_equal(mirrored, [expected])


# --- Metadata -----------------------------------------------------------------

LARGE = zlib.compress(bytes(2 * 10**6))


@pytest.mark.parametrize(
  "chunk",
  [
    (b"zTXt", b"a\0\0" + LARGE),
    (b"zTXt", b"a\0\7" + LARGE),
    (b"iTXt", b"a\0\1\0\0\0" + LARGE),
    (b"tEXt", b"a\0" + bytes(70 * 2**20)),
    (b"iCCP", b"a\0\0" + LARGE),
    (b"iCCP", b"a\0\5" + LARGE),
    (b"iCCP", b""),
    (b"eXIf", b"garbage!"),
    (b"eXIf", b""),
    (b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
    *((kind, b"1") for kind in (b"gAMA", b"cHRM", b"pHYs", b"acTL", b"tIME")),
    (b"sRGB", b""),
    (b"acTL", bytes(8)),
    (b"fcTL", bytes(26)),
    (b"prVt", b"of some program"),
  ],
  ids=lambda chunk: f"{chunk[0].decode()}-{len(chunk[1])}",
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_no_metadata_keep_an_image_from_being_read(tmp_path, chunk, place):
  path = tmp_path / "a.png"
  rows = packed(8, [3, 200])
  path.write_bytes(png(2, 1, 8, 0, rows, **{place: [chunk]}))
  np.testing.assert_array_equal(
    image_files.load_image(path), [[[3] * 3, [200] * 3]]
  )
  np.testing.assert_array_equal(image_files.load_labels(path), [[3, 200]])
  assert image_files.image_size(path) == (1, 2)


def test_metadata_with_a_wrong_checksum(tmp_path):
  path = tmp_path / "a.png"
  content = png(2, 1, 8, 0, packed(8, [3, 200]), before=[(b"tEXt", b"a\0b")])
  path.write_bytes(content.replace(b"a\0b", b"a\0c"))
  assert image_files.load_labels(path).tolist() == [[3, 200]]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the data
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
  "exif",
  [
    b"garbage",
    b"",
    b"II*\0\x08\0\0\0\xff\xff",
    # No orientation: 0, 9, a text, a fraction.
    b"II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0\0\0" + bytes(6),
    b"II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0\x09\0" + bytes(6),
    b"II*\0\x08\0\0\0\x01\0\x12\1\2\0\4\0\0\0abc\0" + bytes(4),
    b"II*\0\x08\0\0\0\x01\0\x12\1\5\0\1\0\0\0\xff\0" + bytes(6),
  ],
)
def test_odd_exif_data_turn_nothing(tmp_path, file_format, exif):
  path = tmp_path / "a"
  image = Image.new("RGB", (16, 8), "red")
  image.save(path, format=file_format, exif=b"Exif\0\0" + exif)
  assert image_files.image_size(path) == (8, 16)
  assert image_files.load_image(path).shape == (8, 16, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation, suffix):
  # A quadrant of each colour, of 16 pixels, which JPEG keeps apart.
  shown = np.zeros([32, 48, 3], np.uint8)
  shown[:16, :24], shown[:16, 24:] = [250, 0, 0], [0, 250, 0]
  shown[16:, :24], shown[16:, 24:] = [0, 0, 250], [250, 250, 250]
  # What a camera that is turned stores of it: rows and columns of the EXIF
  # standard's table, row 0 and column 0 being at these sides of what is shown.
  stored = {
    1: shown,
    2: shown[:, ::-1],
    3: shown[::-1, ::-1],
    4: shown[::-1],
    5: shown.swapaxes(0, 1),
    6: shown.swapaxes(0, 1)[::-1],
    7: shown.swapaxes(0, 1)[::-1, ::-1],
    8: shown.swapaxes(0, 1)[:, ::-1],
  }[orientation]
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  path = save(
    tmp_path / f"a.{suffix}",
    Image.fromarray(np.ascontiguousarray(stored)),
    exif=exif,
  )
  assert image_files.image_size(path) == (32, 48)
  loaded = image_files.load_image(path).astype(int)
  np.testing.assert_allclose(loaded[4::8, 4::8], shown[4::8, 4::8], atol=12)
  # The region is that of what is shown.
  region = ((0, 16), (24, 48))
  corner = image_files.load_image(path, crop_region=region)
  np.testing.assert_allclose(
    corner[4:-4, 4:-4], np.full([8, 16, 3], [0, 250, 0]), atol=12
  )


def test_shrinking_averages_over_all_pixels(tmp_path):
  # Stripes of one pixel, which sampling would make black or white.
  pixels = np.zeros([40, 60, 3], np.uint8)
  pixels[::2] = 255
  path = save(tmp_path / "a.png", Image.fromarray(pixels))
  loaded = image_files.load_image(path, (4, 5))
  assert loaded.shape == (4, 5, 3)
  np.testing.assert_allclose(loaded, 127.5, atol=16)


def test_region_and_size(tmp_path):
  path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
  region = ((2, 9), (3, 16))
  loaded = image_files.load_image(path, crop_region=region)
  np.testing.assert_array_equal(loaded, PIXELS[2:9, 3:16])
  cut = save(tmp_path / "cut.png", Image.fromarray(PIXELS[2:9, 3:16]))
  np.testing.assert_array_equal(
    image_files.load_image(path, (5, 6), crop_region=region),
    image_files.load_image(cut, (5, 6)),
  )


def test_grayscale_is_the_mean_of_the_channels(tmp_path):
  path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
  loaded = image_files.load_image(path, grayscale=True)
  expected = np.rint(PIXELS.mean(axis=-1, keepdims=True))
  np.testing.assert_array_equal(loaded, expected)
  assert loaded.dtype == np.uint8


# --- Masks --------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grayscale_labels(tmp_path, depth):
  labels = np.minimum(LABELS.astype(int), 2**depth - 1)
  if depth == 16:
    labels *= 1000
  bits = [[format(x, f"0{depth}b") for x in row] for row in labels]
  rows = b""
  for row in bits:
    digits = "".join(row)
    digits += "0" * (-len(digits) % 8)
    rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
  path = tmp_path / "a.png"
  path.write_bytes(png(W, H, depth, 0, rows))
  loaded = image_files.load_labels(path)
  assert loaded.dtype == np.int32
  np.testing.assert_array_equal(loaded, labels)


def test_palette_labels_are_indices(tmp_path):
  image = Image.frombytes("P", (W, H), LABELS.tobytes())
  image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
  loaded = image_files.load_labels(save(tmp_path / "a.png", image))
  np.testing.assert_array_equal(loaded, LABELS)


_GRAYS = [x for value in range(256) for x in (value, value, value)]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(
  ("colors", "clear"),
  [
    ([7, 7, 7] * 256, b""),  # All entities look the same,
    ([0, 0, 0, 9, 9, 9] * 128, b""),  # or every other one.
    (_GRAYS[::-1], b""),  # As if they were gray, the wrong way round.
    ([255, 0, 0], b""),  # Fewer colours than labels.
    (_GRAYS, b"\0"),  # The background is transparent,
    (_GRAYS, b"\xff\x80\0\0\x01"),  # or objects are, in part.
  ],
)
def test_indices_count_whatever_the_palette(tmp_path, depth, colors, clear):
  labels = (LABELS.astype(int) * 67 + 1) % 2**depth
  chunks = [(b"PLTE", bytes(colors[: 3 * 2**depth]))]
  chunks += [(b"tRNS", clear[: 2**depth])] if clear else []
  rows = b"".join(packed(depth, row) for row in labels)
  path = tmp_path / "a.png"
  path.write_bytes(png(W, H, depth, 3, rows, before=chunks))
  np.testing.assert_array_equal(image_files.load_labels(path), labels)
  small = image_files.load_labels(path, (H, 1), ((0, H), (2, 3)))
  np.testing.assert_array_equal(small[:, 0], labels[:, 2])


def test_labels_are_resized_by_nearest_neighbour(tmp_path):
  path = save(tmp_path / "a.png", Image.fromarray(LABELS))
  region = ((1, 10), (2, 17))
  loaded = image_files.load_labels(path, (3, 5), region)
  # Of three pixels the one in the middle.
  np.testing.assert_array_equal(loaded, LABELS[2:10:3, 3:17:3])


def test_gray_labels_with_opaque_alpha(tmp_path):
  image = Image.fromarray(LABELS).convert("LA")
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 4
  path = save(tmp_path / "a.png", image, exif=exif)
  np.testing.assert_array_equal(image_files.load_labels(path), LABELS[::-1])


def test_labels_that_are_transparent_in_places(tmp_path):
  image = Image.fromarray(LABELS).convert("LA")
  image.putpixel((3, 4), (1, 254))
  path = save(tmp_path / "a.png", image)
  with pytest.raises(
    ImageFileError, match=r"a.png: a mask with alpha that is transparent in pl"
  ):
    image_files.load_labels(path)


def test_labels_of_sixteen_bits_with_alpha(tmp_path):
  path = tmp_path / "a.png"
  path.write_bytes(png(1, 1, 16, 4, packed(16, [300, 65535])))
  with pytest.raises(ImageFileError, match="a mask of 16 bits with alpha"):
    image_files.load_labels(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_labels_in_colour(tmp_path, mode):
  path = save(tmp_path / "a.png", Image.fromarray(PIXELS).convert(mode))
  with pytest.raises(
    ImageFileError, match=rf"a.png: a mask in colour \(mode {mode}\)\. Store"
  ):
    image_files.load_labels(path)


def test_labels_of_a_jpeg(tmp_path):
  path = save(tmp_path / "a.jpg", Image.fromarray(LABELS))
  with pytest.raises(ImageFileError, match="expected the content of PNG"):
    image_files.load_labels(path)


# --- Files that cannot be used ------------------------------------------------

LOADERS = [
  image_files.load_image,
  image_files.load_labels,
  image_files.image_size,
]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "an empty file. Copy it again."),
    (b"no image at all", "no image, or a damaged one; expected the content"),
    (png(100_000, 100_000, 8, 0, b"\0" * 99), "67,108,864 pixels. Scale"),
    (png(8193, 8192, 8, 0, b"\0" * 99), "67,108,864 pixels. Scale"),
  ],
)
def test_content(tmp_path, load, content, message):
  path = tmp_path / "a.png"
  path.write_bytes(content)
  with pytest.raises(ImageFileError) as fault:
    load(path)
  text = str(fault.value)
  assert text.startswith(f"{path}: ") and message in text
  assert "\n" not in text


def test_is_image(tmp_path):
  whole = encode(Image.fromarray(PIXELS), "JPEG")
  for content, expected in (
    (whole, True),
    (b"BM no image", False),
    (b"", False),
  ):
    (tmp_path / "a").write_bytes(content)
    assert image_files.is_image(tmp_path / "a") == expected


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (OSError(errno.EIO, "Input/output error"), "a.png: Input/output error."),
    (OSError(errno.EACCES, "Permission denied"), "a.png: Permission denied."),
    (MemoryError(), "a.png: needs more memory than there is."),
  ],
)
def test_not_every_error_is_damage(tmp_path, monkeypatch, error, message):
  path = save(tmp_path / "a.png", Image.fromarray(PIXELS))

  def load(self):
    raise error

  monkeypatch.setattr(ImageFile.ImageFile, "load", load)
  with pytest.raises(ImageFileError) as caught:
    image_files.load_image(path)
  assert str(caught.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize("load", LOADERS)
def test_no_file(tmp_path, load):
  with pytest.raises(FileNotFoundError, match=r"a\.png: there is no such file"):
    load(tmp_path / "a.png")
  with pytest.raises(ImageFileError, match=f"{tmp_path}: Is a directory"):
    load(tmp_path)


@pytest.mark.parametrize(
  "load", [image_files.load_image, image_files.image_size]
)
@pytest.mark.parametrize("region", [((0, H + 1), (0, W)), ((0, H), (1, W + 1))])
def test_region_beyond_the_image(tmp_path, load, region):
  path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
  with pytest.raises(
    ImageFileError, match=f"reaches beyond its {H} rows and {W} columns"
  ):
    load(path, crop_region=region)


@pytest.mark.parametrize(
  ("file_format", "options"),
  [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("BMP", {}),
    ("WEBP", {}),
    ("GIF", {}),
  ],
)
def test_files_that_are_cut_off(tmp_path, file_format, options):
  noise = np.random.default_rng(2).integers(256, size=[40, 50, 3])
  whole = encode(Image.fromarray(np.uint8(noise)), file_format, **options)
  path = tmp_path / "a"
  path.write_bytes(whole)
  expected = image_files.load_image(path)
  faults = []
  for size in range(0, len(whole) - 12, max(len(whole) // 50, 1)):
    path.write_bytes(whole[:size])
    try:
      # Some formats end with what no pixel needs.
      np.testing.assert_array_equal(image_files.load_image(path), expected)
    except ImageFileError as error:
      faults.append(str(error))
  assert len(faults) >= 49
  assert all(fault.startswith(f"{path}: ") for fault in faults)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "WEBP", "GIF"])
def test_damaged_files_are_told_or_read(tmp_path, file_format):
  whole = encode(Image.fromarray(PIXELS), file_format)
  path = tmp_path / "a"
  faults = []
  for place in range(0, len(whole), 5):
    damaged = bytearray(whole)
    damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    for load in LOADERS:
      try:
        load(path)
      except ImageFileError as error:
        faults.append(str(error))
  assert faults
  assert all(fault.startswith(f"{path}: ") for fault in faults)


def test_another_aspect_ratio_is_cropped_padded_or_stretched(tmp_path):
  size = 8, 8
  pixels = np.full([8, 16, 3], (200, 100, 0), np.uint8)
  pixels[:, 4:12] = (0, 0, 255)  # the middle square
  path = tmp_path / "wide.png"
  Image.fromarray(pixels).save(path)
  cropped, padded, stretched = (
    image_files.load_image(path, size, fit=fit) for fit in checks.FITS
  )
  assert cropped.shape == padded.shape == stretched.shape == (*size, 3)
  np.testing.assert_array_equal(cropped, np.full_like(cropped, (0, 0, 255)))
  # Above and below, the mean colour of the four sides.
  sides = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
  mean = np.rint(np.concatenate(sides).mean(axis=0))
  np.testing.assert_array_equal(padded[0], np.tile(mean, (size[1], 1)))
  np.testing.assert_array_equal(padded[-1], padded[0])
  middle = size[0] // 2, size[1] // 2
  assert padded[middle].tolist() == stretched[middle].tolist() == [0, 0, 255]
  assert (stretched[:, 0] == (200, 100, 0)).all()
