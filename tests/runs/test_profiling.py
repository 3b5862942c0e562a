"""Tests of iodine.runs.profiling."""

import pytest
import tensorflow as tf

from iodine.runs import profiling


@pytest.fixture(name="calls")
def fixture_calls(monkeypatch):
  """What the profiler is told: "start", "stop" and numbers of steps."""
  calls = []
  profiler = tf.profiler.experimental

  class Trace(profiler.Trace):
    def __init__(self, name, step_num, _r):
      calls.append(step_num)
      super().__init__(name, step_num=step_num, _r=_r)

  for name in ("start", "stop"):
    function = getattr(profiler, name)
    monkeypatch.setattr(
      profiler,
      name,
      lambda *args, name=name, function=function: (
        calls.append(name),
        function(*args),
      ),
    )
  monkeypatch.setattr(profiler, "Trace", Trace)
  return calls


def _take_steps(folder, numbers):
  with profiling.StepProfiler(folder, num_steps=3) as profiler:
    for number in numbers:
      with profiler.step(number):
        tf.reduce_sum(tf.ones([8])).numpy()


def test_traces_the_steps_after_the_first(calls, tmp_path):
  _take_steps(tmp_path, range(7, 14))
  assert calls == ["start", 8, 9, 10, "stop"]
  (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
  assert trace.stat().st_size > 0


def test_a_run_that_ends_early_is_traced(calls, tmp_path):
  _take_steps(tmp_path, [7, 8])
  assert calls == ["start", 8, "stop"]
  assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == 1


def test_a_step_that_fails_ends_the_trace(calls, tmp_path):
  def numbers():
    yield from (1, 2)
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    _take_steps(tmp_path, numbers())
  assert calls == ["start", 2, "stop"]


def test_nothing_is_traced_without_a_folder(calls):
  _take_steps(None, range(5))
  assert not calls
