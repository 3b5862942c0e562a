"""Reads images and masks from image files of many formats.

Dimensions: h, w height and width of the image as displayed, H, W as requested,
C channels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

__all__ = [
  "IMAGE_SUFFIXES",
  "ImageFileError",
  "MAX_PIXELS",
  "image_size",
  "is_image",
  "load_image",
  "load_labels",
  "resize_labels",
]

# The formats to decode, of the many that Pillow supports.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
IMAGE_SUFFIXES = (
  *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png"),
  ".webp",
)
# 8192 x 8192. A file of a few kilobytes may claim to be of any size.
MAX_PIXELS = 2**26
_TOO_LARGE = f"more than {MAX_PIXELS:,} pixels. Scale the image down"
# Background of transparent pixels.
_BACKGROUND = "white"
# Undoes the orientation recorded by the camera.
_TRANSPOSITIONS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_LABEL_MODES = ("1", "L", "P", "I", "I;16")
# Pillow scales 2-bit and 4-bit grayscale to 0 to 255.
_GRAY_STEPS = {"L;2": 85, "L;4": 17}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What matters of a PNG file besides its critical chunks: transparency and, with
# EXIF, orientation.
_ANCILLARY_CHUNKS = (b"tRNS", b"eXIf")
_MAX_PNG_BYTES = 2**30  # without metadata

Region = Sequence[Sequence[int]]
_T = TypeVar("_T")


class ImageFileError(ValueError):
  """A file is not a usable image; the message names it."""


def load_image(
  path: str | os.PathLike,
  size: Sequence[int] | None = None,
  grayscale: bool = False,
  crop_region: Region | None = None,
  keep_alpha: bool = True,
  fit: str = "stretch",
) -> np.ndarray:
  """Reads the first image of a PNG, JPEG, BMP, WebP or GIF file.

  Applies the EXIF orientation, puts transparent pixels on white and rounds 16
  bits to 8.

  Args:
    path: path of the file.
    size: (H, W) to resize to, by antialiased bilinear interpolation; None: no
      resizing.
    grayscale: whether to replace the channels by their mean.
    crop_region: ((top, bottom), (left, right)) in pixels of the displayed
      image, cropped before resizing; None: the whole image.
    keep_alpha: whether transparency counts; False: pixels have their stored
      colours.
    fit: one of `checks.FITS`, what is done to an image of another aspect ratio
      than `size`: "crop" takes as much of its middle as fits, "pad" adds
      stripes in the mean colour of its edges, "stretch" distorts it.

  Returns:
    [H, W, C] uint8, C = 1 if `grayscale`, else 3.

  Raises:
    FileNotFoundError: if there is no such file.
    ImageFileError: if the file is not an image, damaged, truncated, larger than
      `MAX_PIXELS` or smaller than the region.
  """

  def convert(stored: ImageFile.ImageFile) -> np.ndarray:
    step = _gray_step(stored)
    image = _oriented(_with_exact_alpha(stored), crop_region)
    image = _rgb(image, step) if keep_alpha else image.convert("RGB")
    if size is not None:
      image = _resized(image, (size[1], size[0]), fit)
    pixels = np.array(image)
    if not grayscale:
      return pixels
    return np.rint(pixels.mean(axis=-1, keepdims=True)).astype(np.uint8)

  return _read(path, _FORMATS, convert)


def _resized(image: Image.Image, size: tuple[int, int], fit: str) -> Any:
  """Resizes an RGB image to (W, H), see `load_image`."""
  method = Image.Resampling.BILINEAR
  if fit == "crop":
    return ImageOps.fit(image, size, method)
  if fit == "pad":
    pixels = np.asarray(image, np.float64)
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    mean = np.concatenate(edges).mean(axis=0).round().astype(int).tolist()
    return ImageOps.pad(image, size, method, color=tuple(mean))
  return image.resize(size, method)


def load_labels(
  path: str | os.PathLike,
  size: Sequence[int] | None = None,
  crop_region: Region | None = None,
) -> np.ndarray:
  """Reads a mask from a PNG file of integer labels.

  Args:
    path: path of the file: 1-bit to 16-bit grayscale, whose values are the
      labels, or with a palette, whose indices are. Grayscale may have an
      opaque alpha channel.
    size: (H, W) to resize to, by nearest neighbour; None: no resizing.
    crop_region: as in `load_image`.

  Returns:
    [H, W] int32, at least 0.

  Raises:
    FileNotFoundError: if there is no such file.
    ImageFileError: as in `load_image`, or if the image is in colour or
      transparent.
  """

  def convert(image: ImageFile.ImageFile) -> np.ndarray:
    step = _gray_step(image)
    labels = np.array(_oriented(_label_channel(image), crop_region))
    if size is not None:
      labels = resize_labels(labels, size)
    return labels.astype(np.int32) // step

  return _read(path, ("PNG",), convert)


def resize_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
  """Resizes [h, w] to [H, W] by the nearest neighbour of each pixel's centre.

  Args:
    labels: [h, w], of any dtype.
    size: (H, W).
  """
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(int)
    for new, old in zip(size, labels.shape, strict=True)
  )
  return labels[rows[:, None], columns]


def image_size(
  path: str | os.PathLike, crop_region: Region | None = None
) -> tuple[int, int]:
  """Reads an image's size without decoding the image.

  Args:
    path: path of the file.
    crop_region: region that must fit within the image; None: no check.

  Returns:
    (h, w).

  Raises:
    FileNotFoundError: if there is no such file.
    ImageFileError: as in `load_image`, as far as the header shows.
  """

  def size(image: Image.Image) -> tuple[int, int]:
    size = _oriented_size(image)
    _check_region(size, crop_region)
    return size

  return _read(path, _FORMATS, size, header_only=True)


def is_image(path: str | os.PathLike) -> bool:
  """Whether a file begins as one that `load_image` reads, whatever its name."""
  try:
    return _read(path, _FORMATS, lambda _: True, header_only=True)
  except (ImageFileError, FileNotFoundError):
    return False


def _read(
  path: str | os.PathLike,
  formats: tuple[str, ...],
  convert: Callable[[ImageFile.ImageFile], _T],
  header_only: bool = False,
) -> _T:
  """Opens a file and converts it; all failures become one-line errors."""
  path = os.fspath(path)
  try:
    with open(path, "rb") as file:
      if not file.read(1):
        raise ImageFileError("an empty file. Copy it again")
      file.seek(0)
      content = _without_metadata(file, header_only)
      with Image.open(content, formats=formats) as image:
        _check_pixels(*image.size)
        return convert(image)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path}: there is no such file.") from None
  except ImageFileError as error:
    raise ImageFileError(f"{path}: {error}.") from None
  except Image.DecompressionBombError:
    raise ImageFileError(f"{path}: {_TOO_LARGE}.") from None
  except MemoryError:
    raise ImageFileError(f"{path}: needs more memory than there is.") from None
  except UnidentifiedImageError:
    raise ImageFileError(
      f"{path}: no image, or a damaged one; expected the content of "
      f"{' or '.join(formats)}, whatever the name."
    ) from None
  except Exception as error:  # Decoders of damaged data raise all kinds.
    if isinstance(error, OSError) and error.errno is not None:
      raise ImageFileError(f"{path}: {error.strerror}.") from None
    reason = str(error).partition("\n")[0]
    raise ImageFileError(
      f"{path}: damaged or cut off ({reason}). Copy or export it again."
    ) from None


def _without_metadata(file: BinaryIO, header_only: bool) -> BinaryIO:
  """Leaves out the metadata of a PNG file; other files stay as they are.

  No pixel depends on texts, times or colour profiles. Pillow refuses a whole
  image for one that is large or odd.

  Args:
    file: at its beginning.
    header_only: whether what comes before the pixels is enough.

  Returns:
    A file at its beginning.
  """
  if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
    file.seek(0)
    return file
  content = io.BytesIO()
  content.write(_PNG_SIGNATURE)
  # A chunk is its length, its kind, its data and a checksum.
  while len(head := file.read(8)) == 8:
    length, kind = int.from_bytes(head[:4], "big"), head[4:]
    if not kind[:1].islower() or kind in _ANCILLARY_CHUNKS:
      content.write(head)
      if header_only and kind == b"IDAT":
        break
      if content.tell() + length > _MAX_PNG_BYTES:
        raise ImageFileError(f"more than {_MAX_PNG_BYTES:,} bytes of pixels")
      content.write(file.read(length + 4))
    else:
      file.seek(length + 4, os.SEEK_CUR)
  content.seek(0)
  return content


def _check_pixels(width: int, height: int) -> None:
  if width * height > MAX_PIXELS:
    raise ImageFileError(_TOO_LARGE)


def _check_region(size: Sequence[int], region: Region | None) -> None:
  if region is None:
    return
  (_, bottom), (_, right) = region
  if bottom > size[0] or right > size[1]:
    raise ImageFileError(
      f"crop_region={tuple(map(tuple, region))} reaches beyond its {size[0]} "
      f"rows and {size[1]} columns"
    )


def _orientation(image: Image.Image) -> int:
  """EXIF orientation, 1 to 8, if stored ahead of the pixels; else 1."""
  # Asking for missing EXIF data makes Pillow decode the whole PNG file.
  if "exif" not in image.info:
    return 1
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in _TRANSPOSITIONS else 1
  except Exception:  # Odd metadata raise all kinds.
    return 1


def _oriented_size(image: Image.Image) -> tuple[int, int]:
  """(h, w) of the image as displayed."""
  width, height = image.size
  return (width, height) if _orientation(image) >= 5 else (height, width)


def _oriented(image: Image.Image, region: Region | None) -> Image.Image:
  """Applies the EXIF orientation and crops to the region."""
  _check_region(_oriented_size(image), region)
  transposition = _TRANSPOSITIONS.get(_orientation(image))
  if transposition is not None:
    image = image.transpose(transposition)
  if region is None:
    return image
  (top, bottom), (left, right) = region
  return image.crop((left, top, right, bottom))


def _raw_mode(image: ImageFile.ImageFile) -> str:
  """How the pixels are stored, "L;4" say; before they are decoded."""
  tiles = cast("Any", image).tile
  return str(tiles[0][3]) if tiles else ""


def _gray_step(image: ImageFile.ImageFile) -> int:
  """What Pillow multiplies the stored values by."""
  return _GRAY_STEPS.get(_raw_mode(image), 1)


def _with_exact_alpha(image: ImageFile.ImageFile) -> Image.Image:
  """Decodes colours of 16 bits of which one is transparent.

  Pillow drops the lower bits, by which the transparent one may differ.
  """
  if _raw_mode(image) != "RGB;16B" or "transparency" not in image.info:
    return image
  file = cast("Any", image).fp
  file.seek(0)
  with tf.device("CPU"):
    pixels = tf.io.decode_png(file.read(), channels=4, dtype=tf.uint16).numpy()
  decoded = Image.fromarray(np.rint(pixels / 257.0).astype(np.uint8))
  if "exif" in image.info:
    decoded.info["exif"] = image.info["exif"]
  return decoded


def _label_channel(image: ImageFile.ImageFile) -> Image.Image:
  """The one channel of a mask that holds its labels."""
  mode = image.mode
  if mode in _LABEL_MODES:
    return image
  if _raw_mode(image) == "LA;16B":
    raise ImageFileError(
      "a mask of 16 bits with alpha. Store it without an alpha channel"
    )
  if mode != "LA":
    raise ImageFileError(
      f"a mask in colour (mode {mode}). Store it as a PNG in grayscale or with "
      "a palette, the value of a pixel being the number of its object and 0 "
      "the background"
    )
  labels, alpha = image.split()
  if alpha.getextrema() != (255, 255):
    raise ImageFileError(
      "a mask with alpha that is transparent in places. Remove the alpha "
      "channel; 0 is the background"
    )
  labels.info = image.info
  return labels


def _rgb(image: Image.Image, gray_step: int) -> Image.Image:
  """Converts an image of any mode to opaque 8-bit RGB.

  Args:
    image: any.
    gray_step: what its values were multiplied by, but not its transparent one.
  """
  clear = image.info.get("transparency")
  if image.mode.startswith("I"):  # 16-bit grayscale
    values = np.asarray(image).clip(0, 65535)
    image = Image.fromarray(np.rint(values / 257.0).astype(np.uint8))
    if clear is not None:
      image.putalpha(Image.fromarray(np.uint8(255) * (values != clear)))
  elif gray_step != 1 and clear is not None:
    image.info["transparency"] = clear * gray_step
  if image.has_transparency_data:
    image = image.convert("RGBA")
    background = Image.new("RGBA", image.size, _BACKGROUND)
    image = Image.alpha_composite(background, image)
  return image.convert("RGB")
