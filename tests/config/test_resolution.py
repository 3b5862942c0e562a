"""Configurations: what they hold, how they are merged, how they are checked.

Configurations are resolved as the command line does it, and only printed.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import pytest
import sacred.arg_parser
import yaml

from iodine import main as command_line
from iodine import training
from iodine.commands.train import prepare
from iodine.config import reading
from iodine.config import resolution as configuration
from iodine.data import datasets
from iodine.errors import ConfigError
from iodine.modules import iodine
from tests.support.places import PARITY, SHARED

NAMES = ("clevr6", "demo", "multi_dsprites", "tetrominoes")
PARITY_CONFIGS = sorted(
  {
    path.parent.name: path
    for folder in (SHARED / "parity", PARITY)
    for path in folder.glob("*/config.json")
    if (path.parent / "tf1_initial").is_dir()
  }.values()
)

# The hyper-parameters of the paper, as in the reference's configurations.py.
_COMMON = {
  "base_learn_rate": 0.0003,
  "continue_run": False,
  "num_iters": 5,
  "save_checkpoint_steps": 1000,
  "save_summaries_steps": 10,
  "stop_after_steps": 1_000_000,
  "model.constructor": "iodine.modules.iodine.IODINE",
  "model.coord_freqs": 3,
  "model.coord_type": "cos",
  "model.decoder.constructor": "iodine.modules.decoder.ComponentDecoder",
  "model.decoder.pixel_decoder.constructor": (
    "iodine.modules.networks.BroadcastConv"
  ),
  "model.decoder.pixel_decoder.cnn_opt": {
    "output_channels": [32, 32, 32, 32, None],
    "kernel_shapes": [5],
    "strides": [1],
    "activation": "elu",
  },
  "model.decoder.pixel_decoder.coord_type": "linear",
  "model.iter_loss_weight": "linspace",
  "model.latent_dist": {
    "constructor": "iodine.modules.distributions.LocScaleDistribution",
    "dist": "normal",
    "scale_act": "softplus",
    "scale": "var",
    "name": "latent_dist",
  },
  "model.output_dist.component_dist": {
    "constructor": "iodine.modules.distributions.LocScaleDistribution",
    "dist": "logistic",
    "scale": "fixed",
    "scale_val": 0.03,
    "name": "pixel_distribution",
  },
  "model.output_dist.constructor": "iodine.modules.distributions.MaskedMixture",
  "model.refinement_core.constructor": (
    "iodine.modules.refinement.RefinementCore"
  ),
  "model.refinement_core.encoder_net": {
    "constructor": "iodine.modules.networks.CNN",
    "mode": "avg_pool",
    "cnn_opt": {
      "output_channels": [32, 32, 32],
      "strides": [2],
      "kernel_shapes": [5],
      "activation": "elu",
    },
    "mlp_opt": {"output_sizes": [128], "activation": "elu"},
  },
  "model.refinement_core.recurrent_net.constructor": (
    "iodine.modules.networks.LSTM"
  ),
  "model.refinement_core.refinement_head": {
    "constructor": "iodine.modules.refinement.ResHead"
  },
}
_CLEVR6 = {
  **_COMMON,
  "n_z": 64,
  "num_components": 7,
  "batch_size": 4,
  "base_batch_size": 32,
  "base_learn_rate": 0.001,
  "checkpoint_dir": "checkpoints/clevr6",
  "data": {
    "constructor": "iodine.modules.data.CLEVR",
    "path": "data/clevr_with_masks_train.tfrecords",
    "max_num_objects": 6,
  },
  "learn_rate": 0.001 * math.sqrt(4 / 32),
  "model.coord_type": "linear",
  "model.decoder.pixel_decoder.cnn_opt": {
    "output_channels": [64, 64, 64, 64, None],
    "kernel_shapes": [3],
    "strides": [1],
    "activation": "elu",
  },
  "model.factor_evaluator": {
    "constructor": "iodine.modules.factor_eval.FactorRegressor",
    "mapping": [
      ["color", 9, "categorical"],
      ["shape", 4, "categorical"],
      ["size", 3, "categorical"],
      ["position", 3, "scalar"],
    ],
  },
  "model.refinement_core.encoder_net": {
    "constructor": "iodine.modules.networks.CNN",
    "mode": "avg_pool",
    "cnn_opt": {
      "output_channels": [64, 64, 64, 64],
      "strides": [2],
      "kernel_shapes": [3],
      "activation": "elu",
    },
    "mlp_opt": {"output_sizes": [256, 256], "activation": "elu"},
  },
  "model.refinement_core.recurrent_net.hidden_sizes": [256],
}
del _CLEVR6["model.coord_freqs"]  # of cosines only
_MULTI_DSPRITES = {
  **_COMMON,
  "n_z": 16,
  "num_components": 6,
  "batch_size": 16,
  "base_batch_size": 128,
  "checkpoint_dir": "checkpoints/multi_dsprites",
  "data": {
    "constructor": "iodine.modules.data.MultiDSprites",
    "path": "data/multi_dsprites_colored_on_grayscale.tfrecords",
    "dataset_variant": "colored_on_grayscale",
  },
  "learn_rate": 0.0003 * math.sqrt(16 / 128),
  "model.factor_evaluator": {
    "constructor": "iodine.modules.factor_eval.FactorRegressor",
    "mapping": [
      ["color", 3, "scalar"],
      ["shape", 4, "categorical"],
      ["scale", 1, "scalar"],
      ["x", 1, "scalar"],
      ["y", 1, "scalar"],
      ["orientation", 2, "angle"],
    ],
  },
  "model.refinement_core.recurrent_net.hidden_sizes": [128],
}
_TETROMINOES = {
  **_COMMON,
  "n_z": 32,
  "num_components": 4,
  "batch_size": 128,
  "base_batch_size": 256,
  "checkpoint_dir": "checkpoints/tetrominoes",
  "data": {
    "constructor": "iodine.modules.data.Tetrominoes",
    "path": "data/tetrominoes_train.tfrecords",
  },
  "learn_rate": 0.0003 * math.sqrt(128 / 256),
  "model.factor_evaluator": {
    "constructor": "iodine.modules.factor_eval.FactorRegressor",
    "mapping": [
      ["position", 2, "scalar"],
      ["color", 3, "scalar"],
      ["shape", 20, "categorical"],
    ],
  },
  "model.refinement_core.recurrent_net.hidden_sizes": [],
}
PAPER = {
  "clevr6": _CLEVR6,
  "multi_dsprites": _MULTI_DSPRITES,
  "tetrominoes": _TETROMINOES,
}


def resolve(*words: Any) -> Mapping[str, Any]:
  """Returns the configuration of `print_config with <words>`."""
  typed = [*map(str, words)]
  updates, names = sacred.arg_parser.get_config_updates(typed)
  run = command_line.ex.run(
    "print_config", updates, names, options={"UPDATE": typed}
  )
  return run.config


def at(config: Mapping[str, Any], path: str) -> Any:
  """Returns the entry of a dotted path."""
  value: Any = config
  for key in path.split("."):
    value = value[key]
  return value


def fail(capsys: pytest.CaptureFixture, *words: Any) -> str:
  """Runs a command that must be refused before any work; returns the error."""
  with pytest.raises(SystemExit) as stop:
    command_line.main(["iodine", *map(str, words)])
  output = capsys.readouterr()
  assert stop.value.code == 2
  assert "Traceback" not in output.out + output.err
  assert not output.out
  return output.err


def write(path: pathlib.Path, text: str) -> pathlib.Path:
  path.write_text(text, encoding="utf-8")
  return path


# --- What the configurations hold ---------------------------------------------


def test_all_named_configurations_are_there():
  assert set(NAMES) <= set(reading.named_configs())


@pytest.mark.parametrize("name", NAMES)
def test_a_named_configuration_is_printed_and_builds(name, capsys):
  command_line.main(["iodine", "print_config", "with", name])
  assert "model:" in capsys.readouterr().out
  config = resolve(name)
  dataset, model, optimizer = configuration.build(config)
  assert isinstance(dataset, datasets.IODINEDataset)
  assert isinstance(model, iodine.IODINE)
  assert isinstance(optimizer, training.Adam)
  assert dataset.batch_size == config["batch_size"]
  for key in ("n_z", "num_components", "num_iters"):
    assert getattr(model, key) == config[key]
  rate = pytest.approx(config["learn_rate"], rel=1e-6)
  assert float(optimizer.learn_rate()) == rate


@pytest.mark.parametrize("name", PAPER)
def test_the_hyper_parameters_are_the_papers(name):
  config = resolve(name)
  for path, value in PAPER[name].items():
    if isinstance(value, float):
      assert at(config, path) == pytest.approx(value, rel=1e-12), path
    else:
      assert at(config, path) == value, path


@pytest.mark.parametrize("name", PAPER)
def test_the_optimizer_is_the_papers(name):
  config = resolve(name)
  (optimizer,) = configuration.build(config, ("optimizer",))
  optimizer.initialize([])
  rate = PAPER[name]["learn_rate"]
  assert float(optimizer.learn_rate()) == pytest.approx(rate, rel=1e-6)
  # Times 0.1 per 1e6 steps, continuously.
  optimizer.step.assign(500_000)
  assert float(optimizer.learn_rate()) == pytest.approx(
    rate * 0.1**0.5, rel=1e-5
  )
  assert float(optimizer.beta1_power) == pytest.approx(0.95)
  assert float(optimizer.beta2_power) == pytest.approx(0.999)


def test_entries_without_a_configuration_have_the_references_defaults():
  config = resolve()
  expected = dict(
    continue_run=False,
    checkpoint_dir="checkpoints/iodine",
    save_summaries_steps=10,
    save_checkpoint_steps=1000,
    n_z=64,
    num_components=7,
    num_iters=5,
    batch_size=4,
    stop_after_steps=1_000_000,
  )
  assert {key: config[key] for key in expected} == expected


def test_every_entry_has_a_line_of_help(capsys):
  command_line.main(["iodine", "print_config"])
  lines = capsys.readouterr().out.splitlines()
  for key in ("n_z", "learn_rate", "base_learn_rate", "stop_after_steps"):
    # The first one: plans come last.
    line = next(x for x in lines if re.search(rf"\b{key} =", x))
    assert "# " in line
    assert "noqa" not in line


# --- What follows from other entries ------------------------------------------


def test_the_batch_size_reaches_data_and_learning_rate():
  config = resolve("clevr6", "batch_size=2", "data.shuffle_buffer=100")
  dataset, _, optimizer = configuration.build(config)
  assert config["batch_size"] == dataset.batch_size == 2
  assert dataset.shuffle_buffer == 100
  rate = 0.001 * math.sqrt(2 / 32)
  assert config["learn_rate"] == pytest.approx(rate, rel=1e-12)
  assert float(optimizer.learn_rate()) == pytest.approx(rate, rel=1e-6)


def test_the_number_of_components_reaches_model_and_mixture():
  config = resolve("tetrominoes", "num_components=9")
  (model,) = configuration.build(config, ("model",))
  assert model.num_components == model.output_dist.num_components == 9


@pytest.mark.parametrize("key", ["n_z", "num_iters"])
def test_sizes_reach_the_model(key):
  config = resolve("tetrominoes", f"{key}=3")
  (model,) = configuration.build(config, ("model",))
  assert getattr(model, key) == 3


def test_the_data_folder_reaches_the_path(monkeypatch):
  def path(*words):
    return resolve("tetrominoes", *words)["data"]["path"]

  assert path() == "data/tetrominoes_train.tfrecords"
  assert path("data_dir=/a") == "/a/tetrominoes_train.tfrecords"
  assert path("data_dir=/a", "data_file=b.tfrecords") == "/a/b.tfrecords"
  monkeypatch.setenv("IODINE_DATA_DIR", "/c")
  assert path() == "/c/tetrominoes_train.tfrecords"
  assert path("data_dir=/a") == "/a/tetrominoes_train.tfrecords"
  assert path("data.path=d.tfrecords") == "d.tfrecords"


@pytest.mark.parametrize(
  "word, others",
  [
    ("learn_rate=0.25", {"base_learn_rate": 0.001}),
    ("optimizer.learn_rate=0.25", {"learn_rate": 0.001 / math.sqrt(8)}),
    ("data.batch_size=3", {"batch_size": 4}),
    ("model.n_z=5", {"n_z": 64}),
    ("model.num_iters=2", {"num_iters": 5}),
    ("data.path=a.tfrecords", {"data_dir": "data"}),
    ("optimizer.beta1=0.5", {"learn_rate": 0.001 / math.sqrt(8)}),
  ],
)
def test_what_is_set_explicitly_wins(word, others):
  config = resolve("clevr6", word)
  path, _, value = word.partition("=")
  assert str(at(config, path)) == value
  for path, value in others.items():
    expected = pytest.approx(value) if isinstance(value, float) else value
    assert at(config, path) == expected


def test_a_batch_size_of_the_data_alone_is_warned_about(caplog):
  config = resolve("clevr6", "data.batch_size=3")
  assert prepare(config).dataset.batch_size == 3
  assert "the learning rate follows batch_size=4" in caplog.text


def test_a_file_may_be_like_a_named_configuration(tmp_path):
  text = """
