"""Configuration files as plain data."""

import itertools
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iodine import checks
from iodine.config import parsing
from iodine.config.entries import PLANS
from iodine.errors import ConfigError, did_you_mean

__all__ = [
  "FORMAT",
  "FORMAT_KEY",
  "check_entries",
  "config_names",
  "head_comment",
  "load_file",
  "merged",
  "named_configs",
  "source_text",
  "warn_of_mixture",
]

_LOG = logging.getLogger(__name__)

# That a file may hold: aliases may make a kilobyte into any number of them.
_MAX_ENTRIES = 10_000
# Of the files that this version writes, and the key under which they say so. A
# file without it is of format 1.
FORMAT = 1
FORMAT_KEY = "format"
# That earlier versions wrote into a run's file; the data say it now.
_OBSOLETE = (("model", "num_background_entities"),)


def named_configs() -> dict[str, dict[str, Any]]:
  """Reads the configurations that come with the project: {name: entries}."""
  return {name: load_file(path) for name, path in _named_files().items()}


def config_names() -> list[str]:
  """Names of the configurations that come with the project."""
  return list(_named_files())


def head_comment(name: str) -> str:
  """What a named configuration says of itself above its first entry.

  A description, then command, hardware, hours and score.
  """
  lines = itertools.takewhile(_is_comment, source_text(name).splitlines())
  return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


def source_text(name: str) -> str:
  """The file of a named configuration, as text."""
  return _named_files()[name].read_text(encoding="utf-8")


def _is_comment(line: str) -> bool:
  return line.startswith("#")


def _named_files() -> dict[str, pathlib.Path]:
  return {path.stem: path for path in sorted(_folder().glob("*.yaml"))}


def _folder() -> pathlib.Path:
  """Where they are: in an installed package, or beside it in a checkout."""
  package = pathlib.Path(__file__).resolve().parents[1]
  for folder in (package / "configs", package.parent / "configs"):
    if folder.is_dir():
      return folder
  raise ConfigError(f"the named configurations are missing beside {package}")


def load_file(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a YAML or JSON file of configuration entries, as plain data.

  A file that says `like: NAME` has the entries of that named configuration, as
  far as it does not give them itself; null takes one away.

  Raises:
    ConfigError: if it cannot be read or parsed, or is no mapping of entries.
  """
  return _load(pathlib.Path(path), ())


def _load(path: pathlib.Path, seen: tuple[str, ...]) -> dict[str, Any]:
  """Reads a file that the named configurations `seen` are like."""
  entries = _parse(path)
  _check_format(path, entries.pop(FORMAT_KEY, FORMAT))
  check_entries(entries, f"{path}: ")
  for plan, key in _OBSOLETE:
    if isinstance(entries.get(plan), dict):
      entries[plan].pop(key, None)
  if "like" not in entries:
    return entries
  name = entries.pop("like")
  known = _named_files()
  if name not in known:
    raise ConfigError(
      f"{path}: like={name!r}: no such configuration. "
      + did_you_mean(str(name), known, "configurations")
    )
  if name in seen:
    raise ConfigError(f"{path}: like={name!r}: is like this one in turn")
  base = _load(known[name], (*seen, name))
  return merged(_taken_away(base, entries), _taken_away(entries, base))


def _check_format(path: pathlib.Path, found: Any) -> None:
  """Raises ConfigError for a file that a later version has written."""
  if fault := checks.int_fault(FORMAT_KEY, found, 1):
    raise ConfigError(f"{path}: {fault}")
  if found > FORMAT:
    raise ConfigError(
      f"{path}: is of format {found}, and this version of IODINE reads up to "
      f"{FORMAT}. Use the version that wrote it, or a later one."
    )


def _taken_away(
  entries: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any]:
  """Leaves out entries, nested ones too, that are None in one of the two."""
  left = {}
  for key, value in entries.items():
    if key not in base:
      left[key] = value
    elif isinstance(value, Mapping) and isinstance(base[key], Mapping):
      left[key] = _taken_away(value, base[key])
    elif value is not None and base[key] is not None:
      left[key] = value
  return left


def merged(
  below: Mapping[str, Any], above: Mapping[str, Any]
) -> dict[str, Any]:
  """Both mappings' entries, nested ones too; those above win."""
  result = {**below, **above}
  for key in below.keys() & above.keys():
    if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
      result[key] = merged(below[key], above[key])
  return result


def _parse(path: pathlib.Path) -> dict[str, Any]:
  """Reads the mapping that a file holds."""
  if path.suffix not in (".yaml", ".yml", ".json"):
    raise ConfigError(f"{path}: a configuration file ends in .yaml or .json")
  entries = parsing.parse_file(path)
  if not isinstance(entries, dict):
    raise ConfigError(
      f"{path}: must hold a mapping of entries, e.g. `batch_size: 4`"
    )
  if any(i == _MAX_ENTRIES for i, _ in enumerate(_walk(entries))):
    raise ConfigError(
      f"{path}: holds more than {_MAX_ENTRIES:,} entries, or aliases of YAML "
      "(*) that refer to what they are part of"
    )
  return entries


def warn_of_mixture(
  names: Sequence[str], entries: Sequence[Mapping[str, Any]]
) -> None:
  """Warns of configurations that are whole, and were named together.

  Args:
    names: of configurations or files, of which later ones win.
    entries: of each.
  """
  named = list(zip(names, entries, strict=True))
  for plan in ("data", "model"):
    whole = [name for name, own in named if "constructor" in own.get(plan, {})]
    if len(whole) > 1:
      _LOG.warning(
        "%s all describe %s: what %s says wins, and the rest is mixed with "
        "what the others say",
        " and ".join(whole),
        plan,
        whole[-1],
      )
      return


def check_entries(entries: Mapping[str, Any], source: str = "") -> None:
  """Checks that entries can be merged with those of other sources.

  Args:
    entries: of a file or of the command line.
    source: where they come from, the start of every fault's line.

  Raises:
    ConfigError: lists keys that are no names, plans that are no mappings, and
      numbers that no computation can hold.
  """
  faults = [
    f"{source}{key}={entries[key]!r}: must be a mapping of entries"
    for key in PLANS
    if not isinstance(entries.get(key, {}), Mapping)
  ]
  faults += [
    f"{source}{key!r}: no valid key. A key is a name; for what is inside of "
    "an entry, nest mappings in a file, and write data.path=... on the "
    "command line"
    for _, entry in _walk(entries)
    if isinstance(entry, Mapping)
    for key in entry
    if not (isinstance(key, str) and key.isidentifier())
  ]
  faults += [
    f"{source}{fault}"
    for path, entry in _walk(entries)
    if (fault := checks.number_fault(path, entry))
  ]
  if faults:
    raise ConfigError("\n".join(faults))


def _walk(entries: Any) -> Iterator[tuple[str, Any]]:
  """Yields entries, and whatever is inside of them, with their dotted paths."""
  waiting = [("", entries)]
  while waiting:
    path, entry = waiting.pop()
    yield path, entry
    if isinstance(entry, Mapping):
      start = f"{path}." if path else ""
      waiting.extend((f"{start}{key}", x) for key, x in entry.items())
    elif isinstance(entry, list | tuple):
      waiting.extend((f"{path}[{i}]", x) for i, x in enumerate(entry))
