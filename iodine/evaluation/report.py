"""The output of `evaluate`: a table, JSON, Markdown, and a figure.

Other reports take from here how rows, scores and a record are written.
"""

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

from iodine.checks import is_number
from iodine.errors import ConfigError
from iodine.evaluation.scores import Evaluation, Score
from iodine.files import write_whole
from iodine.metrics import SCENE_SCORES
from iodine.pictures import curves, page, saving

__all__ = [
  "aligned",
  "check_paper",
  "json_text",
  "markdown_table",
  "number",
  "per_step",
  "published_text",
  "score_label",
  "statistics",
  "table_rows",
  "text_table",
  "write",
]

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
_HEADER = ("score", "mean", "std over scenes", "standard error")
_PUBLISHED = "published"  # a column of its own, if there is anything
_SEEDS_NOTE = (
  "published: mean and standard deviation over five training seeds; the other "
  "columns are over scenes."
)
_NEGATIVE_NOTE = (
  "R^2 below 0: on average, the predictions are further off than the factor's "
  "mean over all objects would be."
)
_ONE_MODEL_NOTE = "published: mean over scenes of one trained model."

# Published scores: of one model, or mean and standard deviation over several.
_Published = Mapping[str, float | Sequence[float]]
_Rows = list[tuple[str, ...]]


def check_paper(paper: Mapping[str, Any]) -> None:
  """Checks published scores before any work starts.

  Raises:
    ConfigError: if they are not in the format of `table_rows`.
  """
  faults = [
    f"paper_scores.{name}={value!r}: must be [mean, standard deviation], or "
    "the number of one model"
    for name, value in paper.items()
    if not is_number(value) and not _is_pair(value)
  ]
  if faults:
    raise ConfigError("\n".join(faults))


def _is_pair(value: Any) -> bool:
  return (
    isinstance(value, list | tuple)
    and len(value) == 2
    and all(map(is_number, value))
  )


def table_rows(
  evaluation: Evaluation, paper: _Published
) -> list[tuple[str, ...]]:
  """Formats the scores as text.

  Args:
    evaluation: the measured scores.
    paper: {score: (mean, standard deviation over training seeds), or the
      score of one model}.

  Returns:
    The header, and one row per score: its name, mean, standard deviation and
    standard error over scenes, and, if any of them is published, what is.
  """
  rows: _Rows = [(*_HEADER, _PUBLISHED)]
  for name, score in evaluation.scores.items():
    label = score_label(name, score)
    if score.undefined:
      label += f" ({score.undefined} scenes undefined)"
    published = ""
    if name in paper:
      published = published_text(paper[name])
    rows.append(
      (
        label,
        number(score.mean),
        number(score.std),
        number(score.stderr),
        published,
      )
    )
  if _has_published(evaluation, paper):
    return rows
  return [row[:-1] for row in rows]


def score_label(name: str, score: Score) -> str:
  """What tables and figures call a score."""
  if score.measure is None:
    return SCENE_SCORES.get(name, name)
  return f"{score.measure} of {name.removeprefix('factor/')}"


def _has_published(evaluation: Evaluation, paper: _Published) -> bool:
  return not paper.keys().isdisjoint(evaluation.scores)


def published_text(value: float | Sequence[float]) -> str:
  """A published score: mean and standard deviation, or of one model."""
  if isinstance(value, Sequence):
    return "{:.3f} +- {:.3f}".format(*value)
  return f"{value:.4g}"


def number(value: float | None) -> str:
  """Formats a score, or nothing."""
  return "" if value is None else f"{value:.4g}"


