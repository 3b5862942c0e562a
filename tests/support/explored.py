"""Results of `iodine.exploration` made of random numbers, for figures."""

import numpy as np

from iodine.exploration import (
  Collage,
  Composition,
  Edited,
  Removal,
  Swap,
  Traversal,
)

# Odd and distinct, so that swapped axes fail.
R, N, H, W = 3, 5, 7, 9


def uniform(*shape, seed=0):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def traversal(
  rows=R, columns=N, channels=3, slot=2, range_of="posterior", alone=True
) -> Traversal:
  return Traversal(
    slot=slot,
    latents=np.arange(rows)[::-1] + 120,
    importance=np.linspace(12.345, 0.01, rows),
    offsets=np.linspace(-2.0, 2.0, columns),
    current=np.linspace(-1.25, 9.0, rows),
    range_of=range_of,
    components=uniform(rows, columns, H, W, channels) if alone else None,
    masks=uniform(rows, columns, H, W, 1, seed=1) if alone else None,
    scenes=uniform(rows, columns, H, W, channels, seed=2),
  )


def composition(*leading, num_slots=4, channels=3, seed=0) -> Composition:
  masks = uniform(*leading, num_slots, H, W, 1, seed=seed)
  return Composition(
    uniform(*leading, H, W, channels, seed=seed + 1),
    masks / masks.sum(axis=-4, keepdims=True),
  )


def removal(num_slots=4, channels=3) -> Removal:
  sizes = {"num_slots": num_slots, "channels": channels}
  return Removal(
    uniform(H, W, channels),
    composition(**sizes, seed=1),
    composition(num_slots, **sizes, seed=3),
  )


def swap(num_slots=4, channels=3) -> Swap:
  sizes = {"num_slots": num_slots, "channels": channels}
  return Swap(
    (num_slots - 1, 0),
    uniform(2, H, W, channels),
    composition(2, **sizes, seed=1),
    uniform(2, H, W, channels, seed=5),
    composition(2, **sizes, seed=3),
  )


def collage(chosen, scenes=(0, 3), num_slots=4, channels=3) -> Collage:
  num_scenes = len(scenes)
  return Collage(
    scenes,
    tuple(chosen),
    uniform(num_scenes, H, W, channels),
    uniform(num_scenes, H, W, channels, seed=1),
    uniform(num_scenes, num_slots, H, W, channels, seed=2),
    composition(num_scenes, num_slots=num_slots, seed=3).masks,
    composition(num_slots=len(chosen), channels=channels, seed=5),
  )


def edited(
  num_slots=4, channels=3, slots_are_edited=True, has_masks=True, places=None
) -> Edited:
  sizes = {"num_slots": num_slots, "channels": channels}
  after = composition(**sizes, seed=1)
  return Edited(
    image=uniform(H, W, channels),
    before=composition(**sizes, seed=3),
    after=after if has_masks else Composition(after.recons),
    components=uniform(num_slots, H, W, channels, seed=5),
    masks=after.masks,
    slots_are_edited=slots_are_edited,
    places=places,
  )
