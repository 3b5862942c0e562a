"""Tests of iodine.evaluation.comparison."""

import json
import math

from iodine.evaluation import comparison
from iodine.evaluation.comparison import Compared
from iodine.evaluation.cost import Cost
from iodine.evaluation.scores import Evaluation, Score


def _model(name, scores, published, memory):
  return Compared(
    name,
    f"runs/{name}/model.ckpt-3",
    "IODINE",
    (16, 8, 3),
    5,
    4,
    Evaluation(1200, scores, 17.5),
    Cost(1_234_567, 12.345, memory),
    published,
  )


ARI = Score(0.91234, 0.125, 0.0375, 2, (0.5, 0.91234))
AP = Score(0.25, None, None, 0, (0.25,))
MSE = Score(0.001, math.nan, math.nan, 0, (0.001,))
MODELS = [
  _model("a|b", {"ari_nobg": ARI, "ap/1": AP}, {"ari_nobg": [0.9, 0.1]}, None),
  _model("c", {"mse": MSE, "ari_nobg": ARI}, {"mse": 2e-4}, 12_345_678),
]


def test_table():
  assert comparison.table(MODELS) == [
    ("", "a|b", "c"),
    (
      "ARI without background",
      *["0.9123 +- 0.037 (2 undefined)"] * 2,
    ),
    ("ARI without background, published", "0.900 +- 0.100", ""),
    ("MSE", "", "0.001 +- nan"),
    ("MSE, published", "", "0.0002"),
    ("ap/1", "0.25", ""),
    ("parameters", "1,234,567", "1,234,567"),
    ("ms an image", "12.3", "12.3"),
    ("peak memory (MB)", "", "12"),
    ("slots", "5", "5"),
    ("refinement steps", "4", "4"),
    ("image size", "16 x 8", "16 x 8"),
  ]


def test_notes_say_what_there_is():
  lines = comparison.notes(MODELS, 32, "the CPU")
  assert "1,200 scenes" in lines[0]
  assert "32 images on the CPU" in lines[1]
  assert [line.partition(":")[0] for line in lines] == [
    *("+-", "ms an image", "peak memory", "published")
  ]
  first = MODELS[0]._replace(published={})
  assert len(comparison.notes([first], 32, "a GPU")) == 2


def test_markdown():
  text = comparison.markdown(MODELS, "2 models", ["a note"])
  title, table, notes, checkpoints = text.rstrip("\n").split("\n\n")
  assert (title, notes) == ("2 models", "a note")
  header, line, *_ = table.splitlines()
  assert header == r"|  | a\|b | c |"
  assert line == "| --- | ---: | ---: |"
  assert checkpoints.splitlines() == [
    r"- a\|b: `runs/a|b/model.ckpt-3`",
    "- c: `runs/c/model.ckpt-3`",
  ]


def test_json():
  result = json.loads(comparison.json_text(MODELS, {"seed": 1}))
  assert result["scenes"] == 1200
  assert result["configuration"] == {"seed": 1}
  assert "tensorflow" in result["versions"]
  first, second = result["models"]
  assert first["published"] == {"ari_nobg": [0.9, 0.1]}
  assert first["metrics"]["ari_nobg"]["stderr"] == 0.0375
  assert first["per_step"]["ari_nobg"] == [0.5, 0.91234]
  assert (first["peak_memory"], second["peak_memory"]) == (None, 12_345_678)
  assert second["metrics"]["mse"]["std"] is None  # NaN
  assert second["image_shape"] == [16, 8, 3]
