"""Tests of iodine.evaluation.report, and of the figure that it writes."""

import json
import math
import platform

import numpy as np
import pytest
import tensorflow as tf

from iodine.errors import ConfigError, RunError
from iodine.evaluation import report as evaluation_report
from iodine.evaluation.scores import Evaluation, Score
from iodine.pictures import curves

NAN = math.nan
ARI = Score(0.91234, 0.125, 0.0375, 2, (0.25, 0.5, 0.91234))
RECONS = Score(-1234.5, 20.25, 6.5, 0, (NAN, -900.0, -1234.5))
SHAPE = Score(0.625, None, None, 0, (0.125, 0.5, 0.625), "accuracy")
RESULT = Evaluation(
  scenes=11,
  scores={"ari_nobg": ARI, "recons": RECONS, "factor/shape": SHAPE},
  images_per_second=17.5,
)
PAPER = {"ari_nobg": [0.992, 0.004]}
CONFIG = {"n_z": 5, "model": {"inputs": ["image"]}, "evaluation_dir": None}
PREFIX = "checkpoints/tetrominoes/model.ckpt"
FILES = {"evaluation.json", "evaluation.md", "evaluation.png"}


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


HEADER = ("score", "mean", "std over scenes", "standard error")


def _write(folder, result=RESULT, config=CONFIG, paper=PAPER):
  evaluation_report.write(folder, result, paper, config, PREFIX)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Not to be changed."""
  folder = tmp_path_factory.mktemp("written")
  _write(folder)
  return folder


def test_rows_put_the_papers_scores_beside_ours():
  assert evaluation_report.table_rows(RESULT, PAPER) == [
    (*HEADER, "published"),
    (
      "ARI without background (2 scenes undefined)",
      "0.9123",
      "0.125",
      "0.0375",
      "0.992 +- 0.004",
    ),
    ("reconstruction loss (nats)", "-1234", "20.25", "6.5", ""),
    ("accuracy of shape", "0.625", "", "", ""),
  ]


def test_the_table_says_what_each_deviation_is_over():
  rows = evaluation_report.table_rows(RESULT, PAPER)[1:]
  lines = evaluation_report.text_table(RESULT, PAPER).splitlines()
  assert lines[0].split("  ")[0] == "score"
  assert lines[0].endswith("published")
  assert "std over scenes" in lines[0]
  assert set(lines[1]) == {"-", " "}
  assert len(lines) == 2 + len(rows) + 1
  # Columns are aligned at their right ends.
  ends = [lines[0].index(word) + len(word) for word in ("mean", "scenes")]
  for line, row in zip(lines[2:4], rows, strict=False):
    assert line[: ends[0]].endswith(row[1])
    assert line[: ends[1]].endswith(row[2])
  assert "five training seeds" in lines[-1]
  assert "over scenes" in lines[-1]


@pytest.mark.parametrize("paper", [{}, {"ari": [0.9, 0.1]}])
def test_without_published_scores_there_is_no_column_for_them(tmp_path, paper):
  rows = evaluation_report.table_rows(RESULT, paper)
  assert rows[0] == HEADER
  assert {len(row) for row in rows} == {4}
  _write(tmp_path, paper=paper)
  markdown = (tmp_path / "evaluation.md").read_text()
  for text in (evaluation_report.text_table(RESULT, paper), markdown):
    assert "published" not in text
    assert "seeds" not in text


def test_published_scores_may_be_of_one_model():
  paper = {"recons": -1e3, "ari_nobg": [0.9, 0.1], "mse": 1.0}
  rows = evaluation_report.table_rows(RESULT, paper)
  assert [row[-1] for row in rows] == [
    *("published", "0.900 +- 0.100", "-1000", "")
  ]
  *_, first, second = evaluation_report.text_table(RESULT, paper).splitlines()
  assert "five training seeds" in first
  assert "one trained model" in second
  del paper["ari_nobg"]
  text = evaluation_report.text_table(RESULT, paper)
  assert "one trained model" in text
  assert "seeds" not in text


def test_a_negative_r2_is_explained():
  for mean, is_explained in ((0.25, False), (-2.66, True)):
    size = Score(mean, None, None, 0, (mean,), "R^2")
    result = Evaluation(1, {"ari": ARI, "factor/size": size}, 1.0)
    lines = evaluation_report.text_table(result, {}).splitlines()
    assert lines[3].startswith("R^2 of size")
    assert (lines[-1].startswith("R^2 below 0: ")) == is_explained
  lower = Score(-0.5, 0.1, 0.1, 0, (-0.5,))
  text = evaluation_report.text_table(Evaluation(1, {"ari": lower}, 1.0), {})
  assert "R^2" not in text


def test_json_has_everything(written):
  assert set(_contents(written)) == FILES
  reject = lambda constant: pytest.fail(f"{constant} is no JSON")
  text = (written / "evaluation.json").read_text()
  actual = json.loads(text, parse_constant=reject)
  versions = actual.pop("versions")
  assert actual == {
    "scenes": 11,
    "shift": None,
    "metrics": {
      "ari_nobg": {
        "mean": 0.91234,
        "std": 0.125,
        "stderr": 0.0375,
        "undefined": 2,
      },
      "recons": {
        "mean": -1234.5,
        "std": 20.25,
        "stderr": 6.5,
        "undefined": 0,
      },
      "factor/shape": {
        "mean": 0.625,
        "std": None,
        "stderr": None,
        "undefined": 0,
      },
    },
    "per_step": {
      "ari_nobg": [0.25, 0.5, 0.91234],
      "recons": [None, -900.0, -1234.5],
      "factor/shape": [0.125, 0.5, 0.625],
    },
    "images_per_second": 17.5,
    "configuration": CONFIG,
    "checkpoint": PREFIX,
  }
  assert set(versions) == {
    "python",
    "tensorflow",
    "tensorflow-probability",
    "dm-sonnet",
    "numpy",
  }
  assert versions["python"] == platform.python_version()
  assert versions["tensorflow"] == tf.__version__
  assert versions["numpy"] == np.__version__


def test_undefined_numbers_are_null(tmp_path):
  score = Score(NAN, NAN, NAN, 3, (NAN, math.inf))
  _write(tmp_path, Evaluation(3, {"covering": score}, NAN))
  actual = json.loads((tmp_path / "evaluation.json").read_text())
  assert actual["images_per_second"] is None
  assert actual["per_step"]["covering"] == [None, None]
  assert actual["metrics"]["covering"] == {
    "mean": None,
    "std": None,
    "stderr": None,
    "undefined": 3,
  }


def test_markdown_is_a_table(written):
  lines = (written / "evaluation.md").read_text().splitlines()
  assert lines[0] == f"11 scenes, checkpoint `{PREFIX}`"
  table = [line for line in lines if line.startswith("|")]
  cells = [[c.strip() for c in line.split("|")[1:-1]] for line in table]
  assert [len(row) for row in cells] == [5] * 5
  assert cells[1] == ["---", "---:", "---:", "---:", "---:"]
  rows = evaluation_report.table_rows(RESULT, PAPER)
  assert [tuple(row) for row in (cells[0], *cells[2:])] == rows
  assert "five training seeds" in lines[-1]


def test_the_figure_is_a_picture(written):
  image = tf.io.decode_png((written / "evaluation.png").read_bytes())
  assert min(image.shape[:2]) > 100
  assert len(np.unique(image)) > 10


def test_writing_again_replaces_all(tmp_path):
  for name in FILES:
    (tmp_path / name).write_text("of an earlier evaluation")
  before = _contents(tmp_path)
  _write(tmp_path)
  after = _contents(tmp_path)
  assert set(after) == FILES
  assert all(after[name] != before[name] for name in FILES)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch, name):
  (tmp_path / name).write_text("of an earlier evaluation")
  original = type(tmp_path).replace

  def replace(path, target):
    if target.name == name:
      # All of it lies beside the old one before it takes its place.
      assert path.parent == tmp_path and path.stat().st_size > 100
      raise OSError("the disk is full")
    return original(path, target)

  monkeypatch.setattr(type(tmp_path), "replace", replace)
  with pytest.raises(RunError, match=f"{name}: cannot be written: the disk is"):
    _write(tmp_path)
  assert (tmp_path / name).read_text() == "of an earlier evaluation"


def test_what_json_cannot_hold_leaves_all_as_it_was(written):
  before = _contents(written)
  with pytest.raises(ValueError, match="JSON"):
    _write(written, config={"learn_rate": NAN})
  assert _contents(written) == before


@pytest.mark.parametrize(
  "value", [True, [0.9], [0.9, 0.1, 0.2], "0.9", [0.9, "0.1"], None, {}]
)
def test_papers_scores_are_checked(value):
  message = r"paper_scores\.ari=.*must be \[mean, standard deviation\]"
  with pytest.raises(ConfigError, match=message):
    evaluation_report.check_paper({**PAPER, "ari": value})
  evaluation_report.check_paper(PAPER)
  evaluation_report.check_paper({})


# --- The figure ---------------------------------------------------------------


@pytest.mark.parametrize(
  "count, shape", [(1, (1, 1)), (4, (1, 4)), (9, (3, 4))]
)
def test_a_panel_for_each_score(count, shape):
  scores = {f"score {i}": [i, i + 0.5, NAN] for i in range(count)}
  figure = curves.scores_plot(scores)
  axes = figure.axes
  assert len(axes) == np.prod(shape)
  width, height = figure.get_size_inches()
  assert width / height == pytest.approx(shape[1] / shape[0] / 0.8)
  for i, ax in enumerate(axes[:count]):
    assert ax.get_title() == f"score {i}"
    assert ax.get_xlabel() == "refinement step"
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(line.get_ydata(), [i, i + 0.5, NAN])
  assert [ax.get_visible() for ax in axes] == [
    i < count for i in range(len(axes))
  ]


def test_scores_are_over_the_steps_of_the_model():
  figure = curves.scores_plot({"MSE": [3.0, 2.0]}, first_step=1)
  (line,) = figure.axes[0].lines
  np.testing.assert_array_equal(line.get_xdata(), [1, 2])


def test_no_score_is_an_error():
  with pytest.raises(ValueError, match="nothing to plot"):
    curves.scores_plot({})


def test_means_of_an_earlier_evaluation(tmp_path):
  stored_means = evaluation_report.stored_means
  assert stored_means(tmp_path) is None
  (tmp_path / "evaluation.json").write_text(
    '{"scenes": 7, "metrics": {"mse": {"mean": 0.5}, "ari": {"mean": null}}}'
  )
  assert stored_means(tmp_path) == ({"mse": 0.5}, 7)
  for text in ("", "[]", '{"metrics": {"mse": 3}, "scenes": 2}', "{}"):
    (tmp_path / "evaluation.json").write_text(text)
    assert stored_means(tmp_path) is None