def text_table(evaluation: Evaluation, paper: _Published) -> str:
  """The rows of `table_rows`, aligned for a terminal, and what they mean."""
  rows = table_rows(evaluation, paper)
  return "\n".join([aligned(rows), *_notes(evaluation, paper)])


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
  """Rows for a terminal, the first underlined, numbers to the right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [row[0].ljust(widths[0])]
    cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
    lines.append("  ".join(cells).rstrip())
  lines.insert(1, "  ".join("-" * w for w in widths))
  return "\n".join(lines)


def _notes(evaluation: Evaluation, paper: _Published) -> list[str]:
  """Lines below the table."""
  shown = [value for name, value in paper.items() if name in evaluation.scores]
  is_pair = {isinstance(value, Sequence) for value in shown}
  notes = {True: _SEEDS_NOTE, False: _ONE_MODEL_NOTE}
  lines = [notes[kind] for kind in notes if kind in is_pair]
  scores = evaluation.scores.values()
  if any(x.measure == "R^2" and x.mean < 0 for x in scores):
    lines.append(_NEGATIVE_NOTE)
  return lines


def write(
  folder: pathlib.Path,
  evaluation: Evaluation,
  paper: _Published,
  config: Mapping[str, Any],
  checkpoint: str,
  shift: str | None = None,
) -> None:
  """Writes evaluation.json, evaluation.md and evaluation.png.

  Each file is written atomically.

  Args:
    folder: existing folder for the files.
    evaluation: the measured scores.
    paper: published scores, see `table_rows`.
    config: the whole configuration.
    checkpoint: prefix of the checkpoint that was scored.
    shift: of the scenes; None: none.

  Raises:
    RunError: if a file cannot be written.
    ValueError: if the configuration contains numbers that JSON lacks.
  """
  result = {
    "scenes": evaluation.scenes,
    "shift": shift,
    "metrics": statistics(evaluation.scores),
    "per_step": per_step(evaluation.scores),
    "images_per_second": _finite(evaluation.images_per_second),
    "checkpoint": checkpoint,
  }
  result_text = json_text(result, config)
  named = {"protocol": config.get("protocol"), "shift": shift}
  text = _markdown(evaluation, paper, checkpoint, named)
  figure = curves.scores_plot(
    {score_label(k, s): s.per_step for k, s in evaluation.scores.items()},
    first_step=evaluation.first_step,
  )
  saving.replace(
    figure, folder, FIGURE_FILE, config.get("pictures_format", "png")
  )
  write_whole(folder / MARKDOWN_FILE, text)
  write_whole(folder / JSON_FILE, result_text)


def stored_means(folder: pathlib.Path) -> tuple[dict[str, float], int] | None:
  """Reads the mean scores of an earlier evaluation.

  Args:
    folder: of its results.

  Returns:
    {name: mean} of those that are defined, and the number of scenes; None if
    there is no evaluation, or one that cannot be read.
  """
  try:
    result = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
    means = {k: v["mean"] for k, v in result["metrics"].items()}
    scenes = result["scenes"]
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return None
  return {k: float(v) for k, v in means.items() if is_number(v)}, int(scenes)


def _markdown(
  evaluation: Evaluation,
  paper: _Published,
  checkpoint: str,
  named: Mapping[str, str | None],
) -> str:
  """The table, what it is of, and what it means."""
  title = (
    f"{evaluation.scenes} scenes, checkpoint {page.markdown_code(checkpoint)}"
  )
  for kind, name in named.items():
    if name is not None:
      title += f", {kind} {page.markdown(name)}"
  table = markdown_table(table_rows(evaluation, paper))
  parts = [title, table, "\n".join(_notes(evaluation, paper))]
  return "\n\n".join(filter(None, parts)) + "\n"


def markdown_table(rows: Sequence[tuple[str, ...]]) -> str:
  """Rows as a table of Markdown, the first as its header."""
  marks = ["| " + " | ".join(map(page.markdown, row)) + " |" for row in rows]
  marks.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
  return "\n".join(marks)


def json_text(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
  """Formats results as JSON, with what they were computed with.

  Args:
    result: plain data.
    config: the whole configuration.

  Raises:
    ValueError: if there are numbers that JSON lacks.
  """
  whole = {**result, "configuration": config, "versions": _VERSIONS}
  return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def statistics(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
  """{name: {statistic: number or None}} of scores, for JSON."""
  return {
    name: {
      "mean": _finite(score.mean),
      "std": _finite(score.std),
      "stderr": _finite(score.stderr),
      "undefined": score.undefined,
    }
    for name, score in scores.items()
  }


def per_step(scores: Mapping[str, Score]) -> dict[str, list[float | None]]:
  """{name: means after every step} of scores, for JSON."""
  return {
    name: [_finite(value) for value in score.per_step]
    for name, score in scores.items()
  }


def _finite(value: float | None) -> float | None:
  """Replaces values that JSON cannot represent with None."""
  return None if value is None or not math.isfinite(value) else value
