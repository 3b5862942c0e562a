"""Reading of TFRecord files, which may be damaged."""
