"""The output of `probe`: tables, JSON, Markdown, and figures.

Dimensions: Z latent size.
"""

import math
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
from iodine.pictures import page, saving
from iodine.pictures import probes as pictures

__all__ = ["Findings", "Probed", "text", "write"]

JSON_FILE = "probe.json"
MARKDOWN_FILE = "probe.md"
PROPERTIES_FILE = "properties.png"
IMPORTANCES_FILE = "importances.png"
ACTIVENESS_FILE = "activeness.png"

_AS_PUBLISHED = "as published"
_UNSHIFTED = "unshifted"  # set of objects
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
    scores: {objects: {property: score}}: of "all" test objects; of "modified"
      and "unmodified" ones, if a shift modifies objects; and of all objects of
      "unshifted" scenes, if the probe was trained on such and tested on others.
      NaN where nothing can be scored.
    steps: of its training.
    validation_loss: after the last of these.
  """

  probe: str
  match_by: str
  scores: dict[str, dict[str, float]]
  steps: int
  validation_loss: float


class Findings(NamedTuple):
  """Everything that `probe` finds out.

  Attributes:
    shift: of the test scenes; None: none.
    trained_on_shifted: whether the scenes that trained the probes are shifted.
    scenes: {"train", "validation", "test": number of scenes}; also "unshifted",
      those that are scored beside the shifted ones.
    objects: visible objects in the test scenes.
    modified: how many of these the shift has modified; None: it never does.
    kinds: {property: "R^2" or "accuracy"}.
    probed: all probes.
    dci: None: not measured.
    dci_as_published: whether `dci` is as in EfficientMORL's published code.
    activeness: [Z], mean over scenes; None: the model has no latents.
  """

  shift: str | None
  trained_on_shifted: bool
  scenes: Mapping[str, int]
  objects: int
  modified: int | None
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
    saving.replace(
      figures.get(name), folder, name, config.get("pictures_format", "png")
    )
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
    title = _properties_title(findings, match_by)
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


def _properties_title(findings: Findings, match_by: str) -> str:
  objects, scenes = f"{findings.objects:,} objects", findings.scenes
  if findings.modified is not None:
    objects += f" ({findings.modified:,} modified)"
  tested, trained = f"{scenes['test']:,} scenes", f"{scenes['train']:,} scenes"
  if findings.shift is not None:
    tested += f" with shift {findings.shift}"
    kind = "shifted" if findings.trained_on_shifted else "unshifted"
    trained = f"{scenes['train']:,} {kind} scenes"
  return (
    f"Properties of {objects} in {tested}, {_MATCHED_BY[match_by]}; probes "
    f"trained on {trained}"
  )


def _property_rows(findings: Findings, probed: Sequence[Probed]) -> _Rows:
  """A row for each property and set of objects; one set needs no name."""
  has_sets = len(probed[0].scores) > 1
  rows: _Rows = [
    (
      *("property", "score", *(["objects"] if has_sets else [])),
      *(one.probe for one in probed),
    )
  ]
  for name, kind in findings.kinds.items():
    for objects in probed[0].scores:
      values = (one.scores[objects][name] for one in probed)
      rows.append(
        (
          *(name, kind, *([objects] if has_sets else [])),
          *("-" if math.isnan(x) else f"{x:.3f}" for x in values),
        )
      )
  return rows


def _dci_title(findings: Findings) -> str:
  published = f"EfficientMORL's DCI ({_AS_PUBLISHED})"
  return published if findings.dci_as_published else "DCI"


def _dci_rows(dci: Disentanglement) -> _Rows:
  names = ("disentanglement", "completeness", "informativeness")
  return [("score", "value"), *((x, number(getattr(dci, x))) for x in names)]


def _record(findings: Findings) -> dict[str, Any]:
  """The findings as plain data."""
  result: dict[str, Any] = {
    "shift": findings.shift,
    "trained_on_shifted": findings.trained_on_shifted,
    "scenes": findings.scenes["test"],
    "train_scenes": findings.scenes["train"],
    "validation_scenes": findings.scenes["validation"],
    "objects": findings.objects,
    "modified_objects": findings.modified,
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
    f"probe/{one.match_by}/{one.probe}/{name}"
    + ("" if objects == "all" else f"/{objects}"): value
    for one in findings.probed
    for objects, scores in one.scores.items()
    for name, value in scores.items()
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
  panels, baseline = _panels(findings)
  figures = {
    PROPERTIES_FILE: pictures.properties_plot(panels, labels, baseline)
  }
  if findings.dci is not None:
    figures[IMPORTANCES_FILE] = pictures.importances_plot(
      findings.dci.importances, findings.dci.factors
    )
  if findings.activeness is not None:
    figures[ACTIVENESS_FILE] = pictures.activeness_plot(findings.activeness)
  return figures


def _panels(
  findings: Findings,
) -> tuple[dict[str, dict[str, list[float]]], str]:
  """What is drawn together, as of `properties_plot`, and which is grey.

  Side by side are the probes; or a probe's scores on sets of objects, where
  there are several of these.
  """
  if len(findings.probed[0].scores) > 1:
    return {
      f"{one.probe}, {_MATCHED_BY[one.match_by]}": {
        objects: list(scores.values()) for objects, scores in one.scores.items()
      }
      for one in findings.probed
    }, _UNSHIFTED
  return {
    _MATCHED_BY[match_by].capitalize(): {
      one.probe: list(one.scores["all"].values()) for one in probed
    }
    for match_by, probed in _by_matching(findings).items()
  }, probes.BASELINE
