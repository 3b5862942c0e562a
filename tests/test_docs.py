"""The documents: what they name exists, their numbers are the models'."""

import functools
import importlib
import inspect
import math
import pathlib
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from iodine.config import entries as config_entries
from iodine.config import reading, resolution
from iodine.data import datasets
from iodine.modules import distributions, refinement
from tests.support import tiny
from tests.support.documents import DOCUMENTS, FENCE, blocks
from tests.support.places import REPOSITORY

_MODEL = REPOSITORY / "docs" / "model.md"
_PACKAGES = ("iodine", "benchmarks", "tests")
_CONFIGURATIONS = ("tetrominoes", "multi_dsprites", "clevr6")

_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)[^)]*\)")
_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(.*\))?")
# What a link's text says to be in the linked file, unless it is that file.
_DEFINITION = re.compile(r"`(?!.*\.py`)(\w+(?:\.\w+)*)(?:\(.*\))?`")
_COMMAND = re.compile(rf"python -m ((?:{'|'.join(_PACKAGES)})[\w.]*\w)")
# Where a shell takes brackets for a pattern, or words after "#" for arguments,
# as zsh does by default.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_UNQUOTED = re.compile(r"\[|(?<=\S)[ \t]+#")
_PATH = re.compile(r"[\w.*/-]+")
_SUFFIXES = (".ipynb", ".md", ".py", ".sh", ".toml", ".yaml")
_DATA_FILES = ("csv", "gif", "h5", "html", "json", "npz", "png", "txt")
# `data.path` is an entry of a configuration and `metrics.ari` one of a result,
# though there are modules of these names.
_ENTRIES = (*config_entries.PLANS, "info", "metrics")


def _prose(text: str) -> str:
  return FENCE.sub("", text)


# What documents name.


@functools.cache
def _sources() -> list[pathlib.Path]:
  files = [p for name in _PACKAGES for p in (REPOSITORY / name).rglob("*.py")]
  return sorted(p for p in files if "__pycache__" not in p.parts)


@functools.cache
def _modules_by_class() -> dict[str, list[pathlib.Path]]:
  modules: dict[str, list[pathlib.Path]] = {}
  for path in _sources():
    for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE):
      modules.setdefault(name, []).append(path)
  return modules


def _import(path: pathlib.Path) -> ModuleType:
  parts = path.relative_to(REPOSITORY).with_suffix("").parts
  return importlib.import_module(".".join(parts).removesuffix(".__init__"))


def _has(owner: Any, names: list[str]) -> bool:
  """Whether owner.a.b is there; of a class, also what its objects hold."""
  for name in names:
    if not hasattr(owner, name):
      return inspect.isclass(owner) and _sets(owner, name)
    owner = getattr(owner, name)
  return True


def _sets(owner: type, attribute: str) -> bool:
  """Whether a class of this project sets an attribute of its objects."""
  module = inspect.getmodule(owner)
  path = pathlib.Path(getattr(module, "__file__", None) or "")
  if path not in _sources():
    return False
  pattern = rf"^class {owner.__name__}\b.*?(?=^[\w@]|\Z)"
  body = re.search(pattern, path.read_text(), re.MULTILINE | re.DOTALL)
  return bool(body and re.search(rf"\bself\.{attribute}\b", body[0]))


def _module_has(path: pathlib.Path, names: list[str]) -> bool:
  """As `_has`; `dataset.image_batch` may be of a class in dataset.py."""
  module = _import(path)
  classes = [
    value
    for value in vars(module).values()
    if inspect.isclass(value) and value.__module__ == module.__name__
  ]
  return any(_has(owner, names) for owner in (module, *classes))


