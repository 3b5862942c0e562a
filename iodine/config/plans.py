"""Building modules from plans."""

import importlib
import inspect
import os
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from iodine.errors import ConfigError, did_you_mean

__all__ = ["ALLOWED_CONSTRUCTORS", "build", "filled"]

# A plan may name the public classes of modules inside of these packages,
_PACKAGES = (
  "iodine.modules",
  "iodine.data",
  "iodine.training",
  "iodine.models",
)
# and of modules and packages that this variable lists, separated by commas. So
# no configuration file alone imports code.
_OWN_MODULES = "IODINE_MODELS"
# What else a plan may name: {name in a plan: dotted path of what is called}.
# Plans of the TF1 reference name TF1's optimizer in either of two spellings.
ALLOWED_CONSTRUCTORS: dict[str, str] = {
  "iodine.geco.Geco": "iodine.geco.Geco",
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
      configurations.py). A constructor must be a public class of a module in
      `iodine.modules`, `iodine.models`, `iodine.data` or `iodine.training`, or
      of one that the environment variable IODINE_MODELS names, or a name in
      `ALLOWED_CONSTRUCTORS`.
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
  plan = filled(plan, shared or {})
  built = _build(plan, identifier, identifier, faults)
  if faults:
    raise ConfigError("\n".join(faults))
  return built


def filled(plan: Any, shared: Mapping[str, Any]) -> Any:
  """A plan with what its constructors share.

  Args:
    plan: see `build`.
    shared: see `build`.

  Returns:
    A new plan, for `build` without `shared`.
  """
  if not isinstance(plan, Mapping):
    return plan
  result = {key: filled(value, shared) for key, value in plan.items()}
  if "constructor" not in plan:
    return result
  constructor = _resolve_constructor(plan["constructor"], "", [])
  names = _parameters(constructor) if constructor is not None else {}
  return {**{k: shared[k] for k in names if k in shared}, **result}


def _build(plan: Any, key: str, path: str, faults: list[str]) -> Any:
  if isinstance(plan, list | tuple):
    return [_plain(item) for item in plan]
  if not isinstance(plan, Mapping):
    return plan
  before = len(faults)
  constructor = None
  if "constructor" in plan:
    constructor = _resolve_constructor(plan["constructor"], path, faults)
    if constructor is not None:
      _check_keys(constructor, plan, path, faults)
  entries = {
    k: _build(v, k, f"{path}.{k}", faults)
    for k, v in plan.items()
    if k != "constructor"
  }
  if "constructor" not in plan:
    return entries
  if len(faults) > before or constructor is None:
    return None
  # Here, as checks of entries alone then need no TensorFlow.
  import iodine.quiet_tensorflow

  import tensorflow as tf

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
  fault = f"{path}.constructor={name!r}: "
  module_name, _, attribute = str(name).rpartition(".")
  package = _package_of(module_name)
  if package is None:
    faults.append(
      f"{fault}not allowed. A constructor is a public class of a module in "
      f"{', '.join(_PACKAGES)}; one of a module of your own that the variable "
      f"{_OWN_MODULES} names; or one of: "
      f"{', '.join(sorted(ALLOWED_CONSTRUCTORS))}"
    )
    return None
  try:
    module = importlib.import_module(module_name)
  except Exception as error:  # Your own module may raise anything.
    faults.append(fault + _import_fault(error, module_name, package))
    return None
  classes = _public_classes(module)
  if attribute not in classes:
    faults.append(
      f"{fault}{module_name} has no class {attribute!r}. "
      + did_you_mean(attribute, classes, "classes")
    )
    return None
  return getattr(module, attribute)


def _package_of(module_name: str) -> str | None:
  """The package, or module of one's own, that makes a module allowed."""
  own = os.environ.get(_OWN_MODULES, "").split(",")
  for package in filter(None, map(str.strip, own)):
    if f"{module_name}.".startswith(f"{package}."):
      return package
  for package in _PACKAGES:
    if module_name.startswith(f"{package}."):
      return package
  return None


def _import_fault(error: Exception, module_name: str, package: str) -> str:
  """Why a module cannot be imported, in one line."""
  missing = error.name if isinstance(error, ModuleNotFoundError) else None
  if missing is None or not f"{module_name}.".startswith(f"{missing}."):
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if not isinstance(error, SyntaxError):  # which says where
      frames = traceback.extract_tb(error.__traceback__)
      *_, place = (f for f in frames if not f.filename.startswith("<frozen"))
      reason += f" ({place.filename}, line {place.lineno})"
    return f"{module_name} cannot be imported: {reason}"
  if f"{package}.".startswith(f"{missing}."):
    return (
      f"there is no module {missing}. It must be in the folder where `python "
      "-m iodine.main` runs, or in one that PYTHONPATH names"
    )
  return f"there is no module {module_name}. " + did_you_mean(
    module_name, _public_modules(package), "modules"
  )


def _public_modules(package: str) -> list[str]:
  paths = getattr(importlib.import_module(package), "__path__", None)
  if paths is None:
    return [package]
  names = [module.name for module in pkgutil.iter_modules(paths)]
  return [f"{package}.{name}" for name in names if not name.startswith("_")]


def _public_classes(module: ModuleType) -> list[str]:
  """Names of the classes in `__all__`, or else of those defined there."""
  classes = dict(inspect.getmembers(module, inspect.isclass))
  if hasattr(module, "__all__"):
    return [name for name in module.__all__ if name in classes]
  return [
    name
    for name, value in classes.items()
    if value.__module__ == module.__name__ and not name.startswith("_")
  ]


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
