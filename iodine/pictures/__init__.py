"""Figures, animations and pages of what a model computed."""

import iodine.quiet_tensorflow
