"""Runs the sub-batches of a training step in turn or on replicas.

A batch is split into consecutive sub-batches of equal size, and the step uses
the mean over them. Each replica (a device) runs `accumulate` of them in turn;
replicas run in parallel. Up to rounding, the result depends only on the number
of sub-batches: four replicas compute the same as one device with accumulate=4.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import tensorflow as tf

from iodine import signals
from iodine.errors import ConfigError, RunError

__all__ = [
  "Cluster",
  "Distribution",
  "cluster_of_environment",
  "create",
  "warn_without_gpu",
]

_LOG = logging.getLogger(__name__)

_EXAMPLE = (
  '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
  '"task": {"type": "worker", "index": 0}}'
)
# Errors of collective operations when a worker is lost.
_LOST = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.FailedPreconditionError,
  tf.errors.InternalError,
  tf.errors.UnavailableError,
)


class Cluster(NamedTuple):
  """The processes that train together.

  Attributes:
    workers: "host:port" of each, chief first.
    rank: index of this process among the workers.
  """

  workers: tuple[str, ...]
  rank: int

  @property
  def is_chief(self) -> bool:
    """Whether this process writes the run's folder and records."""
    return self.rank == 0


def cluster_of_environment() -> Cluster:
  """Reads $TF_CONFIG.

  Raises:
    ConfigError: if it is missing or malformed.
  """
  text = os.environ.get("TF_CONFIG", "")
  try:
    return _parse_cluster(text)
  except (ValueError, TypeError, AttributeError, KeyError) as error:
    reason = f"there is no {error}" if isinstance(error, KeyError) else error
    raise ConfigError(
      f"strategy=multi_worker: TF_CONFIG={text!r}: {reason}. It names all "
      f"workers, alike everywhere, and which of them a process is: {_EXAMPLE}"
    ) from error


