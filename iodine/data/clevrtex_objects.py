"""What the JSON file of a ClevrTex scene says of its objects.

Names are those of karazijal/clevrtex-generation: `data/*.json`, `MATERIALS.md`
and `ERRATA.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["FACTORS", "MATERIALS", "MOST_OBJECTS", "read_objects"]

MOST_OBJECTS = 10
# The second four are of the variant outd.
_SHAPES = (
  *("cube", "sphere", "cylinder", "monkey"),
  *("cone", "icosahedron", "torus", "teapot"),
)
_SIZES = ("small", "medium", "large")
_COLORS = (
  *("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
)
# A file's name is in lower case, most after "poliigon".
_MATERIALS = """
  Bricks01 BricksFlemishRed001 BricksPaintedWhite001 CarpetTwistNatural001
  ChainmailCopperRoundedThin001 CityStreetAsphaltGenericCracked002
  CityStreetRoadAsphaltTwoLaneWorn001 CliffJagged004 CobblestoneArches002
  ConcreteWall001 FabricDenim003 FabricFleece001 FabricLeatherBuffaloRustic001
  FabricRope001 FabricUpholsteryMidCenturyPebbles001 GroundClay002
  GroundDirtForest014 GroundDirtRocky002 GroundForest003 GroundForest008
  GroundForestMulch001 GroundForestRoots001 GroundMoss001 GroundSnowPitted003
  GroundTireTracks001 InteriorDesignRugStarryNight001 Marble062 Marble13
  MetalCorrodedHeavy001 MetalCorrugatedIronSheet002 MetalDesignerWeaveSteel002
  MetalPanelRectangular001 MetalSpottyDiscoloration001
  MetalStainlessSteelBrushed Plaster07 Plaster17 RoadCityWorn001
  RoofTilesTerracotta004 RustMixedOnPaint012 RustPlain007
  SolarPanelsPolycrystallineTypeBFramedClean001 StoneBricksBeige015
  StoneMarbleCalacatta004 TerrazzoVenetianMatteWhite001 Tiles05
  TilesMarbleChevronCreamGrey001 TilesMarbleSageGreenBrickBondHoned001
  TilesOnyxOpaloBlack001 TilesRectangularMirrorGray001 WallMedieval003
  WaterDropletsMixedBubbled001 WoodFineDark004 WoodFlooring044 WoodFlooring061
  WoodFlooringMahoganyAfricanSanded001 WoodFlooringMerbauBrickBondNatural001
  WoodPlanks028 WoodPlanksWorn33 WoodQuarteredChiffon001 WhiteMarble

  Rubber MyMetal TabulaRasa

  BrickOldRed001 CarpetPlushDesignerRhombus001 ChainmailGoldRounded001
  ChippedPaint015 CliffJagged007 DrywallPrepared007
  FabricUpholsteryPyramidsPattern001 GroundClay006 GroundClay008
  GroundDirtForestRoots004 GroundDirtRocky006 GroundGrassGreen GroundRocky006
  GroundRocky014 GroundSandFootprintsLeaves001 MetalSiding004
  MetalStainlessSteelBraided001 PanelsAcousticFoamTiles004 PlasterSloppy
  RoofTilesCeramic001 RoofTilesCopper003 RoofTilesQuarry001 RustPlain030
  SteelFloorDiamond001 TilesTerrazzoPalladianaHonedGreen001
"""
MATERIALS = tuple(_MATERIALS.split())
_PREFIX = "poliigon"
# What the files call a material by mistake.
_MISLABELLED = {
  "fabricupholsterybrightanglepattern001": (
    "fabricupholsterymidcenturypebbles001"
  )
}
_NAMES = {
  "color": _COLORS,
  "material": tuple(name.lower() for name in MATERIALS),
  "shape": _SHAPES,
  "size": _SIZES,
}
_COORDINATES = {"position": "pixel_coords", "location": "3d_coords"}
# {name: (NumPy's dtype, n)}
FACTORS = {
  **dict.fromkeys(_NAMES, ("uint8", 1)),
  **dict.fromkeys(_COORDINATES, ("float32", 3)),
  "rotation": ("float32", 1),
}


def read_objects(path: str, index: int) -> tuple[int, dict[str, np.ndarray]]:
  """Reads what a scene's JSON file says of its objects.

  Args:
    path: path of the file.
    index: number of the scene, counted from 0, that must be in the file.

  Returns:
    The number of objects in the whole image, and {name: [L, n]} for the names
    in `FACTORS`, with L = 1 + `MOST_OBJECTS`: entity i is the object of label i
    in the mask; zeros for the background and for absent objects. Categories are
    counted from 1. position is (x, y) in pixels of the whole image and the
    depth, location (x, y, z) in scene units, rotation in degrees.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: names the file and what is wrong with it.
  """
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
    if content["image_index"] != index:
      raise ValueError(
        f"it is of image {content['image_index']}, not {index}. Was it renamed?"
      )
    objects = content["objects"]
    labels = sorted(entry["index"] for entry in objects)
    if labels != list(range(1, len(objects) + 1)) or len(labels) > MOST_OBJECTS:
      raise ValueError(
        f"its objects have the indices {labels}; expected 1, 2, ... up to "
        f"{MOST_OBJECTS} at most"
      )
    return len(objects), _factors(objects)
  except FileNotFoundError:
    raise
  except OSError as error:
    raise ValueError(f"{path}: {error.strerror}.") from None
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(
      f"{path}: damaged or cut off ({error}). Copy it again."
    ) from None
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{path}: not as ClevrTex's files are ({type(error).__name__}: {error}). "
      "Copy it again."
    ) from None
  except ValueError as error:
    raise ValueError(f"{path}: {error}.") from None


def _factors(objects: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  factors = {
    name: np.zeros([1 + MOST_OBJECTS, size], dtype)
    for name, (dtype, size) in FACTORS.items()
  }
  for entry in objects:
    entity = entry["index"]
    for name in _NAMES:
      factors[name][entity] = _category(name, entry[name])
    for name, key in _COORDINATES.items():
      factors[name][entity] = entry[key]
    factors["rotation"][entity] = entry["rotation"]
  return factors


def _category(kind: str, name: str) -> int:
  """The number of a name, counted from 1; raises ValueError."""
  plain = name.lower()
  if kind == "material":
    plain = plain.removeprefix(_PREFIX)
    plain = _MISLABELLED.get(plain, plain)
  if plain not in _NAMES[kind]:
    raise ValueError(
      f"{kind} {name!r} is none of ClevrTex's; metadata=False reads scenes "
      "without their factors"
    )
  return 1 + _NAMES[kind].index(plain)
