"""Translates variables of published checkpoints to those of the models here.

A table maps the name of a published variable to the variables here, each with a
change of layout. It serves single values as well as whole checkpoints, so also
gradients and an optimizer's moments. A name here is told without the scopes
that a configuration puts before it: "decoder/conv_0/w" is the variable
"decoder/decoder/conv_0/w".
"""

import iodine.quiet_tensorflow

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

__all__ = [
  "Layout",
  "Place",
  "Table",
  "as_it_is",
  "check_options",
  "convolution",
  "full_names",
  "gates",
  "inside_network",
  "keras_layer",
  "keras_norm",
  "linear",
  "part",
  "places",
  "shapes",
  "torch_layer",
  "torch_norm",
  "translate",
]

Layout = Callable[[np.ndarray], np.ndarray]


class Place(NamedTuple):
  """Where a published value belongs.

  Attributes:
    name: of a variable here; in a table it may refer to groups of the pattern.
    layout: from the published layout to the one here.
  """

  name: str
  layout: Layout


# {regular expression of a whole published name: where its value belongs}; of
# several that fit, the first counts. No place: a constant, which is no variable
# here.
Table = Mapping[str, tuple[Place, ...]]


def as_it_is(value: np.ndarray) -> np.ndarray:
  """The layout is the same."""
  return value


def convolution(value: np.ndarray) -> np.ndarray:
  """PyTorch's kernel of a convolution, [out, in, H, W], to [H, W, in, out].

  Also that of a transposed one, [in, out, H, W], to [H, W, out, in].
  """
  return np.transpose(value, (2, 3, 1, 0))


def linear(value: np.ndarray) -> np.ndarray:
  """PyTorch's weights of a linear layer, [out, in], to [in, out]."""
  return np.transpose(value)


def gates(value: np.ndarray) -> np.ndarray:
  """PyTorch's gates of a GRU, [3 D, ...] as r, z, n, to [..., 3 D] as z, r, n.

  Args:
    value: weights [3 D, in] or biases [3 D].
  """
  reset, update, new = np.split(value, 3)
  return np.transpose(np.concatenate([update, reset, new]))


def part(index: int) -> Layout:
  """A layout that takes one entry of the first axis."""
  return lambda value: value[index]


def places(name: str, table: Table) -> tuple[Place, ...] | None:
  """Where the value of a published name belongs; None if the table has it not.

  Args:
    name: of a published variable.
    table: of its model.
  """
  for pattern, found in table.items():
    if match := re.fullmatch(pattern, name):
      return tuple(
        place._replace(name=match.expand(place.name)) for place in found
      )
  return None


def keras_layer(published: str, name: str) -> Table:
  """Rows for weights and bias of a layer, both of which Keras keeps as here.

  Args:
    published: regular expression of the layer's name.
    name: of the layer here.
  """
  return {
    f"{published}/kernel": (Place(f"{name}/w", as_it_is),),
    f"{published}/bias": (Place(f"{name}/b", as_it_is),),
  }


def keras_norm(published: str, name: str) -> Table:
  """As `keras_layer`, for gain and offset of a layer norm."""
  return {
    f"{published}/gamma": (Place(f"{name}/scale", as_it_is),),
    f"{published}/beta": (Place(f"{name}/offset", as_it_is),),
  }


def torch_layer(published: str, name: str, layout: Layout = linear) -> Table:
  """As `keras_layer`, for PyTorch's weights in a layout of their own."""
  return {
    rf"{published}\.weight": (Place(f"{name}/w", layout),),
    rf"{published}\.bias": (Place(f"{name}/b", as_it_is),),
  }


def torch_norm(published: str, name: str) -> Table:
  """As `keras_norm`, for a norm of PyTorch."""
  return {
    rf"{published}\.weight": (Place(f"{name}/scale", as_it_is),),
    rf"{published}\.bias": (Place(f"{name}/offset", as_it_is),),
  }


