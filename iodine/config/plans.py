"""Building modules from plans."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from iodine.errors import ConfigError, did_you_mean

__all__ = ["ALLOWED_CONSTRUCTORS", "build"]

_PACKAGE = "iodine.modules"
# What a plan may name beside the public classes of `iodine.modules`:
# {name in a plan: dotted path of what is called}. The plans of the TF1
# reference name TF1's optimizer in either of two spellings.
ALLOWED_CONSTRUCTORS: dict[str, str] = {
  "iodine.training.make_optimizer": "iodine.training.make_optimizer",
  **{
    f"{prefix}.train.{name}": f"iodine.training.{target}"
    for prefix in ("tensorflow", "tensorflow.compat.v1")
    for name, target in (
      ("AdamOptimizer", "Adam"),
      ("exponential_decay", "ExponentialDecay"),
      ("get_or_create_global_step", "global_step_of_optimizer"),
    )
  },
}


def build(
  plan: Any, identifier: str, shared: Mapping[str, Any] | None = None
) -> Any:
  """Builds what a plan describes, afresh at every call; changes no plan.

  A plan is data. A mapping with a `constructor` entry (a dotted name) becomes
  a call of it with the other entries, themselves built, as keyword arguments.
  Other mappings are built entry by entry, and any other value is kept.

  Every constructor is called in the name scope of its key in the plan, so that
  variables get the names that they have in checkpoints of the TF1 reference:
  `<nearest key>/<module's name>/...`.

  Args:
    plan: nested mappings, lists and scalars (reference:
      configurations.py). A constructor must be a public class of a module
      under `iodine.modules`, or a name in `ALLOWED_CONSTRUCTORS`.
    identifier: the plan's own key, e.g. "model".
    shared: values for every constructor that has a parameter of that name and
      whose plan does not set it.

  Returns:
    The built object.

  Raises:
    ConfigError: lists every fault of the plan: unknown constructors and keys,
      missing keys, and values that a constructor rejects.
  """
  faults: list[str] = []
  built = _build(plan, identifier, identifier, faults, shared or {})
  if faults:
    raise ConfigError("\n".join(faults))
  return built


def _build(
  plan: Any,
  key: str,
  path: str,
  faults: list[str],
  shared: Mapping[str, Any],
) -> Any:
  if isinstance(plan, list | tuple):
    return [_plain(item) for item in plan]
  if not isinstance(plan, Mapping):
    return plan
  before = len(faults)
  constructor = None
  if "constructor" in plan:
    constructor = _resolve_constructor(plan["constructor"], path, faults)
    if constructor is not None:
      names = _parameters(constructor)
      plan = {**{k: shared[k] for k in names if k in shared}, **plan}
      _check_keys(constructor, plan, path, faults)
  entries = {
    k: _build(v, k, f"{path}.{k}", faults, shared)
    for k, v in plan.items()
    if k != "constructor"
  }
  if "constructor" not in plan:
    return entries
  if len(faults) > before or constructor is None:
    return None
  try:
    # An absolute scope: neither the caller's scope nor outer keys count.
    with tf.name_scope(f"{key}/"):
      return constructor(**entries)
  except (ValueError, TypeError, AttributeError) as error:
    faults.append(f"{path}: {error}")
    return None


def _plain(value: Any) -> Any:
  """Copies nested containers into plain lists and dicts."""
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v) for v in value]
  return value


def _resolve_constructor(
  name: Any, path: str, faults: list[str]
) -> Callable | None:
  """Returns what a plan's constructor entry names, or None with a fault."""
  if callable(name):
    return name
  if isinstance(name, str) and name in ALLOWED_CONSTRUCTORS:
    module_name, _, attribute = ALLOWED_CONSTRUCTORS[name].rpartition(".")
    return getattr(importlib.import_module(module_name), attribute)
  module_name, _, attribute = str(name).rpartition(".")
  package = f"{_PACKAGE}."
  if not module_name.startswith(package):
    faults.append(
      f"{path}.constructor={name!r}: not allowed. A constructor is a public "
      f"class under {package[:-1]}, or one of: "
      f"{', '.join(sorted(ALLOWED_CONSTRUCTORS))}"
    )
    return None
  try:
    module = importlib.import_module(module_name)
  except ModuleNotFoundError:
    faults.append(
      f"{path}.constructor={name!r}: there is no module {module_name}. "
      + did_you_mean(module_name, _public_modules(), "modules")
    )
    return None
  classes = [
    n
    for n in getattr(module, "__all__", ())
    if inspect.isclass(getattr(module, n))
  ]
  if attribute not in classes:
    faults.append(
      f"{path}.constructor={name!r}: {module_name} has no class "
      f"{attribute!r}. {did_you_mean(attribute, classes, 'classes')}"
    )
    return None
  return getattr(module, attribute)


def _public_modules() -> list[str]:
  names = ("data", "decoder", "distributions", "factor_eval", "iodine")
  return [f"{_PACKAGE}.{n}" for n in (*names, "networks", "refinement")]


def _parameters(constructor: Callable) -> dict[str, inspect.Parameter]:
  """What a constructor takes by name."""
  is_class = inspect.isclass(constructor)
  function = constructor.__init__ if is_class else constructor  # type: ignore
  kinds = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
  )
  return {
    name: parameter
    for name, parameter in inspect.signature(function).parameters.items()
    if name != "self" and parameter.kind in kinds
  }


def _check_keys(
  constructor: Callable, plan: Mapping, path: str, faults: list[str]
) -> None:
  """Compares a plan's keys with the constructor's parameters."""
  parameters = _parameters(constructor)
  called = plan["constructor"]  # by the name that the plan knows it by
  if callable(called):
    called = f"{constructor.__module__}.{constructor.__qualname__}"
  faults += [
    f"{path}.{key}={value!r}: unknown key for {called}. "
    + did_you_mean(key, parameters, "keys")
    for key, value in plan.items()
    if key not in parameters and key != "constructor"
  ]
  faults += [
    f"{path}.{name}: {called} needs this key"
    for name, parameter in parameters.items()
    if parameter.default is parameter.empty and name not in plan
  ]