like: clevr6
num_components: 11
paper_scores: null
data:
  max_num_objects: null
model:
  factor_evaluator: null
"""
  config = resolve(write(tmp_path / "a.yaml", text))
  expected = {**resolve("clevr6"), "num_components": 11, "paper_scores": {}}
  expected["data"] = dict(expected["data"])
  expected["model"] = dict(expected["model"])
  del expected["data"]["max_num_objects"]
  del expected["model"]["factor_evaluator"]
  assert {**config, "seed": 0} == {**expected, "seed": 0}


@pytest.mark.parametrize(
  "like, fault",
  [("clever6", "Did you mean 'clevr6'?"), ("3", "like=3: no such")],
)
def test_a_file_like_an_unknown_configuration(like, fault, tmp_path, capsys):
  path = write(tmp_path / "a.yaml", f"like: {like}")
  assert fault in fail(capsys, "print_config", "with", path)


def test_the_learning_rate_reaches_an_optimizer_of_tf1():
  config = resolve(
    "clevr6",
    "optimizer.constructor=tensorflow.train.AdamOptimizer",
    "learn_rate=0.25",
  )
  (optimizer,) = configuration.build(config, ("optimizer",))
  assert float(optimizer.learn_rate()) == 0.25


# --- Files --------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_a_file_is_a_configuration(ending, tmp_path):
  entries = {"n_z": 5, "data": {"shuffle_buffer": None}}
  text = json.dumps(entries) if ending == "json" else yaml.safe_dump(entries)
  path = write(tmp_path / f"my.{ending}", text)
  config = resolve("tetrominoes", path, "batch_size=3")
  assert config["n_z"] == 5
  assert config["data"]["shuffle_buffer"] is None
  assert config["batch_size"] == 3
  assert config["num_components"] == 4


def test_later_configurations_win_and_the_command_line_last(tmp_path):
  path = write(tmp_path / "my.yaml", "n_z: 5\nnum_iters: 2\n")
  assert resolve("tetrominoes", path)["n_z"] == 5
  assert resolve(path, "tetrominoes")["n_z"] == 32
  assert resolve("n_z=6", "tetrominoes", path)["n_z"] == 6
  both = resolve("tetrominoes", "clevr6")
  assert both["n_z"] == 64
  assert both["data"]["constructor"].endswith("CLEVR")
  assert resolve("clevr6", "tetrominoes")["n_z"] == 32


def test_configurations_stay_as_they_are_for_the_next_run():
  before = resolve("tetrominoes")
  resolve("clevr6", "tetrominoes")
  assert {**resolve("tetrominoes"), "seed": 0} == {**before, "seed": 0}


def test_a_file_is_read_anew_for_each_run(tmp_path):
  path = write(tmp_path / "my.yaml", "n_z: 5")
  assert resolve("tetrominoes", path)["n_z"] == 5
  write(path, "n_z: 6")
  assert resolve("tetrominoes", path)["n_z"] == 6


def test_a_name_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / "tetrominoes", "n_z: 5")
  assert resolve("tetrominoes")["n_z"] == 32


def test_files_do_not_become_named_configurations(tmp_path, capsys):
  resolve("tetrominoes", write(tmp_path / "my.yaml", "n_z: 5"))
  capsys.readouterr()
  command_line.main(["iodine", "print_named_configs"])
  output = capsys.readouterr().out
  assert "tetrominoes" in output
  assert "my.yaml" not in output
  assert "configuration 0" not in output


def test_a_printed_configuration_is_one_again(tmp_path):
  config = resolve("tetrominoes", "n_z=5", "learn_rate=0.5", "seed=3")
  path = write(tmp_path / "config.json", json.dumps(config))
  assert resolve(path) == config


def test_overrides_reach_what_depends_on_them_in_a_whole_file(tmp_path):
  # A run's own file holds the derived entries, too.
  whole = resolve("tetrominoes", "model.num_iters=3")
  path = write(tmp_path / "config.json", json.dumps(whole))
  words = ("batch_size=2", "n_z=5", "num_components=3", "data_dir=/a")
  config = resolve(path, *words, "num_iters=4")
  rate = pytest.approx(0.0003 * math.sqrt(2 / 256))
  assert config["data"]["path"] == "/a/tetrominoes_train.tfrecords"
  assert config["learn_rate"] == rate
  dataset, model, optimizer = configuration.build(config)
  assert dataset.batch_size == 2
  assert float(optimizer.learn_rate()) == rate
  assert (model.n_z, model.num_components) == (5, 3)
  assert model.num_iters == 3  # It differed from num_iters, so it was set.


def test_what_earlier_versions_repeated_in_plans_is_dropped(tmp_path):
  whole = resolve("tetrominoes")
  repeated = {
    **whole,
    "data": {**whole["data"], "batch_size": 128},
    "model": {
      **whole["model"],
      "n_z": 32,
      "num_components": 4,
      "num_iters": 5,
      "precision": "float32",
      "recompute": False,
      "num_background_entities": 1,
      "output_dist": {**whole["model"]["output_dist"], "num_components": 4},
    },
    "optimizer": {**whole["optimizer"], "learn_rate": whole["learn_rate"]},
    "sub_batch_size": 32,
  }
  path = write(tmp_path / "config.json", json.dumps(repeated))
  config = {**resolve(path), "seed": whole["seed"]}
  assert config == whole


@pytest.mark.skipif(not PARITY_CONFIGS, reason="needs the recorded runs")
@pytest.mark.parametrize("prefix", ["tensorflow", "tensorflow.compat.v1"])
@pytest.mark.parametrize("path", PARITY_CONFIGS, ids=lambda p: p.parent.name)
def test_the_configuration_of_a_recorded_run_builds(path, prefix, tmp_path):
  text = path.read_text().replace(
    "tensorflow.compat.v1.train", f"{prefix}.train"
  )
  entries = json.loads(text)
  config = resolve(write(tmp_path / "config.json", text))
  for key in entries.keys() - {"data", "model", "optimizer"}:
    assert config[key] == entries[key], key
  dataset, model, optimizer = configuration.build(config)
  assert type(dataset).__name__ in entries["data"]["constructor"]
  assert dataset.batch_size == entries["batch_size"]
  assert model.num_components == entries["num_components"]
  assert isinstance(optimizer, training.Adam)
  optimizer.initialize([])
  assert float(optimizer.beta1_power) == pytest.approx(0.95)
  rate = entries["learn_rate"]
  assert float(optimizer.learn_rate()) == pytest.approx(rate, rel=1e-6)
  optimizer.step.assign(1_000_000)
  assert float(optimizer.learn_rate()) == pytest.approx(0.1 * rate, rel=1e-5)


@pytest.mark.skipif(not PARITY_CONFIGS, reason="needs the recorded runs")
def test_overrides_reach_the_configuration_of_a_recorded_run():
  config = resolve(
    PARITY_CONFIGS[0],
    "n_z=9",
    "num_components=5",
    "batch_size=3",
    "learn_rate=0.25",
  )
  dataset, model, optimizer = configuration.build(config)
  assert (model.n_z, model.num_components) == (9, 5)
  assert dataset.batch_size == 3
  assert float(optimizer.learn_rate()) == 0.25


@pytest.mark.parametrize(
  "name, text, fault",
  [
    ("a.json", '{"n_z": ', "cannot be parsed"),
    ("a.yaml", "n_z: [", "cannot be parsed"),
    ("a.yaml", "[1, 2]", "must hold a mapping of entries"),
    ("a.json", "3", "must hold a mapping of entries"),
    ("a.yaml", "", "must hold a mapping of entries"),
    ("a.txt", "n_z: 3", "ends in .yaml or .json"),
    ("a.yaml", "model: 3", "model=3: must be a mapping of entries"),
    ("a.yaml", "data:", "data=None: must be a mapping of entries"),
    ("a.yaml", "1: 2", "1: no valid key"),
    ("a.yaml", "data.batch_size: 2", "'data.batch_size': no valid key"),
    ("a.json", '{"model": {"a b": 2}}', "'a b': no valid key"),
    ("a.yaml", "n_zz: 2", "n_zz=2: unknown key. Did you mean 'n_z'?"),
  ],
)
def test_a_faulty_file_is_an_error(name, text, fault, tmp_path, capsys):
  path = write(tmp_path / name, text)
  error = fail(capsys, "print_config", "with", "tetrominoes", path)
  assert error.startswith("ConfigError: ")
  assert fault in error
  if "unknown key" not in fault:
    assert str(path) in error


@pytest.mark.parametrize(
  "value, fault",
  [
    ("2", "is of format 2, and this version of IODINE reads up to 1."),
    ("0", "format=0: expected an integer of at least 1"),
    ('"x"', "format='x': is text; expected an integer"),
  ],
)
def test_a_file_of_a_later_format_is_an_error(value, fault, tmp_path, capsys):
  path = write(tmp_path / "config.json", f'{{"format": {value}, "new": 3}}')
  assert f"{path}: {fault}" in fail(capsys, "with", path)
  path = write(tmp_path / "config.json", '{"format": 1, "n_z": 3}')
  assert reading.load_file(path) == {"n_z": 3}


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, capsys):
  path = tmp_path / "a.yaml"
  path.write_bytes(b"\xff\xfe\x00")
  assert f"{path}: cannot be read" in fail(capsys, "with", path)
  (tmp_path / "b.yaml").mkdir()
  assert "b.yaml: cannot be read" in fail(capsys, "with", tmp_path / "b.yaml")
  with pytest.raises(ConfigError, match="c.yaml: cannot be read"):
    reading.load_file(tmp_path / "c.yaml")


@pytest.mark.parametrize(
  "name, text",
  [
    ("a.yaml", "!!python/object/apply:os.mkdir [RAN]"),
    ("a.yaml", "n_z: !!python/object/apply:os.mkdir [RAN]"),
    (
      "a.json",
      '{"n_z": {"py/reduce": [{"py/function": "os.mkdir"},'
      ' {"py/tuple": ["RAN"]}]}}',
    ),
    (
      "a.json",
      '{"model": {"inputs": [{"py/object/apply": "os.mkdir"},'
      ' {"py/type": "os.mkdir"}]}}',
    ),
  ],
)
def test_a_file_cannot_run_code(name, text, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  path = write(tmp_path / name, text)
  error = fail(capsys, "print_config", "with", "tetrominoes", path)
  assert str(path) in error
  assert [x.name for x in tmp_path.iterdir()] == [name]


# --- What is text, and what a number ------------------------------------------


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", ".1e-3", "+1e-4"])
def test_numbers_in_yaml_are_those_of_json(text, tmp_path):
  content = f"learn_rate: {text}\nlatents: ['{text}', e1e1]"
  config = reading.load_file(write(tmp_path / "a.yaml", content))
  assert config == {"learn_rate": 1e-4, "latents": [text, "e1e1"]}


@pytest.mark.parametrize("value", ["2024", "007", "1e3", "0x10", "1_000"])
def test_folders_may_have_numbers_for_names(value, tmp_path):
  path = write(
    tmp_path / "a.yaml",
    f"checkpoint_dir: {value}\ndata: {{path: {value}, cache_dir: {value}}}",
  )
  words = [f"{key}={value}" for key in ("checkpoint_dir", "data.path", "image")]
  typed = resolve("folder", *words)
  read = resolve("folder", path)
  for config in (typed, read):
    assert config["checkpoint_dir"] == value
    assert config["data"]["path"] == value
  assert typed["image"] == read["data"]["cache_dir"] == value


def test_lists_of_paths_may_have_numbers_for_names(tmp_path):
  path = write(tmp_path / "a.yaml", "data: {path: [2024, 01]}")
  assert resolve("clevr6", path)["data"]["path"] == ["2024", "01"]
  path = write(tmp_path / "b.yaml", "checkpoint_dir: 2024-01-02")
  assert resolve("clevr6", path)["checkpoint_dir"] == "2024-01-02"
  path = write(tmp_path / "c.json", '{"pictures_dir": 2024}')
  assert resolve("clevr6", path)["pictures_dir"] == "2024"


def test_a_number_for_a_path_says_how_to_write_it(tmp_path, capsys):
  path = write(tmp_path / "a.json", '{"pictures_dir": 1e3}')
  error = fail(capsys, "with", "clevr6", path)
  assert "pictures_dir=1000.0: is a number; write './1000.0'" in error


def test_null_is_none_on_the_command_line():
  config = resolve("tetrominoes", "data.shuffle_buffer=null", "slot=null")
  assert config["data"]["shuffle_buffer"] is None
  assert config["slot"] is None


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_byte_order_mark_is_no_part_of_a_file(ending, tmp_path):
  path = tmp_path / f"a.{ending}"
  path.write_bytes(b'\xef\xbb\xbf{"n_z": 5}')
  assert resolve("tetrominoes", path)["n_z"] == 5


@pytest.mark.parametrize(
  "name, text, line, first, key",
  [
    ("a.yaml", "n_z: 3\nbatch_size: 4\nn_z: 5\n", 3, 1, "n_z"),
    ("a.yaml", "data:\n  path: a\n  'path': b\n", 3, 2, "path"),
    ("a.json", '{"data": {\n\t"path": "a",\n\t"path": "b"}}', 3, 2, "path"),
    ("a.json", '{"n_z": 3,\n"model": {"n_z": 3, "n_z": 4}}', 2, 2, "n_z"),
  ],
)
def test_a_key_that_is_there_twice(
  name, text, line, first, key, tmp_path, capsys
):
  error = fail(capsys, "with", write(tmp_path / name, text))
  assert f"{name}: cannot be parsed: line {line}: the key {key!r}" in error
  assert f"is there already, in line {first}" in error


def test_yaml_may_merge_what_it_then_changes(tmp_path):
  text = "data: &a {path: a, reader: b}\nmodel: {<<: *a, path: c}"
  config = reading.load_file(write(tmp_path / "a.yaml", text))
  assert config["model"] == {"path": "c", "reader": "b"}
  text = """
    data: &a {path: a}
    x: {y: {z: &b {<<: *a, path: c}}}
    model: {<<: *b}
  """
  config = reading.load_file(write(tmp_path / "b.yaml", text))
  assert config["model"] == config["x"]["y"]["z"] == {"path": "c"}


@pytest.mark.parametrize(
  "text, fault",
  [
    (
      f"a: &a {{{', '.join(f'a{i}: 1' for i in range(6000))}}}\n"
      f"b: &b {{{', '.join(f'b{i}: 1' for i in range(6000))}}}\n"
      "c: {<<: [*a, *b]}",
      "more than 10,000 keys",
    ),
    (
      "a0: &a0 [1]\n"
      + "".join(
        f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n"
        for i in range(9)
      ),
      "more than 10,000 entries",
    ),
    ("a: " + "[" * 20_000, "nested too deeply"),
    ("a: &a [*a]", "more than 10,000 entries"),
  ],
)
def test_a_small_file_does_not_become_a_large_one(
  text, fault, tmp_path, capsys
):
  assert fault in fail(capsys, "with", write(tmp_path / "a.yaml", text))


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_more_digits_than_python_reads(name, tmp_path, capsys):
  path = write(tmp_path / name, f'{{"n_z": {"9" * 5000}}}')
  assert "n_z=inf: expected a finite number" in fail(capsys, "with", path)


def test_two_whole_configurations_are_warned_of(tmp_path, caplog):
  path = write(tmp_path / "a.yaml", "n_z: 5\nmodel: {coord_type: cos}")
  resolve("demo", path)
  assert "describe" not in caplog.text
  resolve("demo", "tetrominoes")
  assert "demo and tetrominoes all describe data: what tetrom" in caplog.text


# --- Faults of entries --------------------------------------------------------


@pytest.mark.parametrize(
  "word, fault",
  [
    ("batchsize=3", "batchsize=3: unknown key. Did you mean 'batch_size'?"),
    ("foo.bar=1", "foo={'bar': 1}: unknown key. Valid keys: accumulate,"),
    (
      "data.shufle_buffer=3",
      "data.shufle_buffer=3: unknown key for iodine.modules.data.Tetrominoes. "
      "Did you mean 'shuffle_buffer'?",
    ),
    ("model.n_zz=3", "model.n_zz=3: unknown key for iodine.modules.iodine"),
    (
      "model.refinement_core.encoder_net.cnn_optt=3",
      "model.refinement_core.encoder_net.cnn_optt=3: unknown key for "
      "iodine.modules.networks.CNN. Did you mean 'cnn_opt'?",
    ),
    ("optimizer.beta_1=0.5", "Did you mean 'beta1'?"),
    ("batch_size=abc", "batch_size='abc': is text; expected an integer"),
    ("batch_size=2.5", "batch_size=2.5: expected an integer"),
    ("batch_size=True", "batch_size=True: expected an integer"),
    ("batch_size=None", "batch_size=None: expected an integer"),
    ("batch_size=0", "batch_size=0: expected an integer of at least 1"),
    ("batch_size=-3", "batch_size=-3: expected an integer of at least 1"),
    (
      "base_batch_size=0",
      "base_batch_size=0: expected an integer of at least 1",
    ),
    ("num_components=1", "num_components=1: expected an integer of at least 2"),
    ("num_iters=0", "num_iters=0: expected an integer of at least 1"),
    ("n_z=[3]", "n_z=[3]: expected an integer"),
    ("learn_rate=abc", "learn_rate='abc': is text; expected a number"),
    ("learn_rate=0", "learn_rate=0: expected a number above 0"),
    ("base_learn_rate=-1", "base_learn_rate=-1: expected a number above 0"),
    ("stop_after_steps=1e6", "stop_after_steps=1000000.0: expected an integer"),
    ("continue_run=1", "continue_run=1: expected True or False"),
    ("checkpoint_dir=[3]", "checkpoint_dir=[3]: expected a path"),
    ("checkpoint_dir='a\\0b'", "checkpoint_dir='a\\x00b': has a zero byte"),
    ("data.path='a\\0b'", "path='a\\x00b': has a zero byte"),
    ("pictures_dir=''", "pictures_dir='': expected a path"),
    (
      "pictures_format=eps",
      "pictures_format='eps': no such value. Valid values: pdf, png, svg",
    ),
    ("data_file={'a': 3}", "data_file={'a': 3}: expected a path"),
    ("seed=-1", "seed=-1: expected an integer from 0 to 2147483646"),
    ("seed=99999999999", "seed=99999999999: expected an integer from 0 to"),
    ("model=3", "model=3: must be a mapping of entries"),
    ("data=abc", "data='abc': must be a mapping of entries"),
    ("optimizer=None", "optimizer=None: must be a mapping of entries"),
    ("=3", "'': no valid key"),
    ("n z=3", "'n z': no valid key"),
    (
      "data.max_num_objects=x",
      "max_num_objects='x': is text; expected an integer",
    ),
    ("model.num_components=3", "num_components=3, but the output_dist has 4"),
    (
      "model.iter_loss_weight=[1,2,3]",
      "iter_loss_weight=[1, 2, 3]: 3 weights, but num_iters=5 needs 6",
    ),
    ("model.latent_dist.dist=logistic", "has no KL divergence"),
    (
      "model.constructor=iodine.modules.iodine.IODIN",
      "iodine.modules.iodine has no class 'IODIN'. Did you mean 'IODINE'?",
    ),
    ("model.constructor=os.system", "'os.system': not allowed"),
    ("optimizer.beta1=2", "beta1=2: expected a number in [0, 1)"),
    ("clever6", "with clever6: no such configuration or file. Did you mean"),
    ("none/a.yaml", "with none/a.yaml: no such configuration or file."),
    # What no machine has the memory or the time for.
    *(
      (f"{entry}={value}", f"{fault}: is too large; expected at most {most}")
      for entry, value, fault, most in (
        ("batch_size", 10**9, f"batch_size={10**9}", "65,536"),
        ("data.batch_size", 10**9, f"batch_size={10**9}", "65,536"),
        ("data.shuffle_buffer", 10**12, f"buffer={10**12}", "10,000,000"),
        ("n_z", 10**12, f"n_z={10**12}", "8,192"),
        ("model.n_z", 10**12, f"n_z={10**12}", "8,192"),
        ("num_components", 10**9, f"num_components={10**9}", "8,192"),
        ("num_iters", 10**8, f"num_iters={10**8}", "1,000"),
        ("model.num_iters", 10**8, f"num_iters={10**8}", "1,000"),
        ("num_samples", 10**9, f"num_samples={10**9}", "8,192"),
        ("image_dim", "[9,1000000]", "image_dim=1000000", "8,192"),
        ("data.image_dim", "[9,1000000]", "image_dim=1000000", "8,192"),
        (
          "model.refinement_core.encoder_net.mlp_opt.output_sizes",
          "[1000000000]",
          "output_sizes[0]=1000000000",
          "8,192",
        ),
        (
          "model.refinement_core.recurrent_net.hidden_sizes",
          "[8,1000000000]",
          "hidden_sizes[1]=1000000000",
          "8,192",
        ),
        (
          "model.decoder.pixel_decoder.cnn_opt.output_channels",
          "[1000000000,None]",
          "output_channels[0]=1000000000",
          "8,192",
        ),
        (
          "model.decoder.pixel_decoder.cnn_opt.kernel_shapes",
          "[1000000000]",
          "kernel_shapes=1000000000",
          "8,192",
        ),
        ("model.coord_freqs", 10**9, f"coord_freqs={10**9}", "64"),
      )
    ),
    ("stop_after_steps=1e30", "stop_after_steps=1e+30: expected an integer"),
    (
      f"stop_after_steps={10**30}",
      f"stop_after_steps={10**30}: is too large; expected 64 bits at most",
    ),
    (f"data.skip={-(10**30)}", "data.skip=-1"),
    ("learn_rate=1e400", "learn_rate=inf: expected a finite number"),
    (
      "model.output_dist.component_dist.scale_val=1e400",
      "model.output_dist.component_dist.scale_val=inf: expected a finite",
    ),
    ("optimizer.decay_rate=-1e400", "decay_rate=-inf: expected a finite"),
    (
      "model.iter_loss_weight=[0,1,2,3,4,1e400]",
      "model.iter_loss_weight[5]=inf: expected a finite",
    ),
  ],
)
def test_a_fault_is_one_readable_error(word, fault, capsys):
  error = fail(capsys, "with", "tetrominoes", word)
  assert error.startswith("ConfigError: ")
  assert fault in error
  assert len(error.splitlines()) == 1, error


def test_a_batch_that_no_memory_holds(capsys, monkeypatch):
  monkeypatch.setattr(configuration, "_memory", lambda: 2**28)
  error = fail(capsys, "with", "clevr6", "batch_size=1000")
  assert "batch_size=1000: the 7 masks of 1,000 images of 128 x 128" in error
  assert "more than 0.4 GiB, and this machine has 0.2 GiB" in error


def test_numbers_in_files_are_checked_too(tmp_path, capsys):
  path = tmp_path / "a.json"
  path.write_text('{"optimizer": {"decay_rate": NaN}, "n_z": 1e400}')
  error = fail(capsys, "with", str(path))
  assert "optimizer.decay_rate=nan: expected a finite number" in error
  assert "n_z=inf: expected a finite number" in error


def test_the_nearest_name_of_a_configuration_is_told(capsys):
  error = fail(capsys, "with", "tetromino")
  assert "Did you mean 'tetrominoes'?" in error
  for name in NAMES:
    assert name in error.split("Valid configurations: ")[1]


def test_all_faults_are_told_together(capsys):
  words = ("n_zz=3", "batch_size=abc", "learn_rate=0", "data.path={}")
  words += ("model.decoder.foo=1", "optimizer.beta_2=1")
  error = fail(capsys, "with", "tetrominoes", *words)
  lines = error.removeprefix("ConfigError: ").splitlines()
  assert sorted(line.split(":")[0] for line in lines) == sorted(
    [
      "n_zz=3",
      "batch_size='abc'",
      "learn_rate=0",
      "data",
      "model.decoder.foo=1",
      "optimizer.beta_2=1",
    ]
  )


@pytest.mark.parametrize("words", [(), ("with", "n_z=3")])
def test_training_needs_a_configuration(words, capsys):
  error = fail(capsys, *words)
  assert "No configuration was chosen: name one" in error
  assert "print_named_configs" in error


def test_the_check_lists_every_fault():
  config = configuration.resolve({"n_z": 0, "other": 1})
  with pytest.raises(ConfigError) as error:
    configuration.build(config)
  lines = str(error.value).splitlines()
  assert lines[0] == "n_z=0: expected an integer of at least 1"
  assert lines[1].startswith("other=1: unknown key.")
  assert lines[2].startswith("No configuration was chosen")
