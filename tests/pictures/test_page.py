"""Tests of iodine.pictures.page."""

import html
import html.parser

import pytest

from iodine.pictures import page

HOSTILE = "a\x1b[31m</p><script>\x00\x9b\u202e\udc80\"'&"


class _Texts(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.tags: set[str] = set()
    self.texts = ""

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)

  def handle_data(self, data):
    self.texts += data


def test_a_page_shows_what_it_is_given():
  section = page.Section(HOSTILE, HOSTILE, [HOSTILE])
  text = page.page(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)], [section])
  text.encode()  # can be written
  assert all(c.isprintable() or c == "\n" for c in text)
  parser = _Texts()
  parser.feed(text)
  assert "script" not in parser.tags
  shown = r"a\x1b[31m</p><script>\x00\x9b\u202e\udc80" + "\"'&"
  assert parser.texts.count(shown) == 7  # title twice, text, fact, section


def test_lines_of_a_text_stay():
  assert "<p>a\n\tb</p>" in page.page("", "a\n\tb", [], [])


@pytest.mark.parametrize(
  "text, expected",
  [
    ("ARI without background (2 scenes)", None),
    ("snake_case, größer", None),
    ("[a](b) ![c](d)", r"\[a\](b) !\[c\](d)"),
    ("<b>*x*</b>", r"\<b\>\*x\*\</b\>"),
    ("a|b`c`\\|", r"a\|b\`c\`\\\|"),
    ("a\n# b\x1b[0m", r"a\\n# b\\x1b\[0m"),
  ],
)
def test_markdown_is_escaped(text, expected):
  assert page.markdown(text) == (text if expected is None else expected)


@pytest.mark.parametrize(
  "text, expected",
  [
    ("/a/model.ckpt-3", "`/a/model.ckpt-3`"),
    ("a`b``c", "``` a`b``c ```"),
    ("a\n\x1b", r"`a\n\x1b`"),
  ],
)
def test_markdown_code_ends_where_it_should(text, expected):
  assert page.markdown_code(text) == expected


def test_a_table():
  section = page.Section("", "", table=[("", "<a>"), ("b", "1")])
  text = page.page("", "", [], [section])
  assert "<tr><th></th><th>&lt;a&gt;</th></tr>" in text
  assert "<tr><th>b</th><td>1</td></tr>" in text
  assert "<table>" not in page.page("", "", [], [page.Section("", "")])