def _parse_cluster(text: str) -> Cluster:
  if not text:
    raise ValueError("is not set")
  entries = json.loads(text)
  if not isinstance(entries, dict):
    raise ValueError("must be a mapping")
  cluster, task = entries["cluster"], entries["task"]
  if unknown := sorted(set(cluster) - {"chief", "worker"}):
    raise ValueError(f"there is no use for the jobs {unknown}")
  kind, index = task["type"], task["index"]
  if index not in range(len(cluster[kind])) or isinstance(index, bool):
    raise ValueError(f"its cluster has no task {kind} {index!r}")
  chiefs = tuple(cluster.get("chief", ()))
  workers = chiefs + tuple(cluster.get("worker", ()))
  for worker in workers:
    host, _, port = str(worker).rpartition(":")
    if not (host and port.isdecimal()):
      raise ValueError(f"{worker!r} is not of the form host:port")
  if len(chiefs) > 1 or len(set(workers)) < len(workers):
    raise ValueError("workers must differ, and only one be the chief")
  return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
  """Number of sub-batches of a step, and the devices that run them.

  Attributes:
    accumulate: number of sub-batches that a replica runs in turn.
    strategy: strategy that provides the replicas; None: a single device.
    num_workers: number of processes that train together.
    is_chief: whether this process writes the run's folder and records.
  """

  accumulate: int = 1
  strategy: tf.distribute.Strategy | None = None
  num_workers: int = 1
  is_chief: bool = True

  @property
  def num_replicas(self) -> int:
    """Number of replicas of all workers."""
    if self.strategy is None:
      return 1
    return int(self.strategy.num_replicas_in_sync)

  @property
  def num_sub_batches(self) -> int:
    """Number of sub-batches of a step."""
    return self.num_replicas * self.accumulate

  def scope(self) -> contextlib.AbstractContextManager:
    """Scope for creating variables on all replicas."""
    if self.strategy is None:
      return contextlib.nullcontext()
    return self.strategy.scope()

  def run(self, fn: Callable[..., Any], *args: Any) -> Any:
    """Calls fn on every replica; call it within a compiled function.

    Args:
      fn: function of tensors.
      *args: arguments of fn, the same for all replicas of this process.

    Returns:
      The result of the first replica of this process.
    """
    if self.strategy is None:
      return fn(*args)
    return tf.nest.map_structure(
      lambda x: cast(Any, self.strategy).experimental_local_results(x)[0],
      self.strategy.run(fn, args=args),
    )

  def mean(self, fn: Callable[[Any], Any]) -> Any:
    """Mean of fn over all sub-batches; call it within `run`.

    Args:
      fn: function of the index of a sub-batch, an integer or scalar int32; it
        returns a nested structure of float32 tensors and None.

    Returns:
      The structure, the same on every replica.
    """
    if self.num_replicas == 1:
      return _mean_in_turn(fn, 0, self.accumulate)
    context = tf.distribute.get_replica_context()
    first = context.replica_id_in_sync_group * self.accumulate
    return self.mean_of_replicas(_mean_in_turn(fn, first, self.accumulate))

  def mean_of_replicas(self, value: Any) -> Any:
    """Mean of nested float32 tensors and None; call it within `run`.

    All replicas get bit-identical results, so their weights never diverge.
    """
    if self.num_replicas == 1:
      return value
    context = tf.distribute.get_replica_context()
    flat = tf.nest.flatten(value)
    means = iter(context.all_reduce("mean", [x for x in flat if x is not None]))
    flat = [None if x is None else next(means) for x in flat]
    return tf.nest.pack_sequence_as(value, flat)

  def sum_of_replicas(self, tensors: Any) -> Any:
    """Sums of nested float32 tensors; call it within `run`."""
    if self.num_replicas == 1 or not tf.nest.flatten(tensors):
      return tensors
    context = tf.distribute.get_replica_context()
    return context.all_reduce("sum", tensors)

  def from_chief(self, values: Sequence[Any]) -> list[tf.Tensor]:
    """Gives all workers the chief's values; call it outside `run`.

    Args:
      values: integers, tensors or variables, with the same shapes and types on
        all workers.

    Returns:
      The chief's values as tensors.
    """
    dtypes = [tf.int64 if isinstance(x, int) else x.dtype for x in values]
    tensors = [
      tf.convert_to_tensor(x, dtype)
      for x, dtype in zip(values, dtypes, strict=True)
    ]
    return tensors if self.num_workers == 1 else self._sum(tensors, 0)

  def check_alike(self, entries: Any) -> None:
    """Checks that this worker has the chief's configuration entries.

    Raises:
      ConfigError: if they differ.
    """
    text = json.dumps(entries, sort_keys=True, default=repr)
    digest = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
    if int(self.from_chief([digest])[0]) != digest:
      raise ConfigError(
        "strategy=multi_worker: this worker's configuration is not the chief's;"
        " give all workers the same command"
      )

  def any(self, flag: bool) -> bool:
    """Whether a flag is set on any worker; call it outside `run`."""
    if self.num_workers == 1:
      return flag
    flags = [tf.constant(int(flag), tf.int64)]
    return bool(self._sum(flags, None)[0] > 0)

  @functools.cached_property
  def _sum(self) -> Callable[..., list[tf.Tensor]]:
    """Sums over all replicas, or over the replica `only` alone."""

    def add(values, only):
      context = tf.distribute.get_replica_context()
      counts: Any = True
      if only is not None:
        counts = tf.equal(context.replica_id_in_sync_group, only)
      return [
        context.all_reduce("sum", tf.where(counts, x, tf.zeros_like(x)))
        for x in values
      ]

    return tf.function(
      lambda values, only: self.run(lambda x: add(x, only), values),
      autograph=False,
    )

  @contextlib.contextmanager
  def explain_lost_workers(
    self, what_is_saved: Callable[[], str] = lambda: ""
  ) -> Iterator[None]:
    """Converts TensorFlow's errors for a lost worker to a RunError."""
    try:
      yield
    except _LOST as error:
      if self.num_workers == 1:
        raise
      lines = str(error.message).splitlines()
      told = [line for line in lines if "aborted by" in line] or lines
      raise RunError(
        f"Another worker is lost ({told[0].strip()}). {what_is_saved()} Start "
        f"the remaining workers with a TF_CONFIG of their own; "
        f"`continue_run=True checkpoint_dir=...` resumes from it."
      ) from error


