"""Command line: `python -m iodine.synthetic tetrominoes --output FILE`."""

import argparse
import functools
import logging
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from iodine import console
from iodine.progress import progress
from iodine.synthetic import (
  clevr,
  generation,
  multi_dsprites,
  objects_room,
  sprites,
  tetrominoes,
)
from iodine.synthetic.records import Feature

__all__ = ["DATASETS", "Dataset", "main"]

_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells.

_log = logging.getLogger("iodine.synthetic")


class Dataset(NamedTuple):
  """A dataset of the command line.

  Attributes:
    help: one line for `--help`.
    features: returns the features of a scene for the parsed options.
    add_arguments: adds the dataset's own options to its parser.
    make_sampler: returns the sampler for the parsed options.
    chunk_size: scenes drawn at once, see `generation.sample_chunks`.
  """

  help: str
  features: Callable[[argparse.Namespace], Mapping[str, Feature]]
  add_arguments: Callable[[argparse.ArgumentParser], object]
  make_sampler: Callable[[argparse.Namespace], generation.Sampler]
  chunk_size: int = generation.CHUNK_SIZE


def _add_tetrominoes_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--objects",
    type=int,
    default=tetrominoes.MAX_NUM_OBJECTS,
    choices=range(1, tetrominoes.MAX_NUM_OBJECTS + 1),
    help="tetrominoes in each scene; the real dataset has %(default)s",
  )


def _tetrominoes_sampler(args: argparse.Namespace) -> generation.Sampler:
  return functools.partial(tetrominoes.sample_scenes, num_objects=args.objects)


def _add_clevr_arguments(parser: argparse.ArgumentParser) -> None:
  numbers = range(1, clevr.MAX_NUM_OBJECTS + 1)
  for name, default in (("min", 3), ("max", clevr.MAX_NUM_OBJECTS)):
    parser.add_argument(
      f"--{name}-objects",
      type=int,
      default=default,
      choices=numbers,
      help=f"{name}imum of objects in a scene (default: %(default)s)",
    )


def _clevr_sampler(args: argparse.Namespace) -> generation.Sampler:
  if args.min_objects > args.max_objects:
    args.parser.error(
      f"--min-objects {args.min_objects} is above --max-objects "
      f"{args.max_objects}"
    )
  return functools.partial(
    clevr.sample_scenes,
    min_objects=args.min_objects,
    max_objects=args.max_objects,
  )


def _add_multi_dsprites_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--variant",
    default="colored_on_grayscale",
    choices=multi_dsprites.VARIANTS,
    help="which of the real files to imitate (default: %(default)s)",
  )


def _multi_dsprites_sampler(args: argparse.Namespace) -> generation.Sampler:
  return functools.partial(multi_dsprites.sample_scenes, variant=args.variant)


def _add_objects_room_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--variant",
    default="train",
    choices=objects_room.VARIANTS,
    help="which of the real files to imitate (default: %(default)s)",
  )


def _objects_room_sampler(args: argparse.Namespace) -> generation.Sampler:
  return functools.partial(objects_room.sample_scenes, variant=args.variant)


def _add_sprites_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--objects",
    type=int,
    default=2,
    choices=range(1, sprites.MAX_NUM_OBJECTS + 1),
    help="sprites in each scene (default: %(default)s)",
  )


def _sprites_sampler(args: argparse.Namespace) -> generation.Sampler:
  return functools.partial(sprites.sample_scenes, num_objects=args.objects)


