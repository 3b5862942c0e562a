"""What the documentation site says of configurations and entries."""

import re
import types

import pytest

from iodine.command_line import COMMANDS
from iodine.config import reading
from iodine.config.entries import ENTRIES
from scripts import site_tables
from tests.support.places import REPOSITORY

_NAMES = reading.config_names()


@pytest.mark.parametrize("name", _NAMES)
def test_a_head_has_all_facts(name):
  about, facts, _ = site_tables.head(name)
  assert about.endswith(".")
  assert list(facts) == ["command", "hardware", "hours", "score"]
  assert all(facts.values())
  command = facts["command"].replace("\\\n", " ").splitlines()[-1]
  assert name in command or command == "make demo"


def test_a_fact_of_several_lines_is_whole():
  facts = site_tables.head("gnm_small").facts
  assert facts["command"].splitlines() == [
    "python -m iodine.synthetic sprites --scenes 60000 --seed 0 \\",
    "  --output data/demo_train.tfrecords",
    "python -m iodine.main with gnm_small",
  ]
  assert facts["score"].endswith("0.928, the right\nnumber of objects in 93%")


def _rows(page: str, header: str) -> list[list[str]]:
  """The cells of all rows of tables, less headers that begin so."""
  rows = [x[2:-2].split(" | ") for x in page.splitlines() if x[:2] == "| "]
  return [row for row in rows if row[0] not in (header, "---")]


def test_the_table_of_configurations_has_all():
  page = site_tables.configurations()
  rows = _rows(page, "configuration")
  assert {row[0] for row in rows} == {f"[`{x}`](#{x})" for x in _NAMES}
  assert len(rows) == len(_NAMES)
  assert {len(row) for row in rows} == {6}
  assert re.findall(r"^### (.*)$", page, re.MULTILINE) == _NAMES
  assert "\n    constructor" not in page  # all YAML is inside of its note
  assert page.count("    n_z: 64\n") >= 5


def test_the_table_of_entries_has_all():
  rows = _rows(site_tables.entries(), "entry")
  assert [row[0] for row in rows] == [f"`{x}`" for x in ENTRIES]
  cells = {row[0]: row[1:] for row in rows}
  assert cells["`num_iters`"] == [
    *("refinement steps", "an integer of at least 0", "`5`", "all"),
  ]
  users = cells["`num_scenes`"][-1].split(", ")
  assert {x.strip("`") for x in users} < set(COMMANDS) and len(users) == 4
  assert "&lt;run id&gt;" in cells["`checkpoint_dir`"][0]


def test_every_document_is_in_the_navigation():
  text = (REPOSITORY / "mkdocs.yml").read_text()
  for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")):
    assert f": {path.relative_to(REPOSITORY)}\n" in text, path


# --- Hooks, where `make docs` has installed MkDocs ----------------------------


@pytest.fixture
def hooks():
  pytest.importorskip("mkdocs")
  return pytest.importorskip("scripts.site_hooks")


@pytest.mark.parametrize(
  "link, expected",
  [
    (
      "[`IODINE.decode`](../iodine/modules/iodine.py)",
      "[`IODINE.decode`][iodine.modules.iodine.IODINE.decode]",
    ),
    (
      "[`IODINE._decode_step`](../iodine/modules/iodine.py)",
      "[`IODINE._decode_step`][iodine.modules.iodine.IODINE]",
    ),
    ("[`geco.py`](../iodine/geco.py)", "[`geco.py`][iodine.geco]"),
    ("[`A`](../iodine/modules/_info.py)", "`A`"),
    ("[a](../configs)", "[a](configurations.md)"),
    ("[a](model.md#dimensions)", "[a](model.md#dimensions)"),
    ("[a](https://a.b/iodine/geco.py)", "[a](https://a.b/iodine/geco.py)"),
  ],
)
def test_links_to_sources_lead_to_the_reference(hooks, link, expected):
  page = types.SimpleNamespace(
    file=types.SimpleNamespace(src_uri="docs/model.md")
  )
  assert hooks.on_page_markdown(f"See {link}.", page) == f"See {expected}."


def test_formulas_are_rendered(hooks):
  page = types.SimpleNamespace(
    file=types.SimpleNamespace(src_uri="docs/model.md")
  )
  text = r'<div class="arithmatex">\[a &lt; b_1\]</div>'
  html = hooks.on_page_content(text, page, {})
  assert html.startswith("<math") and 'display="block"' in html
  assert "<msub><mi>b</mi><mn>1</mn></msub>" in html
  assert "&lt;" in html or "&#x0003C;" in html
