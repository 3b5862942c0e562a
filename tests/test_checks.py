"""Tests for iodine.checks."""

import pytest
import tensorflow as tf

from iodine import checks


def test_sizes_of_named_dimensions():
  arrays = {
    "image": (tf.zeros([2, 5, 3]), "H W C"),
    "mask": (tf.zeros([2, 5, 1]), "H W 1"),
    "label": (tf.zeros([7]), "_"),
  }
  assert checks.check_shapes(arrays) == {"H": 2, "W": 5, "C": 3}


def test_sizes_that_are_unknown_fit_anything():
  found = []

  @tf.function(
    input_signature=[tf.TensorSpec([None, 3, None])], autograph=False
  )
  def compiled(x):
    found.append(checks.check_shapes({"x": (x, "B 3 Z")}))
    return x

  compiled(tf.zeros([2, 3, 7]))
  assert found == [{}]


@pytest.mark.parametrize(
  "shape, expected, message",
  [
    ([2, 3], "B K Z", r"^z has shape \[2, 3\], expected \[B, K, Z\]"),
    ([2, 3], "2 4", r"^z has shape \[2, 3\], expected \[2, 4\]"),
    ([2, 3], "_", r"^z has shape \[2, 3\], expected \[_\]"),
    ([], "1", r"^z has shape \[\], expected \[1\]"),
  ],
)
def test_an_error_names_tensor_and_both_shapes(shape, expected, message):
  with pytest.raises(ValueError, match=message):
    checks.check_shapes({"z": (tf.zeros(shape), expected)})


def test_an_error_names_where_a_size_comes_from():
  arrays = {
    "image": (tf.zeros([2, 5]), "H W"),
    "mask": (tf.zeros([2, 4]), "H W"),
  }
  message = r"mask has shape \[2, 4\], .* with H=2 as in image, W=5 as in image"
  with pytest.raises(ValueError, match=message):
    checks.check_shapes(arrays)


def test_unknown_rank():
  compiled = tf.function(
    lambda x: checks.check_shapes({"x": (x, "B Z")}),
    input_signature=[tf.TensorSpec(None)],
    autograph=False,
  )
  with pytest.raises(ValueError, match="x has shape <unknown>, expected"):
    compiled(tf.zeros([2, 3]))


@pytest.mark.parametrize(
  "fault, expected",
  [
    (checks.int_fault("n", 3, 1, 3), None),
    (checks.int_fault("n", None, 1, optional=True), None),
    (checks.int_fault("n", 0, 1), "n=0: expected an integer of at least 1"),
    (checks.int_fault("n", 4, 1, 3), "n=4: expected an integer from 1 to 3"),
    (
      checks.int_fault("n", True, 1),
      "n=True: expected an integer of at least 1",
    ),
    (
      checks.int_fault("n", "2", 1, optional=True),
      "n='2': is text; expected an integer of at least 1 or None",
    ),
    (checks.above_zero_fault("x", 1e-9), None),
    (checks.above_zero_fault("x", 0.0), "x=0.0: expected a number above 0"),
    (
      checks.above_zero_fault("x", "1e-4"),
      "x='1e-4': is text; expected a number above 0",
    ),
    (checks.not_negative_fault("x", 0), None),
    (checks.not_negative_fault("x", 1.5), None),
    (
      checks.not_negative_fault("x", float("inf")),
      "x=inf: expected a number of at least 0",
    ),
    (
      checks.not_negative_fault("x", "-1"),
      "x='-1': is text; expected a number of at least 0",
    ),
    (checks.multiple_fault("x", 12, "y", 4), None),
    (
      checks.multiple_fault("x", 10, "y", 4),
      "x=10: expected a multiple of y, 4",
    ),
    (checks.share_fault("x", 0), None),
    (checks.share_fault("x", 1.0), "x=1.0: expected a number in [0, 1)"),
    (checks.flag_fault("x", False), None),
    (checks.size_fault("n", 8192), None),
    (checks.size_fault("n", 0), "n=0: expected an integer of at least 1"),
    (
      checks.size_fault("n", 10**100),
      f"n=1{'0' * 59}...{'0' * 10}: is too large; expected at most 8,192",
    ),
    (
      checks.image_dim_fault((3, 9000)),
      "image_dim=9000: is too large; expected at most 8,192",
    ),
    (checks.number_fault("x", float("nan")), "x=nan: expected a finite number"),
    (checks.number_fault("x", "nan"), None),
    (checks.flag_fault("x", 1), "x=1: expected True or False"),
  ],
)
def test_faults(fault, expected):
  assert fault == expected


def test_weights_are_counted():
  checks.check_weights("layer", [2**15, 2**15])
  with pytest.raises(ValueError, match="layer: weights of shape .* 2,147,483,"):
    checks.check_weights("layer", [2**16, 2**15])


def test_all_faults_are_raised_together():
  with pytest.raises(ValueError, match="a=0: .*\nc='x': is text"):
    checks.check_positive_ints(a=0, b=1, c="x")
  with pytest.raises(ValueError, match="b=2: expected True or False"):
    checks.check_flags(a=True, b=2)
  with pytest.raises(ValueError, match="a=1: .* is its 'constructor' missing"):
    checks.check_modules(a=1, b=len)
