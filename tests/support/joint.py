"""A model that decodes the slots of a scene jointly, in two steps."""

from typing import Any

import numpy as np
import tensorflow as tf

from iodine.scene_model import Composition, Loss, SceneModel


class Joint(SceneModel):
  """Slots are colours, their masks vertical stripes; no mask logits.

  A scene is as bright as the mean of its slots' colours, squared.
  """

  def __init__(self, num_components: int = 3):
    super().__init__(name="joint")
    self.num_components = num_components
    self.n_z = 3
    self.num_steps = 2

  def __call__(self, data, noise=None, seed=None, step=None) -> Loss:
    raise NotImplementedError

  def infer(self, data, noise=None, seed=None) -> dict[str, Any]:
    data = self.check_data(data)
    width = self.image_shape[1]
    owners = np.arange(width) * self.num_components // width
    masks = np.eye(self.num_components, dtype=np.float32)[owners].T
    masks = tf.broadcast_to(
      masks[:, None, :, None],
      [len(data["image"]), 2, self.num_components, *self.image_shape[:2], 1],
    )
    z = tf.random.stateless_uniform(
      [len(data["image"]), self.num_components, self.n_z], seed
    )
    z = tf.stack([0.5 * z, z], axis=1)
    recons = tf.stack([data["image"]] * 2, axis=1)
    return {
      "data": self.data_entry(data),
      "outputs": {
        "recons": recons,
        "pred_mask": masks,
        "components": recons * masks + 1.0 - masks,
        "attention": masks,
      },
      "latent": {"z": z},
    }

  def noise(self, rngs) -> None:
    return None

  def compose(self, z: tf.Tensor) -> Composition:
    height, width, _ = self.image_shape
    colors = tf.reduce_mean(z, axis=1)[:, None, None] ** 2
    return Composition(tf.tile(colors, [1, height, width, 1]))
