"""What may differ between a run and its continuation."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine.config import resolution
from iodine.config.entries import ENTRIES
from iodine.errors import ConfigError

__all__ = ["check_drift"]

_USUAL = (
  "when the run ends and saves (stop_after_steps, save_..._steps, "
  "keep_checkpoints, keep_best), the optimizer with learn_rate and batch_size, "
  "the places of data and results (data_dir, data.path, data.cache_dir), and "
  "how it is computed (strategy, accumulate, precision, xla, recompute, "
  "deterministic)"
)


def check_drift(
  saved: Mapping[str, Any], entries: Mapping[str, Any], folder: pathlib.Path
) -> None:
  """Checks that a run goes on with the model and data that it began with.

  An entry that only one of the configurations has is no difference: another
  version of this package wrote the file.

  Args:
    saved: the configuration that the run left in its folder; may be empty.
    entries: the whole configuration to go on with.
    folder: of the run.

  Raises:
    ConfigError: lists every difference, with what may differ.
  """
  common = set(saved) & set(entries)
  # What follows from other entries is shown with these alone.
  before, now = (
    _flat(resolution.without_derived({key: x[key] for key in common}))
    for x in (saved, entries)
  )
  differences = [
    f"  {key}: saved {_shown(before, key)}, now {_shown(now, key)}"
    for key in sorted(before.keys() | now.keys())
    if _is_kept(key) and before.get(key) != now.get(key)
  ]
  if differences:
    raise ConfigError(
      "\n".join(
        [
          f"checkpoint_dir={str(folder)!r}: continue_run=True, but this is not "
          "the configuration of that run:",
          *differences,
          f"May differ: {_USUAL}.",
          f"`with {folder}/config.json continue_run=True "
          f"checkpoint_dir={folder}` resumes with all that was saved; for "
          "another model or other data, start a new run.",
        ]
      )
    )


def _is_kept(key: str) -> bool:
  """Whether a continued run must have what it began with, "model.n_z" say."""
  name, _, rest = key.partition(".")
  if name not in ENTRIES or not ENTRIES[name].kept:
    return False
  return rest.split(".")[0] not in ENTRIES[name].free


def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"model.n_z": 64}, with values as in a file, where tuples are lists."""
  flat: dict[str, Any] = {}
  for key, value in entries.items():
    if isinstance(value, Mapping) and value:
      flat.update(_flat(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = json.loads(json.dumps(value, default=str))
  return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
  return repr(flat[key]) if key in flat else "nothing"
