"""What TensorFlow can compute on this processor."""

import pathlib

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def _has_avx512() -> bool:
  """Whether there is AVX-512; unknown, as on macOS, counts as yes."""
  return not _CPUINFO.exists() or "avx512f" in _CPUINFO.read_text()


# Without it, TensorFlow 2.21 leaves oneDNN out: it then sums gradients of
# bfloat16 in bfloat16, and has none of dilated convolutions.
HAS_AVX512 = _has_avx512()
