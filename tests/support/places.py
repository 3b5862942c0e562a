"""Where the repository and its recorded cases lie."""

import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Tiny recorded cases of the reference, which are part of the repository.
PARITY = REPOSITORY / "tests" / "parity"
# What lies beside a checkout; tests that need it are skipped without.
SHARED = REPOSITORY.parent / "shared"
REAL_SCENES = SHARED / "data" / "tetrominoes_mini.tfrecords"