DATASETS = {
  "clevr": Dataset(
    help="cubes, spheres and cylinders on a grey floor, 240x320 pixels",
    features=lambda args: clevr.FEATURES,
    add_arguments=_add_clevr_arguments,
    make_sampler=_clevr_sampler,
    chunk_size=8,  # Records of 3 MB.
  ),
  "multi_dsprites": Dataset(
    help="squares, ellipses and hearts on a plain background, 64x64 pixels",
    features=lambda args: multi_dsprites.features(args.variant),
    add_arguments=_add_multi_dsprites_arguments,
    make_sampler=_multi_dsprites_sampler,
  ),
  "objects_room": Dataset(
    help="coloured objects in a coloured room, 64x64 pixels",
    features=lambda args: objects_room.features(args.variant),
    add_arguments=_add_objects_room_arguments,
    make_sampler=_objects_room_sampler,
    chunk_size=32,
  ),
  "sprites": Dataset(
    help="squares and discs on grey, 16x16 pixels",
    features=lambda args: sprites.FEATURES,
    add_arguments=_add_sprites_arguments,
    make_sampler=_sprites_sampler,
  ),
  "tetrominoes": Dataset(
    help="three tetrominoes on black, 35x35 pixels",
    features=lambda args: tetrominoes.FEATURES,
    add_arguments=_add_tetrominoes_arguments,
    make_sampler=_tetrominoes_sampler,
  ),
}


class _Parser(argparse.ArgumentParser):
  """Reports an error on one line, without the usage."""

  def error(self, message: str) -> NoReturn:
    self.exit(_EXIT_USAGE, f"{self.prog}: error: {message}\n")


def _integer_from(minimum: int) -> Callable[[str], int]:
  """Returns an argument type: an integer of at least `minimum`."""

  def parse(text: str) -> int:
    try:
      value = int(text)
    except ValueError:
      value = minimum - 1
    if value < minimum:
      raise argparse.ArgumentTypeError(
        f"{text!r}: must be an integer from {minimum} up"
      )
    return value

  return parse


def _make_parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="python -m iodine.synthetic",
    description="Writes synthetic scenes as TFRecord files, in the format of "
    "the real datasets.",
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(
    dest="dataset", required=True, metavar=f"{{{','.join(DATASETS)}}}"
  )
  for name, dataset in DATASETS.items():
    command = commands.add_parser(
      name,
      help=dataset.help,
      description=f"Writes scenes: {dataset.help}.",
      allow_abbrev=False,
    )
    command.add_argument(
      "--output",
      type=pathlib.Path,
      required=True,
      metavar="FILE",
      help="file to write; its folder is created",
    )
    command.add_argument(
      "--scenes",
      type=_integer_from(1),
      default=10_000,
      metavar="N",
      help="how many scenes to write (default: %(default)s)",
    )
    command.add_argument(
      "--seed",
      type=_integer_from(0),
      default=0,
      metavar="N",
      help="scene i depends on seed and i alone (default: %(default)s)",
    )
    command.add_argument(
      "--force", action="store_true", help="replace an existing file"
    )
    dataset.add_arguments(command)
    command.set_defaults(parser=command)
  return parser


def _write(args: argparse.Namespace) -> None:
  """Writes the file and reports on it."""
  dataset = DATASETS[args.dataset]
  start = time.monotonic()
  with progress(args.scenes, "scenes", _log) as on_progress:
    generation.write_tfrecords(
      args.output,
      dataset.features(args),
      dataset.make_sampler(args),
      num_scenes=args.scenes,
      seed=args.seed,
      overwrite=args.force,
      chunk_size=dataset.chunk_size,
      on_progress=on_progress,
    )
  seconds = time.monotonic() - start
  _log.info(
    "Wrote %d scenes (%.1f MB) in %.1f s, %.0f scenes/s: %s",
    args.scenes,
    args.output.stat().st_size / 1e6,
    seconds,
    args.scenes / seconds,
    args.output,
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line.

  Args:
    argv: the arguments; None: those of the process.

  Returns:
    The exit status.
  """
  logging.basicConfig(
    format="%(message)s", level=logging.INFO, handlers=[console.Handler()]
  )
  args = _make_parser().parse_args(argv)
  try:
    _write(args)
  except KeyboardInterrupt:
    _log.error("Interrupted: %s was not written.", args.output)
    return _EXIT_INTERRUPTED
  except OSError as e:
    args.parser.error(str(e))
  return 0


if __name__ == "__main__":
  # Clean up on termination as on Ctrl-C.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  sys.exit(main())
