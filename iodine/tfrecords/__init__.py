"""Reads TFRecord files, and diagnoses damaged ones."""

import iodine.quiet_tensorflow
