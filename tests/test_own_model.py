"""A model of one's own, as docs/own_model.md has it, under all commands.

The model and its configuration are the page's: what it shows is what runs.
"""

import importlib
import json
import logging
import pathlib
import re
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from iodine import exploration
from iodine.config import plans
from iodine.errors import ConfigError
from iodine.main import load_checkpoint
from iodine.scene_model import SceneModel
from tests.support import tiny
from tests.support.documents import blocks
from tests.support.places import REPOSITORY
from tests.support.tiny_runs import NUM_SCENES, fail, metrics, run, start

B, K, Z, H, W = 3, 2, 5, 9, 7
STEPS = 4
MODEL = "my_models.MixtureAutoencoder"
TINY = (
  "with",
  "mixture.yaml",
  f"batch_size={B}",
  f"num_components={K}",
  f"n_z={Z}",
  f"image_dim=[{H}, {W}]",
  "model.hidden_size=6",
  "data.shuffle_buffer=5",
  "save_summaries_steps=1",
  f"stop_after_steps={STEPS}",
  "seed=3",
)


_PAGE = (REPOSITORY / "docs" / "own_model.md").read_text()
SOURCE, PROGRAM = blocks(_PAGE, "python")
(CONFIGURATION,) = blocks(_PAGE, "yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_dir) -> Iterator[pathlib.Path]:
  """The folder that commands run in, with the page's two files."""
  path = tmp_path_factory.mktemp("own")
  (path / "my_models.py").write_text(SOURCE)
  (path / "mixture.yaml").write_text(CONFIGURATION)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("IODINE_MODELS", "my_models")
    patch.syspath_prepend(path)
    patch.chdir(path)
    yield path
  sys.modules.pop("my_models", None)


@pytest.fixture(autouse=True)
def _here(folder, data_dir, monkeypatch, caplog) -> None:
  monkeypatch.setenv("IODINE_DATA_DIR", str(data_dir))
  caplog.set_level(logging.INFO)


@pytest.fixture(scope="module")
def trained(folder, data_dir) -> pathlib.Path:
  """The folder of a whole run. Not to be changed."""
  words = (*TINY, f"data_dir={data_dir}", "checkpoint_dir=checkpoints/mixture")
  run("-F", folder / "storage", *words)
  return folder / "checkpoints" / "mixture_1"


@pytest.fixture
def words(trained) -> tuple[str, ...]:
  """What commands are given that use the trained model."""
  return (*TINY, f"checkpoint_dir={trained}")


# --- Under all commands -------------------------------------------------------


def test_it_learns_what_the_log_says(folder, trained):
  losses = metrics(folder / "storage" / "1")["loss"]
  assert list(losses) == list(range(1, STEPS + 1))
  config = json.loads((trained / "config.json").read_text())
  assert config["model"] == {
    "constructor": MODEL,
    "n_z": Z,
    "num_components": K,
    "hidden_size": 6,
  }
  assert (trained / "decomposition.png").is_file()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_losses(
  folder, trained, tmp_path, capsys
):
  class SignalAtSecondStep(logging.Handler):
    def emit(self, record):
      if record.getMessage().startswith("step 2/"):
        signal.raise_signal(signal.SIGTERM)

  logger, handler = logging.getLogger("iodine.runs.loop"), SignalAtSecondStep()
  words = ("-F", tmp_path / "storage", *TINY)
  logger.addHandler(handler)
  try:
    fail(capsys, 143, *words, f"checkpoint_dir={tmp_path}/run")
  finally:
    logger.removeHandler(handler)
  assert (tmp_path / "run_1" / "model.ckpt-2.index").is_file()
  run(*words, f"checkpoint_dir={tmp_path}/run_1", "continue_run=True")

  whole = metrics(folder / "storage" / "1")
  continued = metrics(tmp_path / "storage" / "2")
  assert set(continued) == set(whole) == {"loss", "ari"}
  for name, values in continued.items():
    assert list(values) == list(range(3, STEPS + 1))
    for step, value in values.items():
      # On several threads, sums are rounded differently from run to run.
      assert value == pytest.approx(whole[name][step], rel=1e-4, abs=1e-4)


def test_it_is_evaluated(words, tmp_path, capsys):
  run("evaluate", *words, "num_scenes=5", f"evaluation_dir={tmp_path}")
  result = json.loads((tmp_path / "evaluation.json").read_text())
  assert result["scenes"] == 5
  # What takes a likelihood or a posterior is left out.
  assert set(result["metrics"]) == {*tiny.MASK_SCORES, "mse"}
  assert "ELBO" not in capsys.readouterr().out


def test_its_page_shows_what_it_can(words, tmp_path):
  run("visualize", *words, f"pictures_dir={tmp_path}")
  pictures = tmp_path / "tetrominoes" / "visualize"
  page = (pictures / "index.html").read_text()
  drawn = {path.name for path in pictures.iterdir()}
  drawn -= {"index.html", ".iodine.json"}
  shown = re.findall(r'(?:src|srcset)="([^"]+)"', page)
  assert set(shown) == drawn == set(_promised_pictures())
  assert "What MixtureAutoencoder makes of tetrominoes" in page
  assert "An encoder maps an image to a vector for each slot" in page


def _promised_pictures() -> list[str]:
  """The pictures that the page says the example gets."""
  page = (REPOSITORY / "docs" / "own_model.md").read_text()
  (sentence,) = re.findall(r"The one above gets\s(.*?)\. ", page, re.S)
  return re.findall(r"`([\w.]+)`", sentence)


def test_its_slots_make_new_scenes(words, tmp_path):
  pictures = (f"pictures_dir={tmp_path}", "scenes=[1,3,1]", "slots=[2,1,1]")
  run("compose", *words, *pictures)
  folder = tmp_path / "tetrominoes" / "compose"
  assert (folder / "composition.png").is_file()
  assert (folder / "scene.png").is_file()


def test_it_decomposes_a_picture(words, tmp_path):
  pixels = np.random.default_rng(0).integers(256, size=(11, 8, 3), dtype="u1")
  Image.fromarray(pixels).save(tmp_path / "mine.png")
  picture = (f"image={tmp_path}/mine.png", f"pictures_dir={tmp_path}")
  run("decompose", *words, *picture)
  names = {
    path.name
    for path in (tmp_path / "tetrominoes" / "decompose" / "mine").iterdir()
  }
  assert {"reconstruction.png", "slot_1.png", f"slot_{K}.png"} <= names


def test_what_it_cannot_do_is_one_line(words, tmp_path, capsys):
  given = ("range_of=posterior", f"pictures_dir={tmp_path}")
  error = fail(capsys, 2, "traverse", *words, *given)
  assert error == (
    "ConfigError: range_of=posterior: a MixtureAutoencoder has no posterior "
    "with a fixed prior; set range_of=samples\n"
  )
  assert not list(tmp_path.iterdir())


def test_a_run_is_loaded_from_its_folder(trained):
  restored = load_checkpoint(trained)
  model, info = restored["model"], restored["info"]
  assert type(model).__module__ == "my_models"
  assert info["latent"]["z"].shape == (B, 1, K, Z)
  saved = tf.train.load_variable(
    str(trained / f"model.ckpt-{STEPS}"),
    "trainer/model/_to_slots/w/.ATTRIBUTES/VARIABLE_VALUE",
  )
  (weights,) = (v for v in model.variables if v.name.endswith("to_slots/w:0"))
  np.testing.assert_array_equal(weights, saved)


def test_the_pages_program(trained):
  assert str(trained).endswith("checkpoints/mixture_1")
  names: dict = {}
  exec(PROGRAM, names)
  info = names["restored"]["info"]
  slots = names["slots"]
  # Decoded again, in batches of another size.
  np.testing.assert_allclose(
    slots.components, info["outputs"]["components"][0, -1], atol=1e-5
  )
  composed = exploration.compose(*slots)
  np.testing.assert_allclose(
    composed.masks, info["outputs"]["pred_mask"][0, -1], atol=1e-5
  )


@pytest.mark.slow
def test_a_process_finds_it_in_the_folder_where_it_runs(folder, trained):
  words = (*TINY, f"checkpoint_dir={trained}", "evaluation_dir=results")
  process = start("evaluate", *words, f"num_scenes={NUM_SCENES}", cwd=folder)
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert (folder / "results" / "evaluation.json").is_file()


def test_nothing_of_the_package_knows_it():
  names = ("my_models", "MixtureAutoencoder")
  for path in (REPOSITORY / "iodine").rglob("*.py"):
    text = path.read_text()
    assert not any(name in text for name in names), path


def _tiny_model() -> SceneModel:
  plan = {"constructor": MODEL, "n_z": Z, "num_components": K}
  return plans.build(plan, "model")


def test_its_variables_do_not_depend_on_what_is_called_first():
  names = []
  for first in ("__call__", "infer"):
    model = _tiny_model()
    getattr(model, first)({"image": tf.zeros([B, 1, H, W, 3])})
    names.append([variable.name for variable in model.variables])
  assert names[0] == names[1]
  assert all(name.startswith("model/mixture_autoencoder/") for name in names[0])


# --- The page -----------------------------------------------------------------


def test_the_page_names_what_a_model_implements():
  page = (REPOSITORY / "docs" / "own_model.md").read_text()
  section = page.split("## What to implement")[1].split("\n## ")[0]
  named = set(re.findall(r"^\| `(\w+)`", section, re.M))
  assert named == {*SceneModel.__abstractmethods__, "__init__"}


def test_the_page_names_what_only_some_models_have():
  page = (REPOSITORY / "docs" / "own_model.md").read_text()
  model = _tiny_model()
  for method in ("decode_slots", "compose", "sample"):
    assert f"| `{method}`" in page
  assert model.can("decode_slots") and model.can("compose")
  assert not model.can("sample")


def test_what_a_model_cannot_do_says_so():
  with pytest.raises(NotImplementedError, match="Autoencoder cannot sample"):
    _tiny_model().sample(3)


# --- What a configuration may name --------------------------------------------


def _fault(constructor: str, **entries) -> str:
  with pytest.raises(ConfigError) as error:
    plans.build({"constructor": constructor, **entries}, "model")
  assert "\n" not in str(error.value)
  return str(error.value)


@pytest.fixture
def module(tmp_path, monkeypatch):
  """Writes a module that IODINE_MODELS names: `module(source)` is its name."""
  monkeypatch.syspath_prepend(tmp_path)
  names: list[str] = []

  def write(source: str, file: str = "others.py") -> str:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    names.append(path.stem)
    monkeypatch.setenv("IODINE_MODELS", ", ".join(["my_models", "others"]))
    importlib.invalidate_caches()
    return path.stem

  yield write
  for name in [n for n in sys.modules if n.partition(".")[0] == "others"]:
    del sys.modules[name]


def test_without_the_variable_no_module_is_imported(monkeypatch):
  monkeypatch.delenv("IODINE_MODELS")
  monkeypatch.delitem(sys.modules, "my_models", raising=False)
  fault = _fault(MODEL)
  assert fault.startswith(f"model.constructor={MODEL!r}: not allowed. ")
  assert "a module of your own that the variable IODINE_MODELS names" in fault
  assert "my_models" not in sys.modules


@pytest.mark.parametrize("name", ["my_models_2.A", "my.A", "os.A", "my_models"])
def test_only_what_the_variable_names_is_allowed(name):
  assert "not allowed" in _fault(name)


def test_a_module_that_is_not_there(monkeypatch):
  monkeypatch.setenv("IODINE_MODELS", "nowhere")
  assert _fault("nowhere.Model") == (
    "model.constructor='nowhere.Model': there is no module nowhere. It must "
    "be in the folder where `python -m iodine.main` runs, or in one that "
    "PYTHONPATH names"
  )


def test_the_nearest_class():
  assert _fault("my_models.MixtureAutoEncoder") == (
    "model.constructor='my_models.MixtureAutoEncoder': my_models has no class "
    "'MixtureAutoEncoder'. Did you mean 'MixtureAutoencoder'? Valid classes: "
    "MixtureAutoencoder"
  )


def test_imported_and_private_classes_are_not_public(module):
  module("from collections import Counter\nclass _A: pass\nclass B: pass\n")
  for name in ("Counter", "_A"):
    assert "Valid classes: B" in _fault(f"others.{name}")
  assert type(plans.build({"constructor": "others.B"}, "x")).__name__ == "B"


def test_a_list_of_names_decides_what_is_public(module):
  module(
    "from collections import Counter\n"
    "class B: pass\n"
    "__all__ = ['Counter', 'function']\n"
    "def function(): pass\n"
  )
  assert plans.build({"constructor": "others.Counter"}, "x") == {}
  for name in ("B", "function"):
    assert _fault(f"others.{name}").endswith("Valid classes: Counter")


def test_modules_inside_a_package(module):
  module("", "others/__init__.py")
  module("class A: pass\n", "others/models.py")
  built = plans.build({"constructor": "others.models.A"}, "x")
  assert type(built).__name__ == "A"
  assert _fault("others.model.A") == (
    "model.constructor='others.model.A': there is no module others.model. Did "
    "you mean 'others.models'? Valid modules: others.models"
  )


@pytest.mark.parametrize(
  "source, reason",
  [
    ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named"),
    ("\n\n1 / 0\n", "ZeroDivisionError: division by zero ("),
    ("class A(\n", "SyntaxError: '(' was never closed (others.py, line 1)"),
  ],
)
def test_a_module_that_fails(module, source, reason):
  module(source)
  fault = _fault("others.A")
  assert f"others cannot be imported: {reason}" in fault
  line = source.count("\n")
  assert re.search(rf"others\.py, line {line}\)$", fault)


def test_a_key_that_the_constructor_does_not_have():
  keys = {"n_z": Z, "num_components": K, "hiden_size": 3}
  fault = _fault(MODEL, **keys)
  assert fault.startswith(f"model.hiden_size=3: unknown key for {MODEL}. ")
  assert "Did you mean 'hidden_size'?" in fault
  fault = _fault(MODEL, n_z=Z)
  assert fault == f"model.num_components: {MODEL} needs this key"
  fault = _fault(MODEL, n_z=Z, num_components=0)
  assert fault.startswith("model: num_components=0")


@pytest.mark.parametrize("method", sorted(SceneModel.__abstractmethods__))
def test_a_method_that_is_missing(module, method):
  source = SOURCE.replace(f"  def {method}(", "  def other(")
  assert source != SOURCE
  module(source)
  plan = {"n_z": Z, "num_components": K}
  fault = _fault("others.MixtureAutoencoder", **plan)
  assert "Can't instantiate abstract class MixtureAutoencoder" in fault
  assert method in fault


def test_variables_of_one_name_are_told_before_training(module):
  source = SOURCE.replace('name=f"conv_{i}"', 'name="conv"')
  assert source != SOURCE
  module(source)
  plan = {"constructor": "others.MixtureAutoencoder", "n_z": Z}
  model = plans.build({**plan, "num_components": K}, "model")
  with pytest.raises(
    ValueError, match="^several variables are called"
  ) as error:
    model.initialize((H, W, 3), {})
  assert "model/mixture_autoencoder/conv/w; give the modules" in str(
    error.value
  )
