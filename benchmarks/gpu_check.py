"""Says what this machine's devices can do: `make gpu-check`.

Lists devices and libraries; compares all models with recorded outputs of the
published code; times training steps by precision, XLA and batch; doubles the
batch until a GPU's memory is used up; trains for about a minute; and times a
step on all GPUs together. Writes a JSON file, and prints Markdown to paste.
Without a GPU, sizes are small, and what needs one is skipped, and said to be.
"""

import argparse
import contextlib
import gc
import importlib.metadata
import io
import itertools
import json
import pathlib
import platform
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from benchmarks import train_step
from iodine import checks, devices
from iodine import main as command_line
from iodine.config import reading
from iodine.errors import ConfigError
from iodine.runs import versions
from tests.parity import check as parity
from tests.support.places import PARITY as PARITY_CASES

_PACKAGES = (
  *("tensorflow", "tensorflow-probability", "dm-sonnet", "tf_keras"),
  *("keras", "numpy"),
)
_SKIPPED = "skipped"  # the key that says why


def main(arguments: Sequence[str] | None = None) -> None:
  """Checks, writes and prints."""
  args = _parse(arguments)
  results = check(**{k: v for k, v in vars(args).items() if k != "output"})
  text = json.dumps(results, indent=1)
  args.output.write_text(f"{text}\n", encoding="utf-8")
  print(markdown(results))
  print(f"\nWrote {args.output}")


def check(
  config: str,
  batch_sizes: Sequence[int],
  steps: int,
  seconds: float,
) -> dict[str, Any]:
  """Runs all checks, one after the other.

  Args:
    config: named configuration whose steps are timed.
    batch_sizes: images in a step.
    steps: how many are timed for each row.
    seconds: about how long the demo is trained.

  Returns:
    What is written: {"machine", "parity", "steps", "largest_batch", "training",
    "gpus": results, or {"skipped": why}}.
  """
  gpus = tf.config.list_physical_devices("GPU")
  devices.set_up("float32")  # before anything is computed
  print("Comparing with the published code", flush=True)
  results = {
    "machine": _machine(gpus),
    "parity": _parity(PARITY_CASES),
    "steps": _step_times(config, batch_sizes, steps),
  }
  results["largest_batch"] = _largest_batch(gpus, config, max(batch_sizes))
  results["training"] = _training(seconds)
  results["gpus"] = _several_gpus(gpus, config, max(batch_sizes), steps)
  return results


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  has_gpu = bool(tf.config.list_physical_devices("GPU"))
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.gpu_check",
    description=(__doc__ or "").split("\n")[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    "--config",
    default="clevr6" if has_gpu else "tetrominoes",
    choices=reading.named_configs(),
    help="whose steps are timed",
  )
  parser.add_argument(
    "--batch-sizes",
    type=int,
    nargs="+",
    default=[4, 16, 32] if has_gpu else [2],
    help="images in a step",
  )
  parser.add_argument(
    "--steps", type=int, default=10 if has_gpu else 3, help="timed for each row"
  )
  parser.add_argument(
    "--seconds", type=float, default=60, help="for which the demo is trained"
  )
  parser.add_argument(
    "--output",
    type=pathlib.Path,
    default=pathlib.Path("gpu_check.json"),
    help="file to write",
  )
  args = parser.parse_args(arguments)
  if min(*args.batch_sizes, args.steps, 1) < 1:
    parser.error("--batch-sizes and --steps must be at least 1")
  if args.seconds < 0:
    parser.error("--seconds must be at least 0")
  return args


# --- The checks ---------------------------------------------------------------


def _machine(gpus: Sequence[Any]) -> dict[str, Any]:
  """Devices and libraries."""
  build = tf.sysconfig.get_build_info()
  details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
  installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
  return {
    "gpus": [
      {
        "name": detail.get("device_name", "unknown"),
        "compute_capability": detail.get("compute_capability"),
      }
      for detail in details
    ],
    "cpu": {"avx512": devices.has_avx512()},
    "platform": platform.platform(),
    "python": platform.python_version(),
    "commit": versions.commit(),
    "cuda": build.get("cuda_version"),
    "cudnn": build.get("cudnn_version"),
    "packages": {
      name: importlib.metadata.version(name)
      for name in _PACKAGES
      if name in installed
    },
  }


def _parity(folder: pathlib.Path) -> dict[str, Any]:
  """{case: whether it agrees}, in float32."""
  agrees = {}
  for case in parity.find(folder):
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
      agrees[case.name] = not parity.run(case).failed
    if not agrees[case.name]:
      print(report.getvalue(), flush=True)
  return agrees or {_SKIPPED: f"{folder} has no recorded cases"}


def _step_times(
  config: str, batch_sizes: Sequence[int], steps: int
) -> list[dict[str, Any]]:
  """Times steps of every precision, with XLA and without, of every batch."""
  rows = []
  for batch_size, precision, xla in itertools.product(
    batch_sizes, checks.PRECISIONS, (False, True)
  ):
    entries = {"precision": precision, "xla": xla}
    rows.append(
      {
        "batch_size": batch_size,
        **entries,
        **_measured(config, batch_size, steps, **entries),
      }
    )
  return rows


