"""Tests for iodine.experiment: what it needs of Sacred."""

import importlib.metadata
import threading

import pytest
from sacred import Experiment
from sacred.run import Run

from iodine import experiment
from iodine.config import entries, resolution


@pytest.mark.parametrize(
  ("owner", "name"),
  [
    (owner, name)
    for owner, names in experiment.PRIVATE.items()
    for name in names
  ],
)
def test_sacred_still_has_what_is_used_of_it(owner, name):
  own = Experiment("test", save_git_info=False)
  own.main(lambda: None)
  found = {Experiment: own, Run: own._create_run()}.get(owner, owner)
  version = importlib.metadata.version("sacred")
  assert hasattr(found, name), (
    f"Sacred {version} has no {owner.__name__}.{name}: see where "
    "iodine/experiment.py uses it, or require another version"
  )


def test_sacred_takes_the_resolved_configuration():
  own = experiment.Experiment("test", save_git_info=False)
  never = lambda name, config: False
  own.set_up(
    lambda name, config, given: (config["n_z"], given), never, never, str
  )
  own.main(lambda: None)
  run = own._create_run(config_updates={"n_z": 5, "data_file": "a"})
  assert own.prepared == (5, {"n_z", "data_file"})
  assert run.unobserved
  assert run.experiment_info["mainfile"] == "test_experiment.py"
  expected = resolution.resolve({"n_z": 5, "data_file": "a"})
  assert {**run.config, "seed": None} == expected
  assert {"n_z", "data_file"} <= run.config_modifications.modified
  assert "num_iters" not in run.config_modifications.modified
  for name, entry in entries.ENTRIES.items():
    assert run.config_modifications.docs[name] == entry.help


def test_no_output_is_lost_while_some_is_taken_away():
  output, count = experiment._Output(), 20_000
  writer = threading.Thread(
    target=lambda: [output.keep(f"{i}\n") for i in range(count)]
  )
  writer.start()
  taken = []
  while writer.is_alive():
    taken.append(output.get())
  taken.append(output.get())
  assert "".join(taken).split() == [str(i) for i in range(count)]
