"""Translation of published checkpoints; see also tests/parity."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.models import published
from iodine.models.published import Place
from iodine.models.slot_attention import weights

D = 2
GRU = "slot_attention.gru."


def test_layouts():
  kernel = np.zeros([5, 3, 2, 4])  # out or in, in or out, height, width
  assert published.convolution(kernel).shape == (2, 4, 3, 5)
  assert published.linear(np.zeros([5, 3])).shape == (3, 5)
  r, z, n = np.eye(3).repeat(D, axis=0).reshape(3, D, 3)
  values = published.gates(np.concatenate([r, z, n]))
  np.testing.assert_array_equal(values, np.concatenate([z, r, n]).T)
  np.testing.assert_array_equal(
    published.gates(np.arange(6)), [2, 3, 0, 1, 4, 5]
  )
  assert published.part(1)(np.array([3, 4])) == 4


def _variable(name: str) -> tf.Variable:
  return tf.Variable(0.0, name=name)


def test_full_names_are_found_by_their_ends():
  names = ["model/block/output/w", "model/output/w", "decoder/decoder/b"]
  full = published.full_names(map(_variable, names))
  assert full["output/w"] == "model/output/w"
  assert full["block/output/w"] == "model/block/output/w"
  assert full["decoder/b"] == full["decoder/decoder/b"] == "decoder/decoder/b"
  assert "ecoder/b" not in full


TABLE = {
  **published.keras_layer(r"mlp/(\d)", r"part/mlp_\1"),
  "both": (
    Place("part/first", published.part(0)),
    Place("part/second", published.part(1)),
  ),
  "constant": (),
}


def _adam(name: str, moment: str) -> str:
  return f"{name}/.OPTIMIZER_SLOT/optimizer/{moment}"


def test_a_whole_checkpoint():
  variables = [_variable(f"model/part/{n}") for n in ("mlp_0/w", "second")]
  values = {
    "mlp/0/kernel": np.full([1], 1.0),
    _adam("mlp/0/kernel", "m"): np.full([1], 2.0),
    _adam("mlp/0/kernel", "v"): np.full([1], 3.0),
    "mlp/0/bias": np.full([1], 4.0),
    "both": np.array([[5.0], [6.0]]),
    _adam("both", "v"): np.array([[7.0], [8.0]]),
    "constant": np.zeros([9]),
    "other": np.full([1], 9.0),
    "save_counter": np.array(5),
    "global_step": np.array(3),
    "optimizer/iter": np.array(3),
    "optimizer/beta_1": np.float32(0.9),
    "optimizer/beta_2": np.float32(0.999),
    "optimizer/decay": np.float32(0.0),
    "optimizer/learning_rate": np.float32(0.1),
  }
  translated = published.translate(values, TABLE, variables)
  assert {name: float(np.sum(v)) for name, v in translated.items()} == {
    "model/part/mlp_0/w": 1.0,
    "model/part/mlp_0/w/Adam": 2.0,
    "model/part/mlp_0/w/Adam_1": 3.0,
    "part/mlp_0/b": 4.0,
    "part/first": 5.0,
    "model/part/second": 6.0,
    "part/first/Adam_1": 7.0,
    "model/part/second/Adam_1": 8.0,
    "other": 9.0,
    "global_step": 3.0,
    "beta1_power": pytest.approx(0.9**4),
    "beta2_power": pytest.approx(0.999**4),
  }
  assert published.shapes(values, TABLE) == {
    "part/mlp_0/w": (1,),
    "part/mlp_0/b": (1,),
    "part/first": (1,),
    "part/second": (1,),
  }


def test_a_value_of_another_rank():
  table = {"x": (Place("x", published.convolution),)}
  with pytest.raises(ValueError, match=r"has x of shape \[2\], unlike"):
    published.translate({"x": np.zeros(2)}, table, [])


@pytest.mark.parametrize("first", ["layer_with_weights-0", "layer-1", "model"])
def test_keys_do_not_depend_on_the_first_layers_name(first):
  key = "slot_attention/gru/bias"
  values = {f"network/{first}/{key}": 1, "global_step": 2}
  assert published.inside_network(values) == {key: 1, "global_step": 2}


def test_options_that_differ_are_listed():
  own = {"n_z": 8, "model.kernels": (5,), "model.norm": True}
  published.check_options("X", {"n_z": 8, "model.unknown": 3}, own)
  with pytest.raises(ValueError, match="is a checkpoint of X") as error:
    published.check_options(
      "X", {"n_z": 8, "model.kernels": (5, 3), "model.norm": False}, own
    )
  assert str(error.value).splitlines()[1:] == [
    "  model.kernels=[5, 3]  (is [5])",
    "  model.norm=False  (is True)",
  ]


@pytest.mark.parametrize("gate", range(3))
def test_gates_of_pytorchs_gru_keep_their_meaning(gate):
  torch_order = "rzn"
  bias = np.zeros(3 * D)
  bias[gate * D : (gate + 1) * D] = 1.0
  (place,) = published.places(f"{GRU}bias_ih", weights.PYTORCH)
  assert place.name == "slot_attention/gru/b_i"
  own = place.layout(bias).reshape(3, D)
  assert "zrn"[int(own[:, 0].argmax())] == torch_order[gate]