# Keras' object-based checkpoints: a moment of Adam, and what the model is in.
_MOMENT = re.compile(r"(.*)/\.OPTIMIZER_SLOT/optimizer/([mv])")
_MOMENTS = {"m": "/Adam", "v": "/Adam_1"}
_NETWORK = re.compile(r"network/[^/]+/")
# Of what is beside the network, what has no counterpart here: the rate is the
# configuration's.
_SETTINGS = re.compile("optimizer/[^/]+|save_counter")


def inside_network(values: Mapping[str, Any]) -> dict[str, Any]:
  """Values of Keras' object-based checkpoints by the names of the tables.

  Args:
    values: by keys of the object graph.

  Returns:
    Those of the network without what comes before the names of its own
    variables, which depends on TensorFlow's version; others as they are.
  """
  return {_NETWORK.sub("", key, 1): value for key, value in values.items()}


def translate(
  values: Mapping[str, np.ndarray],
  table: Table,
  variables: Iterable[tf.Variable],
) -> dict[str, np.ndarray]:
  """Translates a published checkpoint.

  Args:
    values: by published names, see `inside_network`.
    table: of the model.
    variables: of the model.

  Returns:
    By names of variables here, as in TF1 checkpoints: Adam's moments, powers
    and step are called as there. What no variable matches keeps its name.
  """
  scopes = full_names(variables)
  translated: dict[str, np.ndarray] = {}
  for name, value in values.items():
    moment = _MOMENT.fullmatch(name)
    found = places(moment[1] if moment else name, table)
    if found is None:
      translated[name] = value
      continue
    end = _MOMENTS[moment[2]] if moment else ""
    for place in found:
      own = scopes.get(place.name, place.name)
      translated[f"{own}{end}"] = _laid_out(name, value, place)
  return _with_adams_state(translated)


def _laid_out(name: str, value: np.ndarray, place: Place) -> np.ndarray:
  """A value in the layout here."""
  try:
    return place.layout(value)
  except (ValueError, IndexError):
    raise ValueError(
      f"has {name} of shape {list(value.shape)}, unlike the published code's; "
      "it may be of another version"
    ) from None


def _with_adams_state(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Replaces Keras' settings of Adam by what TF1 has for them."""
  others = {k: v for k, v in values.items() if not _SETTINGS.fullmatch(k)}
  keys = [f"optimizer/{key}" for key in ("iter", "beta_1", "beta_2")]
  if not set(keys) <= set(values):
    return others
  step, *betas = (values[key] for key in keys)
  state = {
    f"beta{i}_power": np.power(beta, step + 1).astype(np.float32)
    for i, beta in enumerate(betas, 1)
  }
  return {**others, **state, "global_step": step}


def full_names(variables: Iterable[tf.Variable]) -> dict[str, str]:
  """{a name as in a table: the full name} of variables."""
  names = [variable.name.partition(":")[0] for variable in variables]
  full: dict[str, str] = {}
  for name in sorted(names, key=len):  # "output/w" is that outside of modules
    rest = name
    while rest:
      full.setdefault(rest, name)
      rest = rest.partition("/")[2]
  return full


def shapes(
  values: Mapping[str, np.ndarray], table: Table
) -> dict[str, tuple[int, ...]]:
  """{name as in a table: shape here} of a published checkpoint's variables."""
  return {
    place.name: _laid_out(name, value, place).shape
    for name, value in values.items()
    for place in places(name, table) or ()
  }


def check_options(
  what: str, published: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
  """Checks that a model is of the size and version of a checkpoint.

  Args:
    what: whose checkpoint it is.
    published: {entry of a configuration: its value for the checkpoint}.
    own: those of the model; what it does not have is not compared.

  Raises:
    ValueError: lists the entries that differ, with the values to set.
  """
  differ = [
    key for key in published if own.get(key, published[key]) != published[key]
  ]
  if differ:
    lines = [
      f"  {key}={_text(published[key])}  (is {_text(own[key])})"
      for key in differ
    ]
    raise ValueError(
      f"is a checkpoint of {what}, which needs other options. Set:\n"
      + "\n".join(lines)
    )


def _text(value: Any) -> str:
  """A value as on the command line."""
  return str(list(value) if isinstance(value, tuple) else value)
