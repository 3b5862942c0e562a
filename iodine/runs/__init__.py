"""A run on disk, from its first step to its last."""
