"""Scores of a trained model, and their report."""

from iodine.evaluation.scores import Evaluation, Score, evaluate

__all__ = ["Evaluation", "Score", "evaluate"]
