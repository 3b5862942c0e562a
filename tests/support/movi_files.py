"""Small MOVi datasets, written by TensorFlow Datasets."""

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

FRAMES, SIDE = 24, 128
_LABELS = {
  "shape_label": ["cube", "cylinder", "sphere"],
  "size_label": ["small", "large"],
  "color_label": ["blue", "brown", "cyan"],
  "material_label": ["metal", "rubber"],
}


def video(seed: int, num_instances: int) -> dict[str, Any]:
  """A video and its instances, as Kubric describes them.

  Frames differ; instance i has the value i + 1 in `segmentations`, and owns
  row i + 1 of each frame.
  """
  rng = np.random.default_rng(seed)
  frames = np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
  labels = np.zeros([FRAMES, SIDE, SIDE, 1], np.uint8)
  rows = 1 + np.arange(num_instances)
  labels[:, rows] = rows[:, None, None]
  return {
    "video": np.broadcast_to(frames + 10 * seed, [FRAMES, SIDE, SIDE, 3]),
    "segmentations": labels,
    "instances": [
      {
        "mass": 1.0,
        "image_positions": rng.random([FRAMES, 2], dtype=np.float32),
        "visibility": np.full([FRAMES], SIDE, np.uint16),
        "color": rng.random(3, dtype=np.float32),
        **{
          name: int(rng.integers(len(names))) for name, names in _LABELS.items()
        },
      }
      for _ in range(num_instances)
    ],
    "metadata": {"num_instances": num_instances},
  }


def write(
  folder: pathlib.Path,
  splits: dict[str, list[dict[str, Any]]],
  level: str = "a",
  without: tuple[str, ...] = (),
) -> None:
  """Writes a level at 128 x 128.

  Args:
    folder: of TensorFlow Datasets.
    splits: the videos of each.
    level: of MOVi; "a" has labels of instances.
    without: names of features to leave out.
  """
  import tensorflow_datasets as tfds

  instances = {
    "mass": tf.float32,
    "image_positions": tfds.features.Tensor(
      shape=(FRAMES, 2), dtype=tf.float32
    ),
    "visibility": tfds.features.Tensor(shape=(FRAMES,), dtype=tf.uint16),
  }
  if level == "a":
    instances["color"] = tfds.features.Tensor(shape=(3,), dtype=tf.float32)
    for name, names in _LABELS.items():
      instances[name] = tfds.features.ClassLabel(names=names)
  instances = {k: v for k, v in instances.items() if k not in without}
  features = {
    "metadata": {"num_instances": tf.uint16},
    "instances": tfds.features.Sequence(feature=instances),
    "video": tfds.features.Video(shape=(FRAMES, SIDE, SIDE, 3)),
    "segmentations": tfds.features.Sequence(
      tfds.features.Image(shape=(SIDE, SIDE, 1), dtype=tf.uint8),
      length=FRAMES,
    ),
  }
  features = {k: v for k, v in features.items() if k not in without}

  def cut(example: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in example.items() if k in features}
    kept["instances"] = [
      {k: x[k] for k in instances} for x in example["instances"]
    ]
    return kept

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = f"movi_{level}"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"{SIDE}x{SIDE}")]

    def _info(self) -> Any:
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, manager: Any) -> Any:
      del manager
      return {
        split: list(enumerate(map(cut, videos)))
        for split, videos in splits.items()
      }

    def _generate_examples(self) -> Any:
      return iter(())

  Builder(data_dir=folder, config=f"{SIDE}x{SIDE}").download_and_prepare()
