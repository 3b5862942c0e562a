"""Figures, animations and pages of what a model computed."""
