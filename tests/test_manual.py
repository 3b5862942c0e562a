"""What help says, and that it says it of all there is."""

import re

import pytest
from sacred import Experiment

from iodine import manual
from iodine.command_line import COMMANDS, ex
from iodine.config import printing, reading, resolution
from iodine.config.entries import ENTRIES
from iodine.errors import ConfigError
from iodine.options import OPTIONS

_NAMED = reading.named_configs()
_WORDS = re.compile(r"[a-z_0-9]+(, [a-z_0-9]+)*")


def _parts(text: str) -> list[str]:
  return [" ".join(part.split()) for part in text.split("\n\n")]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("COLUMNS", "300")


# --- All there is has its place -----------------------------------------------


def test_every_command_has_a_group_an_example_and_a_summary():
  assert set(COMMANDS) == set(ex.commands)
  for name, command in COMMANDS.items():
    assert command.group in manual.GROUPS, name
    assert re.match(rf"{name}( with |$)", command.example), name
    assert command.summary.endswith("."), name
  assert {x.group for x in COMMANDS.values()} == set(manual.GROUPS)


def test_examples_name_configurations_and_entries():
  for name, command in COMMANDS.items():
    for word in command.example.replace("'", "").split()[2:]:
      key, equals, _ = word.partition("=")
      assert key in (ENTRIES if equals else _NAMED), name


def test_every_model_of_a_configuration_has_a_title():
  constructors = {
    entries["model"]["constructor"] for entries in _NAMED.values()
  }
  assert {x.split(".")[-2] for x in constructors} == set(manual.MODELS)


def test_helps_of_entries_begin_with_commands_that_exist():
  for name, entry in ENTRIES.items():
    for part in entry.help.split("; "):
      head, colon, _ = part.partition(": ")
      if colon and _WORDS.fullmatch(head) and head != "samples":
        assert set(head.split(", ")) <= set(COMMANDS), name


def test_a_word_means_one_thing():
  kinds = (COMMANDS, _NAMED, ENTRIES, ["options", "help"])
  words = [word for kind in kinds for word in kind]
  assert len(words) == len(set(words))


def test_options_are_those_of_sacred():
  found = {
    long: (short, bool(option.is_flag))
    for option in Experiment("test", save_git_info=False).all_cli_options
    for short, long in [option.get_flags()]
  }
  assert found == {
    name: (option.letter, not option.value) for name, option in OPTIONS.items()
  }


# --- What it says -------------------------------------------------------------


def test_the_general_help_has_commands_configurations_and_options():
  text = manual.overview(COMMANDS, _NAMED)
  for name, command in COMMANDS.items():
    assert re.search(rf"^  {name} +{re.escape(command.summary)}$", text, re.M)
  for name in _NAMED:
    assert re.search(rf"^    {name}  ", text, re.M)
  assert "\n    gnm_clevr6          CLEVR6, 128 x 128 pixels: the" in text
  assert "-F, --file_storage FOLDER" in text
  assert "--tiny_db" not in text
  assert "--tiny_db" in manual.about("options", COMMANDS)


@pytest.mark.parametrize("columns", [76, 80, 120])
def test_lines_are_as_wide_as_the_terminal(columns, monkeypatch):
  monkeypatch.setenv("COLUMNS", str(columns))
  texts = [
    manual.overview(COMMANDS, _NAMED),
    *(manual.about(x, COMMANDS) for x in COMMANDS),
  ]
  for line in "\n".join(texts).splitlines():
    is_command_line = line.startswith("  python -m ")
    assert is_command_line or len(line) <= columns, line


def test_the_help_of_a_command_has_its_entries():
  parts = _parts(manual.about("traverse", COMMANDS))
  assert parts[0] == "traverse: Draw what the latents of a slot do."
  assert "Writes a picture and an animation" in parts[1]
  assert parts[2].startswith(
    "Example: python -m iodine.main traverse with demo"
  )
  assert "scene=1 which scene, from 1 on" in parts[3]
  assert "num_samples" not in manual.about("traverse", COMMANDS)
  assert "seed seed of all that is random" in parts[4]
  assert "stop_after_steps" not in parts[4]
  text = manual.about("inspect_checkpoint", COMMANDS)
  assert "checkpoint_dir" in text and "n_z" not in text
  assert "entries" not in manual.about("print_named_configs", COMMANDS)


def test_the_help_of_a_configuration_is_its_head_comment():
  text = manual.about("tetrominoes", COMMANDS)
  assert text.startswith("Tetrominoes: three tetrominoes on black")
  assert "hardware  the paper: 8 GPUs" in text
  assert "n_z:" not in text


@pytest.mark.parametrize(
  "word, expected",
  [
    (
      "slot",
      "value an integer of at least 1 or None default None of visualize, ",
    ),
    (
      "strategy",
      "value one of mirrored, multi_worker, or None default None of train",
    ),
    ("n_z", "value an integer of at least 1 default 64 of every command"),
    (
      "data.cache_dir",
      "value a mapping of entries default {} of every command",
    ),
  ],
)
def test_the_help_of_an_entry_says_what_it_may_be(word, expected):
  first, second = _parts(manual.about(word, COMMANDS))
  assert first.startswith(word.partition(".")[0])
  assert not first.startswith("strategy: train:")
  assert second.startswith(expected)


def test_an_entry_may_mean_different_things_to_commands():
  text = "a, b: how many; of which; c: how large"
  assert manual.helps_by_command(text, "abc") == {
    "a": "how many; of which",
    "b": "how many; of which",
    "c": "how large",
  }
  assert manual.helps_by_command("None: all; x: y", "abc") == {}


@pytest.mark.parametrize(
  "word, near",
  [("tetromino", "tetrominoes"), ("gecko", "geco"), ("sampel", "sample")],
)
def test_an_unknown_word_names_the_nearest_of_all(word, near):
  with pytest.raises(ConfigError, match=f"{word}: no such.*mean '{near}'"):
    manual.about(word, COMMANDS)
  with pytest.raises(ConfigError, match="entry. `help` lists"):
    manual.about("xyzzy", COMMANDS)


# --- print_config -------------------------------------------------------------


class _Terminal:
  def isatty(self) -> bool:
    return True


def _shown(*given: str) -> str:
  entries = resolution.resolve({"n_z": 9, "data": {"path": ["a", "b"]}})
  return printing.format_config(entries, given)


def test_print_config_shows_all_of_a_help(monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  text = _shown("n_z")
  assert "\033" not in text
  assert (
    "\n  n_z = 9                            # size of a slot's latent\n" in text
  )
  assert "\n  data:  " in text and "\n    path = ['a', 'b']\n" in text
  assert max(map(len, text.splitlines())) <= 80
  words = re.sub(r"\n *# ", " ", text)
  for entry in ENTRIES.values():
    assert " ".join(entry.help.split()) in words


def test_print_config_has_colours_on_a_terminal(monkeypatch):
  monkeypatch.setattr("sys.stdout", _Terminal())
  monkeypatch.delenv("NO_COLOR", raising=False)
  monkeypatch.setenv("TERM", "xterm")
  text = _shown("n_z", "data.path")
  assert "\033[34m  n_z = 9\033[0m" in text
  assert "\033[34m    path = ['a', 'b']\033[0m" in text
  assert "\033[34m  num_iters" not in text
  monkeypatch.setenv("NO_COLOR", "1")
  assert "\033" not in _shown("n_z")