def _is_module(name: str) -> bool:
  path = REPOSITORY.joinpath(*name.split("."))
  return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _is_missing(name: str) -> bool:
  """Whether a dotted name is of this project and not there."""
  first, *rest = name.split(".")
  if first in _PACKAGES:
    # As much as is a module is imported, and has the rest.
    for i in range(len(rest), -1, -1):
      module = ".".join([first, *rest[:i]])
      if _is_module(module):
        return not _has(importlib.import_module(module), rest[i:])
  if rest[-1] in _DATA_FILES or first in _ENTRIES:
    return False
  paths = _modules_by_class().get(first, [])
  if paths:
    return not any(_has(_import(p), [first, *rest]) for p in paths)
  paths = [p for p in _sources() if p.stem == first]
  return bool(paths) and not any(_module_has(p, rest) for p in paths)


def _is_missing_file(name: str, folder: pathlib.Path) -> bool:
  """Whether what looks like a file of this project is none."""
  is_source = name.endswith(_SUFFIXES) and _PATH.fullmatch(name)
  if not is_source or name.startswith(("/", "*", ".")):
    return False
  if "/" not in name:  # `panels.py` may lie anywhere, `mine.yaml` be yours.
    return name.endswith(".py") and not any(p.name == name for p in _sources())
  return not any(list(root.glob(name)) for root in (REPOSITORY, folder))


def _missing_names(text: str, folder: pathlib.Path) -> list[str]:
  prose = _prose(text)
  missing = []
  for code in _CODE.findall(prose):
    name = _NAME.fullmatch(code)
    if code.endswith(_SUFFIXES):
      if _is_missing_file(code, folder):
        missing.append(code)
    elif name and _is_missing(name[1]):
      missing.append(code)
  for language, block in FENCE.findall(text):
    if language == "text":  # Pseudo-code names methods, and much else.
      names = (m[1] for m in _NAME.finditer(block))
      classes = _modules_by_class()
      missing += [
        n for n in names if n.split(".")[0] in classes and _is_missing(n)
      ]
  return missing + [m for m in _COMMAND.findall(text) if not _is_module(m)]


def _anchors(text: str) -> set[str]:
  """The anchors of a document's headings, as GitHub makes them."""
  headings = re.findall(r"^#+ +(.*)$", _prose(text), re.MULTILINE)
  return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def _broken_links(document: pathlib.Path, text: str) -> list[str]:
  broken = []
  for label, target in _LINK.findall(_prose(text)):
    if re.match(r"[a-z]+:", target):
      continue
    file, _, anchor = target.partition("#")
    path = document.parent / file if file else document
    if not path.exists():
      broken.append(target)
    elif anchor and path.suffix == ".md":
      linked = text if path == document else path.read_text()
      if anchor not in _anchors(linked):
        broken.append(target)
    elif path.suffix == ".py" and (name := _DEFINITION.fullmatch(label)):
      if not _has(_import(path.resolve()), name[1].split(".")):
        broken.append(f"{label} in {target}")
  return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_names_exist(document):
  assert _missing_names(document.read_text(), document.parent) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_resolve(document):
  assert _broken_links(document, document.read_text()) == []


@pytest.mark.parametrize(
  "text",
  [
    "`IODINE.decod`",
    "`iodine.modules.iodine.IODIN`",
    "`utils.bild(plan)`",
    "`networks.py` and `network.py`",
    "`iodine/modules/network.py`",
    "`configs/clever6.yaml`",
    "```text\nx = 1    IODINE.decod\n```",
    "```bash\npython -m iodine.mane with demo\n```",
  ],
)
def test_finds_a_name_that_is_not_there(text):
  assert len(_missing_names(text, _MODEL.parent)) == 1


@pytest.mark.parametrize(
  "text",
  [
    "`IODINE.decode`, `IODINE.num_iters`, `IODINE.trainable_variables`",
    "`utils.build(plan)`, `dataset.image_batch(images)`, `Trainer.seed`",
    "`tf.data.Dataset`, `data.path`, `config.json`, `model.stop_gradients`",
    "`metrics.ari`, `mine.yaml`, `data/mine.tfrecords`, `docs/*.md`",
    "`per_step.<name>`, `a.b.c`, `0.5`, `e.g.`",
    "```python\nIODINE.mine = 1\n```",
  ],
)
def test_gives_no_false_alarm(text):
  assert _missing_names(text, _MODEL.parent) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_commands_are_for_any_shell(document):
  assert not list(_special(document.read_text(encoding="utf-8")))


