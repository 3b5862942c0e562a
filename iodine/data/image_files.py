"""Reads images and masks from image files of many formats.

Dimensions: h, w height and width of the image as displayed, H, W as requested,
C channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

__all__ = [
  "IMAGE_SUFFIXES",
  "ImageFileError",
  "MAX_PIXELS",
  "image_size",
  "load_image",
  "load_labels",
]

# The formats to decode, of the many that Pillow supports.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
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
_LABEL_STEPS = {"L;2": 85, "L;4": 17}

Region = Sequence[Sequence[int]]
_T = TypeVar("_T")


class ImageFileError(ValueError):
  """A file is not a usable image; the message names it."""


def load_image(
  path: str | os.PathLike,
  size: Sequence[int] | None = None,
  grayscale: bool = False,
  crop_region: Region | None = None,
) -> np.ndarray:
  """Reads the first image of a PNG, JPEG, BMP, WebP or GIF file.

  Applies the EXIF orientation, puts transparent pixels on white and rounds 16
  bits to 8.

  Args:
    path: path of the file.
    size: (H, W) to resize to, ignoring the aspect ratio, by antialiased
      bilinear interpolation; None: no resizing.
    grayscale: whether to replace the channels by their mean.
    crop_region: ((top, bottom), (left, right)) in pixels of the displayed
      image, cropped before resizing; None: the whole image.

  Returns:
    [H, W, C] uint8, C = 1 if `grayscale`, else 3.

  Raises:
    FileNotFoundError: if there is no such file.
    ImageFileError: if the file is not an image, damaged, truncated, larger than
      `MAX_PIXELS` or smaller than the region.
  """

  def convert(image: Image.Image) -> np.ndarray:
    image = _rgb(_oriented(image, crop_region))
    if size is not None:
      image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    if not grayscale:
      return pixels
    return np.rint(pixels.mean(axis=-1, keepdims=True)).astype(np.uint8)

  return _read(path, _FORMATS, convert)


def load_labels(
  path: str | os.PathLike,
  size: Sequence[int] | None = None,
  crop_region: Region | None = None,
) -> np.ndarray:
  """Reads a mask from a PNG file of integer labels.

  Args:
    path: path of the file: 1-bit to 16-bit grayscale, whose values are the
      labels, or with a palette, whose indices are.
    size: (H, W) to resize to, by nearest neighbour; None: no resizing.
    crop_region: as in `load_image`.

  Returns:
    [H, W] int32, at least 0.

  Raises:
    FileNotFoundError: if there is no such file.
    ImageFileError: as in `load_image`, or if the image is in colour.
  """

  def convert(image: ImageFile.ImageFile) -> np.ndarray:
    mode = image.mode
    if mode not in _LABEL_MODES:
      raise ImageFileError(
        f"a mask in colour (mode {mode}). Store it as a PNG in grayscale or "
        "with a palette, the value of a pixel being the number of its object "
        "and 0 the background"
      )
    tile = cast("Any", image).tile[0]
    step = _LABEL_STEPS.get(str(tile[3]), 1)
    labels = np.array(_oriented(image, crop_region))
    if size is not None:
      rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, labels.shape, strict=True)
      )
      labels = labels[rows[:, None], columns]
    return labels.astype(np.int32) // step

  return _read(path, ("PNG",), convert)


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

  return _read(path, _FORMATS, size)


def _read(
  path: str | os.PathLike,
  formats: tuple[str, ...],
  convert: Callable[[ImageFile.ImageFile], _T],
) -> _T:
  """Opens a file and converts it; all failures become one-line errors."""
  path = os.fspath(path)
  try:
    with open(path, "rb") as file:
      if not file.read(1):
        raise ImageFileError("an empty file. Copy it again")
      file.seek(0)
      with Image.open(file, formats=formats) as image:
        _check_pixels(*image.size)
        return convert(image)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path}: there is no such file.") from None
  except ImageFileError as error:
    raise ImageFileError(f"{path}: {error}.") from None
  except Image.DecompressionBombError:
    raise ImageFileError(f"{path}: {_TOO_LARGE}.") from None
  except (IsADirectoryError, PermissionError) as error:
    raise ImageFileError(f"{path}: {error.strerror}.") from None
  except UnidentifiedImageError:
    raise ImageFileError(
      f"{path}: no image, or a damaged one; expected the content of "
      f"{' or '.join(formats)}, whatever the name."
    ) from None
  except Exception as error:  # Decoders of damaged data raise all kinds.
    raise ImageFileError(
      f"{path}: damaged or cut off ({error}). Copy or export it again."
    ) from None


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
  """EXIF orientation, 1 to 8, if stored ahead of the pixels."""
  # Asking for missing EXIF data makes Pillow decode the whole PNG file.
  if "exif" not in image.info:
    return 1
  return image.getexif().get(ExifTags.Base.Orientation, 1)


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


def _rgb(image: Image.Image) -> Image.Image:
  """Converts an image of any mode to opaque 8-bit RGB."""
  if image.mode.startswith("I"):  # 16-bit grayscale
    values = np.asarray(image).clip(0, 65535)
    image = Image.fromarray(np.rint(values / 257.0).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    background = Image.new("RGBA", image.size, _BACKGROUND)
    image = Image.alpha_composite(background, image)
  return image.convert("RGB")
