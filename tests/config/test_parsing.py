"""Tests of iodine.config.parsing: lists of text."""

import pytest

from iodine.config import parsing


@pytest.mark.parametrize(
  "text, expected",
  [
    ("[demo,checkpoints/mine_1]", ["demo", "checkpoints/mine_1"]),
    ("[ demo, a b ]", ["demo", "a b"]),
    ("['a', \"b,c\"]", ["a", "b,c"]),
    ("[2024,007,1e-4,null]", ["2024", "007", "1e-4", None]),
    ("('a', 'b')", ("a", "b")),
    ("demo", "demo"),
    ("None", None),
    ("null", None),
    ("[a", "[a"),
    ("{a: b}", "{a: b}"),
  ],
)
@pytest.mark.parametrize("name", ["checkpoints", "names"])
def test_lists_of_text_need_no_quotes(name, text, expected):
  entries, names = parsing.parse_words([f"{name}={text}"])
  assert entries == {name: expected}
  assert names == []


def test_in_a_file_too(tmp_path):
  path = tmp_path / "mine.yaml"
  path.write_text("checkpoints: [2024, a]\nnames: [1, 2.5]\nscenes: [1, 2]\n")
  assert parsing.parse_file(path) == {
    "checkpoints": ["2024", "a"],
    "names": ["1", "2.5"],
    "scenes": [1, 2],
  }