def _special(text: str) -> Iterator[str]:
  """Lines of shell commands that zsh reads in another way than bash."""
  for code in blocks(text, "bash"):
    for line in _QUOTED.sub("''", code).splitlines():
      if _UNQUOTED.search(line):
        yield line


@pytest.mark.parametrize("line", ["a with b=[1,2]", "make a  # and b"])
def test_finds_what_another_shell_would_not_run(line):
  assert list(_special(f"```bash\n{line}\n```\n")) == [line]
  quoted = f"# and b\n'{line}'"
  assert not list(_special(f"```bash\n{quoted}\n```\n"))


@pytest.mark.parametrize(
  "text, broken",
  [
    ("[a](model.md), [b](../README.md), [c](https://a.b/c.md)", 0),
    ("[a](modle.md)", 1),
    ("# On one's own: K\n\n[a](#on-ones-own-k)", 0),
    ("# On one's own: K\n\n[a](#on-its-own)", 1),
    ("[`IODINE.decode`](../iodine/modules/iodine.py)", 0),
    ("[`iodine.py`](../iodine/modules/iodine.py)", 0),
    ("[`IODINE.decode`](../iodine/modules/networks.py)", 1),
    ("[`decode`](../iodine/modules/iodine.py)", 1),
  ],
)
def test_finds_broken_links(text, broken):
  assert len(_broken_links(_MODEL, text)) == broken


# The numbers of docs/model.md.


def _table(first_header: str) -> Iterator[list[str]]:
  """Rows of the table of docs/model.md whose header starts so."""
  lines = iter(_MODEL.read_text().splitlines())
  for line in lines:
    if line.startswith(f"| {first_header} |"):
      next(lines)
      break
  for line in lines:
    if not line.startswith("|"):
      return
    yield [cell.strip() for cell in line.strip("|").split("|")]


def _column(first_header: str, configuration: str) -> dict[str, str]:
  """{label: cell}: a label is what the row's first cell has as code, or it."""
  column = 1 + _CONFIGURATIONS.index(configuration)
  cells = {}
  for row in _table(first_header):
    code = _CODE.search(row[0])
    cells[code[1] if code else row[0]] = row[column]
  return cells


@functools.cache
def _entries(configuration: str) -> dict[str, Any]:
  return resolution.resolve(reading.named_configs()[configuration])


@functools.cache
def _shapes(configuration: str) -> dict[str, tuple[int, ...]]:
  """Shapes of a configuration's trainable variables, by their names."""
  # No shape depends on the number of slots or steps, or the image's size: the
  # fewest and smallest are quickest.
  entries = {**reading.named_configs()[configuration], "num_iters": 1}
  (model,) = resolution.build(
    resolution.resolve({**entries, "num_components": 2}), ("model",)
  )
  factors = {
    factor.name: factor.size if factor.type == "scalar" else 1
    for factor in model.factor_evaluator.mapping
  }
  model.initialize((8, 8, 3), factors)
  return {
    v.name.partition(":")[0]: tuple(v.shape) for v in model.trainable_variables
  }


@pytest.mark.parametrize("configuration", _CONFIGURATIONS)
def test_numbers_of_parameters(configuration):
  sizes = {k: math.prod(v) for k, v in _shapes(configuration).items()}
  cells = _column("part", configuration)
  documented = {k: int(v.replace(",", "")) for k, v in cells.items()}
  total = documented.pop("total")

  assert total == sum(sizes.values()) == sum(documented.values())
  assert documented == {
    part: sum(size for name, size in sizes.items() if name.startswith(part))
    for part in documented
  }


