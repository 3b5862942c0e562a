"""YAML and JSON as plain data: no code, no key twice, paths as they are typed.

Numbers are those of JSON and YAML 1.2: YAML 1.1, which PyYAML reads, takes 1e-4
for text. What is a path stays as it was typed, so that a folder may be called
2024 or 007.
"""

import ast
import json
import math
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

import yaml

from iodine.config.entries import PATHS, TEXT_LISTS
from iodine.errors import ConfigError

__all__ = ["parse_file", "parse_words"]

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+")
_MOST_KEYS = 10_000  # that one mapping has with all that it merges in


class _RepeatedKey(ValueError):
  """A mapping has a key twice."""


def parse_file(path: pathlib.Path) -> Any:
  """Reads what a YAML or JSON file holds.

  Raises:
    ConfigError: if it cannot be read or parsed.
  """
  try:
    text = path.read_text(encoding="utf-8-sig")
    return _parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
  except (OSError, UnicodeDecodeError) as error:
    raise ConfigError(f"{path}: cannot be read: {error}") from error
  except RecursionError:
    raise ConfigError(f"{path}: is nested too deeply") from None
  # Parsers pass on what Python says of a number or a date.
  except (yaml.YAMLError, ValueError) as error:
    raise ConfigError(f"{path}: cannot be parsed: {error}") from error


def parse_words(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
  """Reads what comes after `with`.

  Args:
    words: KEY=VALUE, where dots in KEY lead into mappings; or names.

  Returns:
    The entries, and the names in order. What is no number, list or the like is
    text, and so is a path: a folder may be called 2024.

  Raises:
    ConfigError: if a word leads into an entry that is no mapping.
  """
  entries: dict[str, Any] = {}
  names = []
  for word in filter(None, words):
    key, equals, text = map(str.strip, word.partition("="))
    if not equals:
      names.append(key)
      continue
    *folders, name = key.split(".")
    place: Any = entries
    for folder in folders:
      place = place.setdefault(folder, {})
      if not isinstance(place, dict):
        raise ConfigError(
          f"{word}: {folder}={place!r} was given before, and holds no entries"
        )
    value = _text_list(text) if name in TEXT_LISTS else _value(text)
    is_typed = name in PATHS and isinstance(value, int | float | complex)
    place[name] = text if is_typed else value
  return entries, names


def _value(text: str) -> Any:
  """Reads a literal of Python, or null; all else is text."""
  if text == "null":
    return None
  try:
    with warnings.catch_warnings():  # such as of 4.index, which is no number
      warnings.simplefilter("ignore")
      return ast.literal_eval(text)
  except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
    return text


def _text_list(text: str) -> Any:
  """Reads a list of texts, which need no quotes; else as `_value`."""
  try:
    value = _parse_yaml(f"{TEXT_LISTS[0]}: {text}")[TEXT_LISTS[0]]
  except (yaml.YAMLError, ValueError, RecursionError):
    return text
  return value if isinstance(value, list) else _value(text)


def _integer(text: str) -> int | float:
  try:
    return int(text)
  except ValueError:  # More digits than Python reads.
    return math.inf


# --- JSON ---------------------------------------------------------------------


def _parse_json(text: str) -> Any:
  try:
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
  except _RepeatedKey:
    _parse_yaml(text.replace("\t", " "))  # which knows the line
    raise


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  mapping = {}
  for key, value in pairs:
    if key in mapping:
      raise _RepeatedKey(f"the key {key!r} is there twice")
    is_number = isinstance(value, int) and not isinstance(value, bool)
    mapping[key] = str(value) if key in PATHS and is_number else value
  return mapping


# --- YAML ---------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
  """PyYAML's, with the numbers of YAML 1.2."""

  def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
    """Makes a mapping, whose keys must differ, before others are merged in."""
    node = super().compose_mapping_node(anchor)
    lines: dict[str, int] = {}
    for key, value in node.value:
      if not isinstance(key, yaml.ScalarNode):
        continue
      line = key.start_mark.line + 1
      if key.value in lines:
        raise _RepeatedKey(
          f"line {line}: the key {key.value!r} is there already, in line "
          f"{lines[key.value]}"
        )
      lines[key.value] = line
      if key.value in (*PATHS, *TEXT_LISTS):
        _keep_as_typed(value)
    return node

  def flatten_mapping(self, node: yaml.MappingNode) -> None:
    """Merges others in, which may be many: mappings merge others in turn."""
    super().flatten_mapping(node)
    if len(node.value) > _MOST_KEYS:
      raise yaml.constructor.ConstructorError(
        None,
        None,
        f"a mapping of more than {_MOST_KEYS:,} keys",
        node.start_mark,
      )

  def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
    """Makes an integer, however many digits there are."""
    try:
      return super().construct_yaml_int(node)
    except ValueError:
      return math.inf


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
  "tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789")
)


def _keep_as_typed(node: yaml.Node) -> None:
  """Makes text of a number, and of those in a list."""
  if isinstance(node, yaml.SequenceNode):
    for item in node.value:
      if not isinstance(item, yaml.SequenceNode):
        _keep_as_typed(item)
  elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(
    (":int", ":float", ":timestamp")
  ):
    node.tag = "tag:yaml.org,2002:str"


def _parse_yaml(text: str) -> Any:
  return yaml.load(text, Loader=_Loader)
