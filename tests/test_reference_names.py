"""Whoever knows the reference finds its names.

They are in the file of the same name in iodine/modules, or at the place that
`_MOVED` tells.
"""

import importlib
import pathlib

import pytest

import iodine.modules
from iodine.modules.iodine import IODINE

# Public names of the reference, file by file.
_REFERENCE = {
  "data": ("IODINEDataset", "CLEVR", "MultiDSprites", "Tetrominoes"),
  "decoder": ("ComponentDecoder",),
  "distributions": (
    "DistributionModule",
    "BernoulliOutput",
    "LocScaleDistribution",
    "MaskedMixture",
  ),
  "factor_eval": ("FactorRegressor",),
  "iodine": ("IODINE",),
  "networks": ("CNN", "MLP", "DeConv", "BroadcastConv", "LSTM"),
  "plotting": (
    "clean_ax",
    "example_plot",
    "inputs_plot",
    "iterations_plot",
    "show_coords",
    "show_img",
    "show_mask",
    "show_mat",
  ),
  "refinement": ("RefinementCore", "ResHead", "PredictorCorrectorHead"),
  "utils": (
    "ACT_FUNCS",
    "DISTS",
    "OnlineMeanVarEstimator",
    "build",
    "color_transform",
    "construct_diagnostic_image",
    "construct_iterations_image",
    "get_act_func",
    "get_distribution",
    "get_mask_plot_colors",
    "images_to_grid",
  ),
}
# What is in a module of another name.
_MOVED = {
  **{
    f"plotting.{name}": "iodine.pictures.panels"
    for name in _REFERENCE["plotting"]
    if not name.endswith("_plot")
  },
  "plotting.example_plot": "iodine.pictures.decompositions",
  "plotting.inputs_plot": "iodine.pictures.refinements",
  "plotting.iterations_plot": "iodine.pictures.refinements",
  "utils.color_transform": "iodine.pictures.tiles",
  "utils.construct_diagnostic_image": "iodine.pictures.tiles",
  "utils.construct_iterations_image": "iodine.pictures.tiles",
  "utils.get_mask_plot_colors": "iodine.pictures.colors",
  "utils.images_to_grid": "iodine.pictures.tiles",
}


@pytest.mark.parametrize(
  "name",
  [f"{file}.{name}" for file, names in _REFERENCE.items() for name in names],
)
def test_a_name_of_the_reference_is_found(name):
  file, _, attribute = name.partition(".")
  place = _MOVED.get(name, f"iodine.modules.{file}")
  module = importlib.import_module(place)
  assert attribute in module.__all__
  assert hasattr(module, attribute)


@pytest.mark.parametrize("method", ["encode", "decode", "eval"])
def test_the_model_has_the_references_methods(method):
  assert callable(getattr(IODINE, method))


def test_what_the_reference_has_not_got_begins_with_an_underscore():
  (folder,) = map(pathlib.Path, iodine.modules.__path__)
  files = {p.stem for p in folder.glob("*.py") if not p.name.startswith("_")}
  assert files == set(_REFERENCE) - {"plotting"}
