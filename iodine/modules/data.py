"""The datasets, under the names that plans use.

(reference: modules/data.py)
"""

from iodine.data.datasets import (
  CATER,
  CLEVR,
  HDF5,
  RAVENS,
  CLEVRProperties,
  ClevrTex,
  FlatHDF5,
  ImageFolder,
  IODINEDataset,
  MOVi,
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
  "FlatHDF5",
  "HDF5",
  "IODINEDataset",
  "ImageFolder",
  "MOVi",
  "MultiDSprites",
  "NoSceneError",
  "ObjectsRoom",
  "Position",
  "RAVENS",
  "RecordDataset",
  "Shapes3D",
  "Sketchy",
  "Sprites",
  "Tetrominoes",
]
