"""The output of `probe`: tables, JSON, Markdown, and figures.

Dimensions: Z latent size.
"""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import figure as mpl_figure

from iodine.evaluation import probes
from iodine.evaluation.dci import Disentanglement
from iodine.evaluation.report import (
  aligned,
  json_text,
  markdown_table,
  number,
  statistics,
)
from iodine.evaluation.scores import Score
from iodine.files import write_whole
from iodine.pictures import page
from iodine.pictures import probes as pictures

__all__ = ["Findings", "Probed", "text", "write"]

JSON_FILE = "probe.json"
MARKDOWN_FILE = "probe.md"
PROPERTIES_FILE = "properties.png"
IMPORTANCES_FILE = "importances.png"
ACTIVENESS_FILE = "activeness.png"

_AS_PUBLISHED = "as published"
_MATCHED_BY = {
  "loss": "matched by the loss",
  "mask": "matched by masks",
  "order": "matched in order",
}


class Probed(NamedTuple):
  """What came of one probe.

  Attributes:
    probe: its name.
    match_by: how objects were matched to slots.
    scores: {property: score}.
    steps: of its training.
    validation_loss: after the last of these.
  """

  probe: str
  match_by: str
  scores: dict[str, float]
  steps: int
  validation_loss: float


class Findings(NamedTuple):
  """Everything that `probe` finds out.

  Attributes:
    scenes: {"train", "validation", "test": number of scenes}.
    objects: visible objects in the test scenes.
    kinds: {property: "R^2" or "accuracy"}.
    probed: all probes.
    dci: None: not measured.
    dci_as_published: whether `dci` is as in EfficientMORL's published code.
    activeness: [Z], mean over scenes; None: the model has no latents.
  """

  scenes: Mapping[str, int]
  objects: int
  kinds: Mapping[str, str]
  probed: Sequence[Probed]
  dci: Disentanglement | None
  dci_as_published: bool
  activeness: np.ndarray | None


_Rows = list[tuple[str, ...]]


def text(findings: Findings) -> str:
  """The tables for a terminal, each below its title."""
  parts = [f"{title}\n\n{aligned(rows)}" for title, rows in _tables(findings)]
  return "\n\n".join(parts)


def write(
  folder: pathlib.Path,
  findings: Findings,
  config: Mapping[str, Any],
  checkpoint: str,
) -> None:
  """Writes probe.json, probe.md and the figures, each atomically.

  Args:
    folder: existing folder. A figure of an earlier run is removed if there is
      none of its kind now.
    findings: what to write.
    config: the whole configuration.
    checkpoint: prefix of the checkpoint.

  Raises:
    RunError: if a file cannot be written.
  """
  figures = _figures(findings)
  for name in (PROPERTIES_FILE, IMPORTANCES_FILE, ACTIVENESS_FILE):
    if name in figures:
      picture = io.BytesIO()
      figures[name].savefig(picture, format="png", dpi=150)
      write_whole(folder / name, picture.getvalue())
    else:
      (folder / name).unlink(missing_ok=True)
  parts = [f"Checkpoint {page.markdown_code(checkpoint)}"]
  for title, rows in _tables(findings):
    parts += [page.markdown(title), markdown_table(rows)]
  write_whole(folder / MARKDOWN_FILE, "\n\n".join(parts) + "\n")
  record = {**_record(findings), "checkpoint": checkpoint}
  write_whole(folder / JSON_FILE, json_text(record, config))


def _tables(findings: Findings) -> list[tuple[str, _Rows]]:
  """Titles and rows, with a header each."""
  tables = []
  for match_by, probed in _by_matching(findings).items():
    title = (
      f"Properties of {findings.objects:,} objects in "
      f"{findings.scenes['test']:,} scenes, {_MATCHED_BY[match_by]}; probes "
      f"trained on {findings.scenes['train']:,} scenes"
    )
    tables.append((title, _property_rows(findings, probed)))
  if findings.dci is not None:
    title = f"{_dci_title(findings)}, {findings.dci.num_objects:,} objects"
    tables.append((title, _dci_rows(findings.dci)))
  if findings.activeness is not None:
    order = np.argsort(-findings.activeness, kind="stable")
    rows = [(str(z), number(findings.activeness[z])) for z in order]
    tables.append(("Activeness of latents", [("latent", "activeness"), *rows]))
  return tables


def _by_matching(findings: Findings) -> dict[str, list[Probed]]:
  found: dict[str, list[Probed]] = {}
  for probed in findings.probed:
    found.setdefault(probed.match_by, []).append(probed)
  return found


def _property_rows(findings: Findings, probed: Sequence[Probed]) -> _Rows:
  header = ("property", "score", *(one.probe for one in probed))
  rows = [
    (name, kind, *(f"{one.scores[name]:.3f}" for one in probed))
    for name, kind in findings.kinds.items()
  ]
  return [header, *rows]


def _dci_title(findings: Findings) -> str:
  published = f"EfficientMORL's DCI ({_AS_PUBLISHED})"
  return published if findings.dci_as_published else "DCI"


def _dci_rows(dci: Disentanglement) -> _Rows:
  names = ("disentanglement", "completeness", "informativeness")
  return [("score", "value"), *((x, number(getattr(dci, x))) for x in names)]


def _record(findings: Findings) -> dict[str, Any]:
  """The findings as plain data."""
  result: dict[str, Any] = {
    "scenes": findings.scenes["test"],
    "train_scenes": findings.scenes["train"],
    "validation_scenes": findings.scenes["validation"],
    "objects": findings.objects,
    "metrics": statistics(_scores(findings)),
    "kinds": dict(findings.kinds),
    "training": {
      f"{one.match_by}/{one.probe}": {
        "steps": one.steps,
        "validation_loss": one.validation_loss,
      }
      for one in findings.probed
    },
  }
  if findings.dci is not None:
    result["dci"] = {
      "protocol": _AS_PUBLISHED if findings.dci_as_published else "own",
      "objects": findings.dci.num_objects,
      "factors": list(findings.dci.factors),
      "importances": findings.dci.importances.tolist(),
    }
  if findings.activeness is not None:
    result["activeness"] = findings.activeness.tolist()
  return result


def _scores(findings: Findings) -> dict[str, Score]:
  """All that is one number by a name."""
  values = {
    f"probe/{one.match_by}/{one.probe}/{name}": value
    for one in findings.probed
    for name, value in one.scores.items()
  }
  if (dci := findings.dci) is not None:
    values["dci/disentanglement"] = dci.disentanglement
    values["dci/completeness"] = dci.completeness
    values["dci/informativeness"] = dci.informativeness
  return {
    name: Score(value, None, None, 0, (value,))
    for name, value in values.items()
  }


def _figures(findings: Findings) -> dict[str, mpl_figure.Figure]:
  """{file: figure} of what there is to draw."""
  labels = [f"{name}\n({kind})" for name, kind in findings.kinds.items()]
  panels = {
    _MATCHED_BY[match_by].capitalize(): {
      one.probe: list(one.scores.values()) for one in probed
    }
    for match_by, probed in _by_matching(findings).items()
  }
  figures = {
    PROPERTIES_FILE: pictures.properties_plot(panels, labels, probes.BASELINE)
  }
  if findings.dci is not None:
    figures[IMPORTANCES_FILE] = pictures.importances_plot(
      findings.dci.importances, findings.dci.factors
    )
  if findings.activeness is not None:
    figures[ACTIVENESS_FILE] = pictures.activeness_plot(findings.activeness)
  return figures
