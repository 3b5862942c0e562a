"""Readers and metrics with the interface of DeepMind's package of that name.

Each reader module has a function `dataset` that opens TFRecord files of the
Multi-Object Datasets (Kabra et al., 2019) as an unbatched `tf.data.Dataset`.
Modules, functions, keys, shapes, dtypes and values match
https://github.com/deepmind/multi_object_datasets, but for TensorFlow 2. They
also work in graph mode, with sessions and `make_one_shot_iterator`; damage and
files of another dataset are then errors of the session.
"""

import iodine.quiet_tensorflow
