"""Synthetic scenes in the TFRecord format of the real datasets.

`python -m iodine.synthetic tetrominoes --scenes 10000 --seed 0 --output FILE`
writes a file that the readers of the real dataset can read. Each dataset is a
module that defines its features and samples scenes, and an entry in the table
of `__main__.py`. `raycasting.py` renders the 3D scenes.
"""

import iodine.quiet_tensorflow
