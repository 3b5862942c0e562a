"""Several models beside each other: a table, JSON and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from iodine.evaluation import cost, report
from iodine.evaluation.cost import Cost
from iodine.evaluation.scores import Evaluation, Score
from iodine.metrics import SCENE_SCORES
from iodine.pictures import page

__all__ = ["Compared", "json_text", "markdown", "notes", "table"]

_MEGABYTE = 1e6


class Compared(NamedTuple):
  """One of the models that are compared.

  Attributes:
    name: in tables and pictures.
    checkpoint: prefix of its files.
    kind: class of the model.
    image_shape: (H, W, C) of the images that it is shown.
    num_components: number of slots.
    num_refinements: number of refinement steps.
    evaluation: its scores.
    cost: its parameters, time and memory.
    published: published scores for the same data, see `report.check_paper`.
  """

  name: str
  checkpoint: str
  kind: str
  image_shape: tuple[int, int, int]
  num_components: int
  num_refinements: int
  evaluation: Evaluation
  cost: Cost
  published: Mapping[str, Any]


def table(models: Sequence[Compared]) -> list[tuple[str, ...]]:
  """Formats scores and costs as text.

  Args:
    models: at least one.

  Returns:
    The header, a row for each score that any of the models has, with its
    standard error, below it those that are published, and rows of costs. The
    first column says what a row is, each other one is a model's.
  """
  rows = [("", *(model.name for model in models))]
  for name in _score_names(models):
    scores = [m.evaluation.scores.get(name) for m in models]
    label = next(report.score_label(name, s) for s in scores if s is not None)
    rows.append((label, *map(_score, scores)))
    published = [m.published.get(name) for m in models]
    if any(value is not None for value in published):
      cells = ("" if x is None else report.published_text(x) for x in published)
      rows.append((f"{label}, published", *cells))
  facts = {
    "parameters": lambda m: f"{m.cost.parameters:,}",
    "ms an image": lambda m: f"{m.cost.milliseconds:.3g}",
    "peak memory (MB)": lambda m: _megabytes(m.cost.memory),
    "slots": lambda m: str(m.num_components),
    "refinement steps": lambda m: str(m.num_refinements),
    "image size": lambda m: " x ".join(map(str, m.image_shape[:2])),
  }
  for label, text in facts.items():
    rows.append((label, *map(text, models)))
  return rows


def _score_names(models: Sequence[Compared]) -> list[str]:
  """Names of all scores, those of scenes first."""
  names = [name for model in models for name in model.evaluation.scores]
  return list(dict.fromkeys(sorted(names, key=_rank)))


def _rank(name: str) -> int:
  known = list(SCENE_SCORES)
  return known.index(name) if name in known else len(known)


def _score(score: Score | None) -> str:
  if score is None:
    return ""
  text = f"{score.mean:.4g}"
  if score.stderr is not None:
    text += f" +- {score.stderr:.2g}"
  return text + (f" ({score.undefined} undefined)" if score.undefined else "")


def _megabytes(memory: int | None) -> str:
  return "" if memory is None else f"{memory / _MEGABYTE:.0f}"


def notes(
  models: Sequence[Compared], batch_size: int, device: str
) -> list[str]:
  """Lines that say what the numbers of `table` are.

  Args:
    models: at least one.
    batch_size: of the timed batches.
    device: what computed them, as people call it.
  """
  scenes = models[0].evaluation.scenes
  lines = [
    f"+-: standard error of the mean over {scenes:,} scenes.",
    f"ms an image: median of {cost.NUM_CALLS} batches of {batch_size} images "
    f"on {device}.",
  ]
  if any(model.cost.memory is not None for model in models):
    lines.append(
      "peak memory: of variables, compiled graph and a batch of that size."
    )
  if any(name in m.evaluation.scores for m in models for name in m.published):
    lines.append(
      "published: mean and standard deviation over training seeds, or a number "
      "of one model, over scenes of its own test."
    )
  return lines


def json_text(models: Sequence[Compared], config: Mapping[str, Any]) -> str:
  """Everything about the models, in JSON.

  Args:
    models: at least one.
    config: the whole configuration.

  Raises:
    ValueError: if the configuration contains numbers that JSON lacks.
  """
  result = {
    "scenes": models[0].evaluation.scenes,
    "models": [_facts(model) for model in models],
  }
  return report.json_text(result, config)


def _facts(model: Compared) -> dict[str, Any]:
  scores = model.evaluation.scores
  return {
    "name": model.name,
    "checkpoint": model.checkpoint,
    "model": model.kind,
    "image_shape": list(model.image_shape),
    "num_components": model.num_components,
    "num_refinements": model.num_refinements,
    "parameters": model.cost.parameters,
    "milliseconds_per_image": model.cost.milliseconds,
    "peak_memory": model.cost.memory,
    "metrics": report.statistics(scores),
    "per_step": report.per_step(scores),
    "published": dict(model.published),
  }


def markdown(
  models: Sequence[Compared], title: str, lines: Sequence[str]
) -> str:
  """The table in Markdown, with the checkpoints and `lines` below it."""
  checkpoints = [
    f"- {page.markdown(m.name)}: {page.markdown_code(m.checkpoint)}"
    for m in models
  ]
  parts = [
    page.markdown(title),
    report.markdown_table(table(models)),
    "\n".join(map(page.markdown, lines)),
    "\n".join(checkpoints),
  ]
  return "\n\n".join(parts) + "\n"
