"""The folder of a training run: which one, and what a run leaves in it."""

import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine.config import reading, resolution
from iodine.errors import ConfigError
from iodine.files import write_whole
from iodine.runs import manifest

__all__ = [
  "CONFIG_FILE",
  "config_to_save",
  "load_config",
  "open_folder",
  "read_file",
  "save_config",
]

CONFIG_FILE = "config.json"

_LOG = logging.getLogger(__name__)


def open_folder(
  checkpoint_dir: str, continue_run: bool, run_id: int | str | None
) -> pathlib.Path:
  """Finds the folder to continue, or makes a new one.

  Args:
    checkpoint_dir: with continue_run the folder itself, else its name without
      "_<run id>".
    continue_run: whether to go on in an existing folder.
    run_id: of Sacred's observer; None: the lowest number that is free.

  Returns:
    The folder, which exists.

  Raises:
    ConfigError: if there is nothing to continue, or a new folder cannot be
      made.
  """
  path = pathlib.Path(os.path.expanduser(checkpoint_dir))
  if continue_run:
    if not path.is_dir():
      raise ConfigError(_nothing_to_continue(path))
    _LOG.info("Continuing the run in %s", path)
    return path
  if path.name in ("", ".."):
    raise ConfigError(
      f"checkpoint_dir={checkpoint_dir!r}: must end in a name, to which a new "
      f"run appends its number"
    )
  number = 1
  while True:
    name = f"{path.name}_{number if run_id is None else run_id}"
    folder = path.with_name(name)
    try:
      folder.mkdir(parents=True)
    except FileExistsError as error:
      if run_id is None and folder.exists():
        number += 1
        continue
      raise ConfigError(
        f"checkpoint_dir={checkpoint_dir!r}: {folder} already exists. Resume "
        f"it with `continue_run=True checkpoint_dir={folder}`, or choose "
        f"another checkpoint_dir."
      ) from error
    except OSError as error:
      raise ConfigError(
        f"checkpoint_dir={checkpoint_dir!r}: {folder} cannot be made: {error}"
      ) from error
    _LOG.info("Starting a new run in %s", folder)
    return folder


def _nothing_to_continue(path: pathlib.Path) -> str:
  near = []
  if path.parent.is_dir():
    near = [p for p in path.parent.glob(f"{path.name}_*") if p.is_dir()]
  hint = f" There are: {', '.join(sorted(map(str, near)))}." if near else ""
  return (
    f"continue_run=True: there is no folder checkpoint_dir={str(path)!r}.{hint}"
  )


def config_to_save(
  config: Mapping[str, Any],
  seeds: Mapping[str, int | None],
  is_seed_given: bool,
) -> dict[str, Any]:
  """Returns the configuration of a run, however often it is continued.

  Args:
    config: all entries.
    seeds: {"seed" and "data.seed": of the run}, which a continued run keeps.
    is_seed_given: whether the user chose config["seed"].
  """
  given = (
    {"data.seed": config["data"]["seed"]} if "seed" in config["data"] else {}
  )
  if is_seed_given:
    given["seed"] = config["seed"]
  for key, value in given.items():
    if value != seeds[key]:
      _LOG.warning(
        "%s=%s has no effect: a continued run keeps its %s, %s",
        key,
        value,
        key,
        seeds[key],
      )
  config = {**config, "seed": seeds["seed"], "continue_run": False}
  if "seed" in config["data"]:
    config["data"] = {**config["data"], "seed": seeds["data.seed"]}
  return config


def read_file(path: pathlib.Path, in_place: bool) -> dict[str, Any]:
  """Entries of a configuration file, which may be a run's own.

  A warning tells if that is not as the run wrote it.

  Args:
    path: the file.
    in_place: whether `checkpoint_dir` is the file's folder if that has a
      checkpoint, as a run's folder does; else what the file says, to which a
      new run appends its number.

  Raises:
    ConfigError: see `reading.load_file`.
  """
  entries = resolution.without_derived(reading.load_file(path))
  folder = path.parent
  if path.name == CONFIG_FILE:
    manifest.warn_of_changes(path)
  if in_place and path.name == CONFIG_FILE and any(folder.glob("*.index")):
    entries["checkpoint_dir"] = str(folder)
  return entries


def save_config(folder: pathlib.Path, entries: Mapping[str, Any]) -> None:
  """Writes a run's whole configuration into its folder, whole or not at all.

  The file is a valid argument of `with`, and its plans are complete:
  `utils.build` builds the model of it.

  Raises:
    RunError: if it cannot be written.
  """
  size = resolution.SUB_BATCH_SIZE
  before, after = load_config(folder).get(size), entries.get(size)
  if before is not None and before != after:
    _LOG.warning(
      "The run had sub-batches of %s images, and now has %s: inner losses are "
      "means over these. `accumulate` can keep them",
      before,
      after or entries["batch_size"],
    )
  saved = {**resolution.filled(entries), reading.FORMAT_KEY: reading.FORMAT}
  text = json.dumps(saved, indent=1, sort_keys=True)
  write_whole(folder / CONFIG_FILE, text + "\n")


def load_config(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the configuration that a run left in its folder; {} if none did."""
  path = folder / CONFIG_FILE
  return reading.load_file(path) if path.is_file() else {}
