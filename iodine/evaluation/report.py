"""The output of `evaluate`: a table, JSON, Markdown, and a figure."""

import io
import json
import math
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp

from iodine.errors import ConfigError
from iodine.evaluation.scores import Evaluation, Score
from iodine.files import write_whole
from iodine.metrics import SCENE_SCORES
from iodine.pictures import curves, page

__all__ = ["check_paper", "table_rows", "text_table", "write"]

JSON_FILE = "evaluation.json"
MARKDOWN_FILE = "evaluation.md"
FIGURE_FILE = "evaluation.png"

# The usual names, even if a variant such as tensorflow-cpu is installed.
_VERSIONS = {
  "python": platform.python_version(),
  "tensorflow": tf.__version__,
  "tensorflow-probability": tfp.__version__,
  "dm-sonnet": snt.__version__,
  "numpy": np.__version__,
}
_HEADER = ("score", "mean", "std over scenes", "standard error", "paper")
_PAPER_NOTE = (
  "paper: mean and standard deviation over five training seeds; the other "
  "columns are over scenes."
)


def check_paper(paper: Mapping[str, Any]) -> None:
  """Checks published scores before any work starts.

  Raises:
    ConfigError: if they are not in the format of `table_rows`.
  """
  faults = [
    f"paper_scores.{name}={value!r}: must be [mean, standard deviation]"
    for name, value in paper.items()
    if not isinstance(value, list | tuple)
    or len(value) != 2
    or not all(isinstance(x, int | float) for x in value)
  ]
  if faults:
    raise ConfigError("\n".join(faults))


def table_rows(
  evaluation: Evaluation, paper: Mapping[str, Sequence[float]]
) -> list[tuple[str, str, str, str, str]]:
  """Formats the scores as text.

  Args:
    evaluation: the measured scores.
    paper: {score: (mean, standard deviation over training seeds)}.

  Returns:
    One row per score: its name, mean, standard deviation and standard error
    over scenes, and the paper's.
  """
  rows = []
  for name, score in evaluation.scores.items():
    label = SCENE_SCORES.get(name, name)
    if score.undefined:
      label += f" ({score.undefined} scenes undefined)"
    published = ""
    if name in paper:
      published = "{:.3f} +- {:.3f}".format(*paper[name])
    rows.append(
      (
        label,
        _number(score.mean),
        _number(score.std),
        _number(score.stderr),
        published,
      )
    )
  return rows


def _number(value: float | None) -> str:
  return "" if value is None else f"{value:.4g}"


def text_table(rows: Sequence[Sequence[str]]) -> str:
  """Aligns rows under their header, for a terminal."""
  table = [_HEADER, *rows]
  widths = [max(len(row[i]) for row in table) for i in range(len(_HEADER))]
  lines = []
  for row in table:
    cells = [row[0].ljust(widths[0])]
    cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
    lines.append("  ".join(cells).rstrip())
  lines.insert(1, "  ".join("-" * w for w in widths))
  return "\n".join([*lines, _PAPER_NOTE])


def write(
  folder: pathlib.Path,
  evaluation: Evaluation,
  paper: Mapping[str, Sequence[float]],
  config: Mapping[str, Any],
  checkpoint: str,
) -> None:
  """Writes evaluation.json, evaluation.md and evaluation.png.

  Each file is written atomically.

  Args:
    folder: existing folder for the files.
    evaluation: the measured scores.
    paper: published scores, see `table_rows`.
    config: the whole configuration.
    checkpoint: prefix of the checkpoint that was scored.

  Raises:
    RunError: if a file cannot be written.
    ValueError: if the configuration contains numbers that JSON lacks.
  """
  result = {
    "scenes": evaluation.scenes,
    "metrics": {k: _statistics(s) for k, s in evaluation.scores.items()},
    "per_step": {
      k: [_finite(v) for v in s.per_step] for k, s in evaluation.scores.items()
    },
    "images_per_second": _finite(evaluation.images_per_second),
    "configuration": config,
    "checkpoint": checkpoint,
    "versions": _VERSIONS,
  }
  result_text = json.dumps(result, indent=1, allow_nan=False) + "\n"
  rows = table_rows(evaluation, paper)
  marks = [
    "| " + " | ".join(map(page.markdown, row)) + " |"
    for row in [_HEADER, *rows]
  ]
  marks.insert(1, "| --- |" + " ---: |" * (len(_HEADER) - 1))
  text = "\n".join(
    [
      f"{evaluation.scenes} scenes, checkpoint "
      f"{page.markdown_code(checkpoint)}",
      "",
      *marks,
      "",
      _PAPER_NOTE,
      "",
    ]
  )
  figure = curves.scores_plot(
    {SCENE_SCORES.get(k, k): s.per_step for k, s in evaluation.scores.items()},
    first_step=evaluation.first_step,
  )
  picture = io.BytesIO()
  figure.savefig(picture, format="png", bbox_inches="tight")
  write_whole(folder / FIGURE_FILE, picture.getvalue())
  write_whole(folder / MARKDOWN_FILE, text)
  write_whole(folder / JSON_FILE, result_text)


def _statistics(score: Score) -> dict[str, Any]:
  return {
    "mean": _finite(score.mean),
    "std": _finite(score.std),
    "stderr": _finite(score.stderr),
    "undefined": score.undefined,
  }


def _finite(value: float | None) -> float | None:
  """Replaces values that JSON cannot represent with None."""
  return None if value is None or not math.isfinite(value) else value
