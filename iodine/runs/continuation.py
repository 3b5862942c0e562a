"""What may differ between a run and its continuation."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from iodine.config import resolution
from iodine.errors import ConfigError

__all__ = ["check_drift"]

# Entries, with all inside of them, that say what is learned, and from what.
_FIXED = (
  *("data", "held_out_scenes", "image_dim"),
  *("model", "n_z", "num_components", "num_iters"),
)
# Exceptions: sizes and places, the seed, which a run keeps anyway, how the same
# is computed, and what `convert_checkpoint` notes for evaluation.
_FREE = (
  *("data.batch_size", "data.shuffle_buffer", "data.seed"),
  *("data.path", "data.cache_dir", "data.reader"),
  *("model.precision", "model.recompute", "model.inner_batch_size"),
)
_USUAL = (
  "when the run ends and saves (stop_after_steps, save_..._steps, "
  "keep_checkpoints), the optimizer with learn_rate and batch_size, the places "
  "of data and results (data_dir, data.path, data.cache_dir), and how it is "
  "computed (strategy, accumulate, precision, recompute, deterministic)"
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
  old, new = ({k: x[k] for k in common} for x in (saved, entries))
  before, now = _flat(old), _flat(new)
  # What follows from other entries is told with these alone.
  keys = {*_flat(resolution.without_derived(old))}
  keys |= {*_flat(resolution.without_derived(new))}
  differences = [
    f"  {key}: saved {_told(before, key)}, now {_told(now, key)}"
    for key in sorted(keys)
    if _is_fixed(key) and before.get(key) != now.get(key)
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
          f"checkpoint_dir={folder}` goes on with all that was saved; for "
          "another model or other data, start a new run.",
        ]
      )
    )


def _is_fixed(key: str) -> bool:
  return _is_in(key, _FIXED) and not _is_in(key, _FREE)


def _is_in(key: str, names: tuple[str, ...]) -> bool:
  return any(key == name or key.startswith(f"{name}.") for name in names)


def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"model.n_z": 64}, with values as in a file, where tuples are lists."""
  flat: dict[str, Any] = {}
  for key, value in entries.items():
    if isinstance(value, Mapping) and value:
      flat.update(_flat(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = json.loads(json.dumps(value, default=str))
  return flat


def _told(flat: Mapping[str, Any], key: str) -> str:
  return repr(flat[key]) if key in flat else "nothing"
