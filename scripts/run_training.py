"""Trains what `scripts/export_training.py` wrote, with JAX and NumPy alone.

  python FOLDER/run_training.py [--minutes 9] [--steps 20000]

All scenes lie on the device, which also draws the batches; the noise is drawn
within the step, from its seed and number. FOLDER/trained.npz is written every
few minutes and in the end, which is when the steps are done, the time is over,
or Ctrl-C or SIGTERM comes; the next call goes on from it, exactly.
FOLDER/scalars.csv has means of the scalars.
"""

import argparse
import collections
import csv
import dataclasses
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

NAME = "run_training.py"
STEP_FILE = "step.stablehlo"
SPEC_FILE = "step.json"
SCENES_FILE = "scenes.npz"
START_FILE = "start.npz"
TRAINED_FILE = "trained.npz"
SCALARS_FILE = "scalars.csv"

_STEPS_AHEAD = 2  # that the device may be given before it has done the first
_STEP = "step"  # beside the variables in `TRAINED_FILE`


def main(argv: Sequence[str] | None = None) -> None:
  """Trains."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "folder",
    nargs="?",
    type=pathlib.Path,
    default=pathlib.Path(__file__).parent,
    help="what was exported; by default where this file is",
  )
  parser.add_argument("--minutes", type=float, help="time limit")
  parser.add_argument(
    "--steps", type=int, help="where to stop; by default as configured"
  )
  parser.add_argument("--log-seconds", type=float, default=10.0)
  parser.add_argument("--save-minutes", type=float, default=5.0)
  arguments = parser.parse_args(argv)
  if not (arguments.folder / SPEC_FILE).is_file():
    parser.error(f"{arguments.folder}: there is no {SPEC_FILE}")
  train(**vars(arguments))


def train(
  folder: pathlib.Path,
  steps: int | None = None,
  minutes: float | None = None,
  log_seconds: float = 10.0,
  save_minutes: float = 5.0,
) -> int:
  """Trains, from the last saved state if there is one.

  Args:
    folder: what was exported.
    steps: at which to stop; None: as configured.
    minutes: after which to stop; None: no limit.
    log_seconds: between two lines of means.
    save_minutes: between two saved states.

  Returns:
    The number of steps taken so far, those of earlier calls included.

  Raises:
    SystemExit: if a value is not finite that has to be; nothing is saved then.
  """
  start = time.monotonic()
  run = _Run(folder)
  stop = run.spec["stop_after_steps"] if steps is None else steps
  with _Signals() as received:
    log = _Log(run, stop, log_seconds)
    saved_at = time.monotonic()
    while run.step < stop and not received:
      if minutes is not None and time.monotonic() - start > 60 * minutes:
        break
      log(run.advance())
      if time.monotonic() - saved_at > 60 * save_minutes:
        log(run.finish())
        run.save()
        saved_at = time.monotonic()
    log(run.finish())
    log.close()
    run.save()
  print(f"Saved {folder / TRAINED_FILE}, step {run.step:,}", flush=True)
  return run.step


def load_step(
  module: bytes, spec: Mapping[str, Any]
) -> tuple[Callable[..., Any], list[Any]]:
  """Makes a function of JAX of a module.

  Args:
    module: StableHLO, in its portable bytecode.
    spec: see `export_training.step_module`.

  Returns:
    The function, of all inputs in order, and a `jax.ShapeDtypeStruct` of each.
    It returns the scalars [n] and the new values of `spec["outputs"]`.
  """
  import jax
  from jax import export

  # Steps are counted in int64.
  jax.config.update("jax_enable_x64", True)
  inputs = [
    jax.ShapeDtypeStruct(*shape_dtype) for shape_dtype in spec["inputs"]
  ]
  outputs = [
    jax.ShapeDtypeStruct([len(spec["scalars"])], "float32"),
    *(inputs[i] for i in spec["outputs"]),
  ]

  def same_types(*_: Any) -> Any:
    return tuple(jax.numpy.zeros(x.shape, x.dtype) for x in outputs)

  class Exported(export.Exported):
    """A module that JAX did not write: bytecode, but not of its own kind."""

    def mlir_module(self, serialized: bool = True) -> Any:
      if serialized:  # JAX before 0.10 parses what this returns.
        return self.mlir_module_serialized
      return super().mlir_module(serialized=False)

  # JAX's own wrapping of a function of these types, around the module.
  wrapping = export.export(jax.jit(same_types, keep_unused=True))(*inputs)
  fields = {
    f.name: getattr(wrapping, f.name) for f in dataclasses.fields(wrapping)
  }
  return Exported(**{**fields, "mlir_module_serialized": module}).call, inputs


class _Run:
  """State of a training, on the device.

  Attributes:
    spec: see `export_training.export`.
    step: number of steps taken.
  """

  def __init__(self, folder: pathlib.Path):
    import jax

    self._folder = folder
    self.spec = json.loads((folder / SPEC_FILE).read_text())
    call, _ = load_step((folder / STEP_FILE).read_bytes(), self.spec)
    start = dict(np.load(folder / START_FILE))
    trained = folder / TRAINED_FILE
    if trained.is_file():
      start |= dict(np.load(trained))
    self.step = int(start.pop(_STEP, 0))
    self._values = jax.device_put(start)
    self._scenes = jax.device_put(dict(np.load(folder / SCENES_FILE)))
    self.batch_size = self.spec["batch_size"]
    self._pending: collections.deque[Any] = collections.deque()
    self._advance = jax.jit(
      lambda values, scenes, step: _advance(
        call, self.spec, values, scenes, step
      ),
      donate_argnums=0,
    )
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), step {self.step:,}")

  def advance(self) -> list[np.ndarray]:
    """Takes a step; returns the scalars of earlier ones that are done."""
    scalars, self._values = self._advance(
      self._values, self._scenes, np.int64(self.step)
    )
    self.step += 1
    self._pending.append(scalars)
    return self._done(_STEPS_AHEAD)

  def finish(self) -> list[np.ndarray]:
    """Waits for all steps; returns the scalars that were not yet returned."""
    return self._done(0)

  def _done(self, num_left: int) -> list[np.ndarray]:
    done = []
    while len(self._pending) > num_left:
      done.append(np.asarray(self._pending.popleft()))
    return done

  def save(self) -> None:
    """Writes all variables, whole or not at all."""
    path = self._folder / TRAINED_FILE
    partial = path.with_name(f".{path.name}.partial.npz")
    values = {name: np.asarray(x) for name, x in self._values.items()}
    np.savez(partial, **values, **{_STEP: np.int64(self.step)})
    os.replace(partial, path)

  def append_scalars(self, row: Mapping[str, float]) -> None:
    """Adds a row to the table of scalars."""
    path = self._folder / SCALARS_FILE
    is_new = not path.exists()
    with path.open("a", newline="") as file:
      writer = csv.DictWriter(file, row)
      if is_new:
        writer.writeheader()
      writer.writerow(row)


def _advance(
  call: Callable[..., Any],
  spec: Mapping[str, Any],
  values: Mapping[str, Any],
  scenes: Mapping[str, Any],
  step: Any,
) -> tuple[Any, dict[str, Any]]:
  """Takes a step: its scalars, and the new values of all variables."""
  import jax

  arguments = spec["arguments"]
  chosen = _choose(
    jax.random.key(spec["seed"]),
    step,
    len(scenes[arguments[0]]),
    spec["batch_size"],
  )
  captured = spec["captured"]
  inputs = [scenes[name][chosen] for name in arguments]
  inputs += [values[name] for name in captured]
  scalars, *new = call(*inputs)
  updated = [captured[i - len(arguments)] for i in spec["outputs"]]
  return scalars, {**values, **dict(zip(updated, new, strict=True))}


def _choose(key: Any, step: Any, num_scenes: int, batch_size: int) -> Any:
  """Indices [B] of the scenes of a step: each scene once an epoch, at random.

  What remains of an epoch that is no full batch is left out.
  """
  import jax

  steps_per_epoch = num_scenes // batch_size
  epoch, place = step // steps_per_epoch, step % steps_per_epoch
  order = jax.random.permutation(jax.random.fold_in(key, epoch), num_scenes)
  return jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size)


class _Log:
  """Checks the scalars of steps, and writes means of them now and then."""

  def __init__(self, run: _Run, stop: int, seconds: float):
    self._run, self._stop, self._seconds = run, stop, seconds
    self._names = run.spec["scalars"]
    self._may_be_nan = [name in run.spec["may_be_nan"] for name in self._names]
    self._rows: list[np.ndarray] = []
    self._is_first = True
    self._start = self._since = time.monotonic()

  def __call__(self, scalars: Sequence[np.ndarray]) -> None:
    for row in scalars:
      wrong = ~(np.isfinite(row) | self._may_be_nan)
      if wrong.any():
        name = self._names[int(np.argmax(wrong))]
        sys.exit(
          f"{name} is {row[np.argmax(wrong)]} before step {self._run.step:,}. "
          f"{TRAINED_FILE} is as it was last saved, if it was."
        )
      self._rows.append(row)
    now = time.monotonic()
    if self._is_first and self._rows:  # The first step compiles.
      print(f"Compiled in {now - self._since:.0f} s", flush=True)
      self._is_first, self._since = False, now
      self._rows.clear()
    elif self._rows and now - self._since > self._seconds:
      self._write(now)

  def close(self) -> None:
    """Writes what is left."""
    if self._rows:
      self._write(time.monotonic())

  def _write(self, now: float) -> None:
    run, rows = self._run, np.array(self._rows)
    # A score may be undefined for some batches, or for all.
    are_there = ~np.isnan(rows)
    sums = np.where(are_there, rows, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):
      means = sums / are_there.sum(axis=0)
    rate = len(rows) / (now - self._since)
    named = dict(zip(self._names, means.tolist(), strict=True))
    left = (self._stop - run.step) / rate
    shown = [
      f"step {run.step:,} of {self._stop:,} ({run.step / self._stop:.1%})",
      *(
        f"{name.rpartition('/')[2]} {named[name]:.4g}"
        for name in ("loss/total", "loss/ari_nobg")
        if name in named
      ),
      f"{rate:.1f} steps/s, {rate * run.batch_size:,.0f} images/s",
      f"{left / 60:,.0f} min left",
    ]
    print("  ".join(shown), flush=True)
    run.append_scalars(
      {
        "step": run.step,
        "seconds": round(now - self._start, 1),
        "images_per_s": round(rate * run.batch_size, 1),
        **named,
      }
    )
    self._rows.clear()
    self._since = now


class _Signals:
  """Notes the first SIGINT or SIGTERM; the second ends the process."""

  _NUMBERS = (signal.SIGINT, signal.SIGTERM)

  def __enter__(self) -> list[int]:
    self._received: list[int] = []
    self._before = {n: signal.signal(n, self._note) for n in self._NUMBERS}
    return self._received

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: Any) -> None:
    del frame
    self._received.append(number)
    print("Saving. Once more ends at once", flush=True)
    for each in self._NUMBERS:
      signal.signal(each, signal.SIG_DFL)


if __name__ == "__main__":
  main()
