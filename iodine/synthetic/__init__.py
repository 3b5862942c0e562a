"""Synthetic scenes in the TFRecord format of the real datasets.

`python -m iodine.synthetic tetrominoes --scenes 10000 --seed 0 --output FILE`
writes a file that the readers of the real dataset read as they are. A dataset
is a module here that says what its scenes hold and samples them, and one entry
in the table of `__main__.py`. `raycasting.py` draws those that are spatial.
"""
