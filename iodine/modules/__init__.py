"""The model, its parts, its data and its pictures."""
