"""Scores trained models and reports the results."""

import iodine.quiet_tensorflow

from iodine.evaluation.scores import Evaluation, Score, evaluate

__all__ = ["Evaluation", "Score", "evaluate"]
