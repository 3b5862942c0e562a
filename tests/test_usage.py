"""Command lines that cannot be understood are explained in words of theirs."""

import warnings

import pytest

from tests.support.tiny_runs import fail, run

INSIDES = ("Argument(", "Option(", "unmatched", "dummy", "None")


def show_help(capsys, *words) -> str:
  """Returns what a command that shows help puts out."""
  capsys.readouterr()
  with pytest.raises(SystemExit) as stop:
    run(*words)
  assert not stop.value.code
  output = capsys.readouterr()
  assert not output.err
  return output.out


@pytest.mark.parametrize(
  "words",
  [
    ("evaluate", "--help"),
    ("evaluate", "-h"),
    ("--help", "evaluate"),
    ("evaluate", "with", "demo", "n_z=3", "--help"),
    ("-F", "train", "evaluate", "-qh"),
    ("help", "evaluate", "--help"),
  ],
)
def test_help_of_a_command_is_found_wherever_it_is_asked_for(words, capsys):
  text = show_help(capsys, *words)
  assert text == show_help(capsys, "help", "evaluate")
  assert text.startswith("evaluate: Score a model over many scenes")


@pytest.mark.parametrize("words", [("-hq",), ("with", "demo", "--help")])
def test_help_without_a_command_is_about_all(words, capsys):
  assert show_help(capsys, *words) == show_help(capsys, "--help")


@pytest.mark.parametrize("words", [("evaluat", "--help"), ("help", "evaluat")])
def test_help_for_an_unknown_word_names_the_nearest(words, capsys):
  error = fail(capsys, 2, *words)
  assert error == (
    "ConfigError: evaluat: no such command, configuration or entry. Did you "
    "mean 'evaluate'? `help` lists commands and configurations\n"
  )


@pytest.mark.parametrize(
  "line, told",
  [
    ("print_config with demo --batch_size=4", "without dashes: batch_size=4"),
    ("print_config with demo --batch-size=4", "without dashes: batch_size=4"),
    ("print_config with demo --batch_size 4", "without dashes: batch_size=4"),
    ("--data.path=x with demo", "without dashes: data.path=x"),
    ("with demo --seed", "without dashes: seed=VALUE"),
    ("with demo batch_size = 4", "without spaces: batch_size=4"),
    ("with demo batch_size =4", "without spaces: batch_size=4"),
    ("with demo batch_size= 4", "without spaces: batch_size=4"),
    ("with demo image_dim=[64, 64] n_z=3", "spaces: image_dim=[64,64]"),
    ("with demo data.path=['a', 'b' ]", "spaces: data.path=['a','b']"),
    ("train tetrominoes", "Did you mean `train with tetrominoes`?"),
    ("train -F runs tetrominoes n_z=3", "`train with tetrominoes n_z=3`?"),
    ("evaluate demo num_scenes=10", "`evaluate with demo num_scenes=10`?"),
    ("decompose image=x.png", "Did you mean `decompose with image=x.png`?"),
    ("tetrominoes", "Did you mean `train with tetrominoes`?"),
    ("tetrominoes n_z=3", "Did you mean `train with tetrominoes n_z=3`?"),
    ("demo slots=[1,2]", "Did you mean `train with demo 'slots=[1,2]'`?"),
    ("my.yaml", "Did you mean `train with my.yaml`?"),
    ("train demo with seed=3", "Did you mean `train with demo seed=3`?"),
    ("trainn demo", "no such command. Did you mean 'train'?"),
    ("evaluate visualize", "visualize: only one command can be run at a time"),
    ("with", "with: needs a configuration or KEY=VALUE"),
    ("train with", "with: needs a configuration or KEY=VALUE"),
    ("-F a -F b with demo", "--file_storage: must be given once"),
    ("with demo = 4", "'': no valid key"),
    ("with demo n_z", "with n_z: needs a value: n_z=VALUE"),
    ("with demo data=3 data.path=x", "data=3 was given before"),
    ("--", "--: no such command"),
  ],
)
def test_what_was_meant_is_told_in_one_line(line, told, capsys):
  error = fail(capsys, 2, *line.split(" "))
  assert error.startswith("ConfigError: ")
  assert told in error
  assert error.count("\n") == 1
  assert not [part for part in INSIDES if part in error]


@pytest.mark.parametrize(
  "line, told",
  [
    ("--foo with demo", "--foo: no such option\nUsage:"),
    ("-x", "-x: no such option\nUsage:"),
    ("train --p", "--p: no such option\nUsage:"),
    ("train -F", "-F requires argument\nUsage:"),
    ("--queue=3", "--queue must not have an argument\nUsage:"),
  ],
)
def test_what_is_not_understood_shows_the_usage_alone(line, told, capsys):
  error = fail(capsys, 2, *line.split(" "))
  assert error.startswith(told)
  assert not [part for part in INSIDES if part in error]


@pytest.mark.parametrize(
  "value",
  ["RUN/model.ckpt-4.index", "4.index", "1if", r"'\d'", "[" * 300, "{[]: 1}"],
)
def test_a_value_that_is_no_literal_is_text_without_a_word(value, capsys):
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    run("print_config", "with", "demo", f"checkpoint_dir={value}")
  assert not [
    w
    for w in caught
    if "literal" in str(w.message) or "escape" in str(w.message)
  ]
  output = capsys.readouterr()
  assert "Warning" not in output.err
  assert "checkpoint_dir = " in output.out


def test_a_mistake_is_no_matter_for_the_debugger(capsys):
  error = fail(capsys, 2, "-D", "with", "nonsense")
  assert error.startswith("ConfigError: with nonsense: no such configuration")
