"""Scores trained models and reports the results."""

from iodine.evaluation.scores import Evaluation, Score, evaluate

__all__ = ["Evaluation", "Score", "evaluate"]
