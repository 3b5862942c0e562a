"""The datasets, under the names that plans use.

(reference: modules/data.py)
"""

from iodine.data.datasets import (
  CATER,
  CLEVR,
  HDF5,
  CLEVRProperties,
  ClevrTex,
  ImageFolder,
  IODINEDataset,
  MultiDSprites,
  NoSceneError,
  ObjectsRoom,
  Position,
  RecordDataset,
  Shapes3D,
  Sketchy,
  Sprites,
  Tetrominoes,
)

__all__ = [
  "CATER",
  "CLEVR",
  "CLEVRProperties",
  "ClevrTex",
  "HDF5",
  "IODINEDataset",
  "ImageFolder",
  "MultiDSprites",
  "NoSceneError",
  "ObjectsRoom",
  "Position",
  "RecordDataset",
  "Shapes3D",
  "Sketchy",
  "Sprites",
  "Tetrominoes",
]
