"""Synthetic scenes in the TFRecord format of the real datasets.

`python -m iodine.synthetic tetrominoes --scenes 10000 --seed 0 --output FILE`
writes a file that the readers of the real dataset read as they are. A dataset
is one module here (what its scenes hold and how they are drawn) and one entry
in the table of `__main__.py`.
"""