def _mean_in_turn(fn: Callable[[Any], Any], first: Any, count: int) -> Any:
  """Mean of fn(first), fn(first + 1), ..., with only one in memory."""
  if count == 1:
    return fn(first)
  # Compiled once, so that its output structure is known before the loop.
  compiled = tf.function(fn, autograph=False).get_concrete_function(
    tf.TensorSpec([], tf.int32)
  )
  structure = compiled.structured_outputs

  def add(i: tf.Tensor, sums: list[tf.Tensor]) -> tuple:
    values = [x for x in tf.nest.flatten(compiled(i)) if x is not None]
    return i + 1, [a + b for a, b in zip(sums, values, strict=True)]

  first = tf.cast(first, tf.int32)
  _, sums = tf.while_loop(
    lambda i, _: i < first + count,
    add,
    (first, [tf.zeros(x.shape, x.dtype) for x in compiled.outputs]),
    parallel_iterations=1,
    maximum_iterations=count,
  )
  means = iter([x / count for x in sums])
  return tf.nest.pack_sequence_as(
    structure,
    [None if x is None else next(means) for x in tf.nest.flatten(structure)],
  )


def create(strategy: str | None, accumulate: int) -> Distribution:
  """Makes the configured distribution.

  "multi_worker" must be created before TensorFlow executes anything, and waits
  for the other workers.

  Args:
    strategy: None (one device), "mirrored" (all GPUs of this machine; without
      a GPU, all logical CPU devices) or "multi_worker" (all GPUs of all
      processes in $TF_CONFIG).
    accumulate: number of sub-batches that a replica runs in turn.

  Raises:
    ConfigError: if TF_CONFIG is missing or invalid.
  """
  if strategy is None:
    return Distribution(accumulate)
  if strategy == "mirrored":
    return Distribution(accumulate, _mirrored())
  cluster = cluster_of_environment()
  return Distribution(
    accumulate,
    _multi_worker(cluster),
    num_workers=len(cluster.workers),
    is_chief=cluster.is_chief,
  )


def warn_without_gpu() -> None:
  """Warns if TensorFlow finds no GPU, unless the user hides them."""
  hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
  if hidden or tf.config.list_physical_devices("GPU"):
    return
  _LOG.warning(
    "No GPU found; using the CPU (%s cores). Large models will be slow. If "
    "there is a GPU, `pip install 'tensorflow[and-cuda]'` installs what it "
    "needs. CUDA_VISIBLE_DEVICES=-1 silences this.",
    os.cpu_count(),
  )


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
  devices = tf.config.list_logical_devices("GPU")
  devices = devices or tf.config.list_logical_devices("CPU")
  if len(devices) == 1:
    _LOG.warning(
      "strategy=mirrored: there is only one device, %s", devices[0].name
    )
  return tf.distribute.MirroredStrategy([device.name for device in devices])


@functools.cache
def _multi_worker(cluster: Cluster) -> tf.distribute.Strategy:
  own = cluster.workers[cluster.rank]
  _LOG.info(
    "Worker %s of %s, %s: waiting for all of %s",
    cluster.rank + 1,
    len(cluster.workers),
    own,
    ", ".join(cluster.workers),
  )
  try:
    # Python handles no signals while TensorFlow waits: let Ctrl-C end it. It
    # also installs a handler that ignores SIGTERM.
    with signals.fatal():
      return tf.distribute.MultiWorkerMirroredStrategy()
  except tf.errors.OpError as error:
    raise ConfigError(
      f"strategy=multi_worker: {own} of TF_CONFIG cannot be used by this "
      f"process ({error.message}); is another one using the port?"
    ) from error