@pytest.mark.parametrize("configuration", _CONFIGURATIONS)
def test_shapes_of_weights(configuration):
  weights = {
    name.rpartition("/")[0]: "x".join(map(str, shape))
    for name, shape in _shapes(configuration).items()
    if len(shape) > 1
  }
  cells = _column("layer", configuration)
  layers = {k: v for k, v in cells.items() if "/" in k and v != "-"}

  assert layers == weights


@pytest.mark.parametrize("configuration", _CONFIGURATIONS)
def test_sizes_of_images(configuration):
  entries = _entries(configuration)
  name = entries["data"]["constructor"].rpartition(".")[2]
  parameters = inspect.signature(getattr(datasets, name)).parameters
  height, width = parameters["image_dim"].default
  encoder = entries["model"]["refinement_core"]["encoder_net"]["cnn_opt"]
  (stride,), sizes = encoder["strides"], [height]
  for _ in encoder["output_channels"]:
    sizes.append(-(-sizes[-1] // stride))
  cells = _column("layer", configuration)

  slots = f"{height}x{width}, {entries['num_components']}, {entries['n_z']}"
  assert cells["image, slots K, latent Z"] == slots
  assert cells["sizes after each, stride 2"] == ", ".join(map(str, sizes[1:]))


def _mixture() -> distributions.MaskedMixture:
  return tiny.build().output_dist


def test_what_the_layer_norm_leaves_of_a_small_gradient():
  inputs = refinement.RefinementInputs(_mixture(), inputs=["dmask"])
  shape = (1, 1, 4, 4, 1)
  params = distributions.MixtureParameters(tf.zeros(shape), tf.zeros(shape))
  log_probs = distributions.MixtureLogProbs(tf.zeros(shape[:-1]), None)
  signs = np.resize([1.0, -1.0], shape).astype(np.float32)
  rows = list(_table(r"$\sigma$"))

  assert len(rows) == 3
  for row in rows:
    for batch_size, documented in zip((4, 32, 128), row[1:], strict=True):
      gradient = tf.constant(signs * float(row[0]) / batch_size)
      left = inputs(None, None, params, None, log_probs, {"dmask": gradient})
      deviation = np.std(left["spatial"]["dmask"].numpy())
      assert deviation == pytest.approx(float(documented), abs=5e-4 + 1e-6)


def test_closed_forms_of_the_refinement_inputs():
  # The layer norm would hide them.
  names = ["mask", "components", "dmask", "dcomponents", "counterfactual"]
  model = tiny.initialized(inputs=names, preprocess=[], num_iters=1)
  image = tiny.batch()["image"]
  (inputs,) = model.encode(image, tiny.noise(num_iters=1))["inputs"]
  value = {k: np.float64(v) for k, v in inputs["spatial"].items()}

  scale = 0.1  # Of the tiny model's logistic pixels.
  u = (image.numpy() - value["components"]) / scale
  densities = -u - np.log(scale) - 2.0 * np.logaddexp(0.0, -u)
  likelihood = np.exp(densities.sum(axis=-1, keepdims=True))
  mask = np.exp(value["mask"])
  mask /= mask.sum(axis=1, keepdims=True)
  r = mask * likelihood / (mask * likelihood).sum(axis=1, keepdims=True)

  def check(name: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(value[name], expected, rtol=1e-3, atol=1e-5)

  check("dmask", (mask - r) / tiny.B)
  check("dcomponents", -r / scale * np.tanh(u / 2.0) / tiny.B)
  # 1 - m and 1 - r are sums over the other slots, where they keep their digits.
  others = 1.0 - np.eye(tiny.K)
  log_rest = [
    np.log(np.einsum("kj,bjhwc->bkhwc", others, v)) for v in (mask, r)
  ]
  check("counterfactual", log_rest[0] - log_rest[1])


def test_prior():
  prior = tiny.build().prior
  np.testing.assert_allclose(prior.variance(), math.log(2.0), rtol=1e-6)
  np.testing.assert_allclose(prior.stddev(), 0.833, atol=5e-4)