def _measured(
  config: str, batch_size: int, steps: int, **entries: Any
) -> dict[str, Any]:
  """What `train_step` measures, or why it cannot."""
  told = ", ".join(f"{key}={value}" for key, value in entries.items())
  print(f"Timing {config}, batch_size={batch_size}, {told}", flush=True)
  gc.collect()  # the model before
  try:
    devices.check_training(entries.get("precision", "float32"))
    return train_step.measure(config, batch_size, steps, **entries)
  except ConfigError as error:
    return {_SKIPPED: str(error)}
  except tf.errors.ResourceExhaustedError:
    return {_SKIPPED: "more memory is needed than there is"}


def _largest_batch(
  gpus: Sequence[Any], config: str, batch_size: int
) -> dict[str, Any]:
  """The largest batch that fits, of those that double `batch_size`."""
  if not gpus:
    return {_SKIPPED: "there is no GPU"}
  fits: dict[str, Any] = {_SKIPPED: f"not even {batch_size} images fit"}
  while batch_size <= checks.MOST_BATCH:
    measured = _measured(config, batch_size, 1)
    if _SKIPPED in measured:
      break
    fits = {
      "batch_size": batch_size,
      "images_per_s": measured["images_per_s"],
    }
    batch_size *= 2
  return fits


def _training(seconds: float) -> dict[str, Any]:
  """Trains the demo, by the command, for about so many seconds."""
  if not seconds:
    return {_SKIPPED: "--seconds=0"}
  measured = _measured("demo", 8, 3)
  if _SKIPPED in measured:
    return measured
  steps = max(int(seconds / measured["step_s"]), 2)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    command_line.main(
      [
        *("iodine", "-F", f"{folder}/record", "with", "demo", "seed=0"),
        *("batch_size=8", f"stop_after_steps={steps}"),
        *(f"save_summaries_steps={max(steps // 10, 1)}",),
        *("save_images_steps=1000000", f"checkpoint_dir={folder}/run"),
      ]
    )
    record = json.loads((folder / "record/1/metrics.json").read_text())
    run = json.loads((folder / "record/1/run.json").read_text())
  losses = record["loss"]["values"]
  return {
    "steps": steps,
    "first_loss": losses[0],
    "last_loss": losses[-1],
    "status": run["status"],
  }


def _several_gpus(
  gpus: Sequence[Any], config: str, batch_size: int, steps: int
) -> dict[str, Any]:
  """Times a step on all GPUs, each with the batch that one had before."""
  if len(gpus) < 2:
    return {_SKIPPED: f"there are {len(gpus)} GPUs"}
  return _measured(config, batch_size * len(gpus), steps, strategy="mirrored")


# --- What is printed ----------------------------------------------------------


def markdown(results: Mapping[str, Any]) -> str:
  """A summary with a table, of what `check` returns."""
  machine = results["machine"]
  names = [gpu["name"] for gpu in machine["gpus"]]
  libraries = [f"{k} {v}" for k, v in machine["packages"].items()]
  libraries += [f"{k} {machine[k]}" for k in ("cuda", "cudnn") if machine[k]]
  timed = [row for row in results["steps"] if _SKIPPED not in row]
  first = (timed or results["steps"])[0]
  lines = [
    "| | |",
    "| --- | --- |",
    f"| GPUs | {', '.join(names) or 'none'} |",
    f"| libraries | Python {machine['python']}, {', '.join(libraries)} |",
    f"| commit | {machine['commit']} |",
    f"| published code | {_parity_text(results['parity'])} |",
    f"| largest batch | {_text(results['largest_batch'])} |",
    f"| training | {_text(results['training'])} |",
    f"| all GPUs together | {_text(results['gpus'])} |",
    "",
    f"Training steps of {first.get('config', 'the configuration')}:",
    "",
    "| batch | precision | XLA | step (s) | images/s | compiling (s) |",
    "| --- | --- | --- | --- | --- | --- |",
  ]
  for row in results["steps"]:
    start = (
      f"| {row['batch_size']} | {row['precision']} "
      f"| {'yes' if row['xla'] else 'no'} |"
    )
    if _SKIPPED in row:
      lines.append(f"{start} skipped: {row[_SKIPPED]} | | |")
      continue
    lines.append(
      f"{start} {row['step_s']} | {row['images_per_s']} | {row['compile_s']} |"
    )
  return "\n".join(lines)


def _parity_text(agrees: Mapping[str, Any]) -> str:
  if _SKIPPED in agrees:
    return _text(agrees)
  wrong = [name for name, is_right in agrees.items() if not is_right]
  told = f"{len(agrees) - len(wrong)} of {len(agrees)} cases agree"
  return told + (f", not {', '.join(wrong)}" if wrong else "")


def _text(result: Mapping[str, Any]) -> str:
  return ", ".join(
    f"{key.replace('_', ' ')}: {value}" for key, value in result.items()
  )


if __name__ == "__main__":
  main()
