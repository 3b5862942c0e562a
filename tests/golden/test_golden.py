"""Checkpoints that earlier versions saved still load, and mean the same."""

import importlib
import inspect
import pkgutil
import shutil

import numpy as np
import pytest
import sonnet as snt

import iodine.modules
from iodine import tf1_checkpoint
from scripts import write_golden
from tests.golden import cases

# Parts of modules that are recorded as a whole, and what has no variables.
_PARTS = {"ConvNet2D", "OnlineMeanVarEstimator", "RefinementInputs"}
_WITHOUT_VARIABLES = {"BernoulliOutput", "DistributionModule"}
# No score depends on it; the factor regressor's own file has it.
_NOT_SEEN = "factor_evaluator/repres_content/position_mean_var/mean"
# Sums of up to some hundred float32 products of order one, which other
# processors and versions add up in another order; IODINE's pass through a
# layer norm of small gradients.
_TOLERANCE = dict(rtol=1e-4, atol=1e-5)


def _restored(name: str, golden: cases.Golden) -> cases.Instance:
  instance = cases.Instance(cases.CASES[name], golden.plan, golden.inputs)
  report = tf1_checkpoint.restore_values(
    golden.variables, name, instance.module, instance.optimizer
  )
  assert report == (tuple(sorted(golden.variables)), (), ())
  return instance


@pytest.mark.parametrize("name", cases.CASES)
def test_a_golden_checkpoint_loads(name):
  golden = cases.read(cases.FOLDER / f"{name}.npz")
  outputs = _restored(name, golden).outputs()
  assert outputs.keys() == golden.outputs.keys()
  for key, value in golden.outputs.items():
    np.testing.assert_allclose(outputs[key], value, **_TOLERANCE, err_msg=key)


@pytest.mark.parametrize("name", [n for n in cases.CASES if n != "adam"])
def test_every_variable_counts(name):
  golden = cases.read(cases.FOLDER / f"{name}.npz")
  instance = _restored(name, golden)
  variables = instance.variables()
  variables.pop(_NOT_SEEN, None)
  for key, variable in variables.items():
    variable.assign_add(0.2 + 0.1 * np.random.random(variable.shape))
    outputs = instance.outputs()
    assert any(
      not np.allclose(outputs[k], value, **_TOLERANCE)
      for k, value in golden.outputs.items()
    ), key
    variable.assign(golden.variables[key])


def test_all_that_has_variables_is_recorded():
  plans = [
    cases.read(cases.FOLDER / f"{name}.npz").plan for name in cases.CASES
  ]
  recorded = {plan["constructor"].rpartition(".")[2] for plan in plans}
  public = set()
  for file in pkgutil.iter_modules(iodine.modules.__path__, "iodine.modules."):
    module = importlib.import_module(file.name)
    public |= {
      name
      for name in getattr(module, "__all__", ())
      if inspect.isclass(value := getattr(module, name))
      and issubclass(value, snt.Module)
      and not file.name.rpartition(".")[2].startswith("_")
    }
  assert recorded == public - _PARTS - _WITHOUT_VARIABLES


def test_they_are_small():
  sizes = [path.stat().st_size for path in cases.FOLDER.glob("*.npz")]
  assert len(sizes) == len(cases.CASES)
  assert sum(sizes) < 200_000


def test_recording_again_takes_force(tmp_path, capsys):
  shutil.copy(cases.FOLDER / "mlp.npz", tmp_path)
  before = (tmp_path / "mlp.npz").read_bytes()
  with pytest.raises(SystemExit, match="mlp: recorded already. --force"):
    write_golden.main(["mlp", "cnn"], tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ["mlp.npz"]
  assert (tmp_path / "mlp.npz").read_bytes() == before

  (tmp_path / "mlp.npz").write_bytes(b"")
  write_golden.main(["mlp", "--force"], tmp_path)
  golden = cases.read(tmp_path / "mlp.npz")
  recorded = cases.read(cases.FOLDER / "mlp.npz")
  assert golden.plan == recorded.plan
  assert golden.variables.keys() == recorded.variables.keys()


def test_recording_adds_what_is_not_there(tmp_path, capsys):
  for name in set(cases.CASES) - {"mlp"}:
    shutil.copy(cases.FOLDER / f"{name}.npz", tmp_path)
  write_golden.main([], tmp_path)
  assert capsys.readouterr().out.startswith(f"Wrote {tmp_path}/mlp.npz")
  write_golden.main([], tmp_path)
  assert capsys.readouterr().out == ""
  with pytest.raises(SystemExit):
    write_golden.main(["mpl"], tmp_path)
  assert "mpl: no such case; there are mlp, cnn" in capsys.readouterr().err
