"""Tests of iodine.pictures.page."""

import html
import html.parser
import pathlib

import numpy as np
import pytest

from iodine.pictures import animations, page, sections
from tests.support.browser import Shown

HOSTILE = "a\x1b[31m</p><script>\x00\x9b\u202e\udc80\"'&"


class _Texts(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.tags: list[str] = []
    self.texts = ""

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)

  def handle_data(self, data):
    self.texts += data


def test_a_page_shows_what_it_is_given():
  section = page.Section(HOSTILE, HOSTILE, [HOSTILE])
  text = page.page(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)], [section])
  text.encode()  # can be written
  assert all(c.isprintable() or c == "\n" for c in text)
  parser = _Texts()
  parser.feed(text)
  assert parser.tags.count("script") == 1  # the page's own
  shown = r"a\x1b[31m</p><script>\x00\x9b\u202e\udc80" + "\"'&"
  # Title twice, text, fact twice, section twice, caption.
  assert parser.texts.count(shown) == 8


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


def test_every_picture_is_described_in_words():
  for name in sections.PICTURES:
    if not name.endswith("_still.png"):
      described = page.descriptions.description(name)
      assert name not in described
      assert len(described.alt) > len(described.caption)


# --- In a browser -------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> pathlib.Path:
  """A page of an animation and a wide picture."""
  folder = tmp_path_factory.mktemp("page")
  frames = np.zeros([3, 100, 600, 3], np.uint8)
  frames[1:] = [[[[255, 0, 0]]], [[[0, 255, 0]]]]
  animation = animations.Animation(frames, [200] * 3)
  animations.save_gif(folder / "traversal.gif", animation)
  animations.save_still(
    folder / "traversal.gif", folder / page.still("traversal.gif")
  )
  (folder / "swap.png").write_bytes(
    (folder / "traversal_still.png").read_bytes()
  )
  section = page.Section("Section", "Text", ["traversal.gif", "swap.png"])
  text = page.page("T" * 100, "Text", [("Name", "x" * 100)], [section])
  (folder / "index.html").write_text(text, encoding="utf-8")
  return folder / "index.html"


def test_pictures_are_enlarged_by_click_and_key(browser, path):
  shown = Shown(browser, path)
  picture = shown.page.locator('a[href="swap.png"]')
  dialog = shown.page.get_by_role("dialog")
  image = shown.page.locator("dialog img")
  for enlarge in (picture.click, lambda: picture.press("Enter")):
    for close in (
      lambda: shown.page.keyboard.press("Escape"),
      shown.page.get_by_role("button", name="Close").click,
      lambda: shown.page.mouse.click(3, 3),
    ):
      assert not dialog.is_visible()
      enlarge()
      assert dialog.is_visible()
      assert image.get_attribute("src").endswith("/swap.png")
      assert "swap a slot" in image.get_attribute("alt")
      close()
      assert not dialog.is_visible()
      # Where the reader was.
      assert picture.evaluate("link => link === document.activeElement")
  assert shown.page.url == path.as_uri()
  assert not shown.faults


@pytest.mark.parametrize("prefers", ["reduce", "no-preference"])
def test_animations_can_be_stopped_and_stand_for_who_prefers_it(
  browser, path, prefers
):
  shown = Shown(browser, path, reduced_motion=prefers)
  image = shown.page.locator('img[src="traversal.gif"]')

  def moves() -> bool:
    shown.settle()
    return image.evaluate("image => image.currentSrc").endswith(".gif")

  assert moves() == (prefers == "no-preference")
  for name in ("Pause", "Play") if moves() else ("Play", "Pause"):
    shown.page.get_by_role("button", name=name).click()
    shown.page.wait_for_timeout(100)
    assert moves() == (name == "Play")
  assert not shown.faults


def test_without_scripts_links_lead_to_pictures(browser, path):
  shown = Shown(
    browser, path, java_script_enabled=False, reduced_motion="reduce"
  )
  shown.page.locator('a[href="swap.png"]').click()
  assert shown.page.url.endswith("/swap.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_in_its_colours(browser, path, scheme):
  phone = {"width": 390, "height": 844}
  shown = Shown(browser, path, viewport=phone, color_scheme=scheme)
  assert not shown.is_wide()
  color = shown.page.evaluate("getComputedStyle(document.body).color")
  assert (color == "rgb(0, 0, 0)") == (scheme == "light")
  assert shown.page.locator("main h1").count() == 1
  assert shown.page.locator("main figure figcaption").count() == 2
