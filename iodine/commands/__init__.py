"""What the commands do, a file each, given a whole configuration."""

import iodine.quiet_tensorflow

from iodine.commands.compare import compare
from iodine.commands.compose import compose
from iodine.commands.convert import convert_checkpoint, export_tf1
from iodine.commands.decompose import decompose
from iodine.commands.describe_data import describe_data
from iodine.commands.evaluate import evaluate
from iodine.commands.inspect import inspect_checkpoint
from iodine.commands.probe import probe
from iodine.commands.sample import sample
from iodine.commands.train import prepare, train
from iodine.commands.traverse import traverse
from iodine.commands.visualize import visualize

__all__ = [
  "compare",
  "compose",
  "convert_checkpoint",
  "decompose",
  "describe_data",
  "evaluate",
  "export_tf1",
  "inspect_checkpoint",
  "prepare",
  "probe",
  "sample",
  "train",
  "traverse",
  "visualize",
]
