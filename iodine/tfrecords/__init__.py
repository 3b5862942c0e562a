"""Reads TFRecord files, and diagnoses damaged ones."""
