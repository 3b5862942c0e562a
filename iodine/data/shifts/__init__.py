"""Distribution shifts: scenes unlike those that a model was trained on.

The shifts of Dittadi et al. (2022), "Generalization and Robustness Implications
in Object-Centric Learning". Each one either changes preprocessed scenes or
selects among stored ones. What is random depends on the shift's seed and on the
scene's number alone: not on batches, order, workers or the cache. The shift of
a video is the same in all of its frames.
"""

import iodine.quiet_tensorflow

from iodine.data.shifts.base import Shift
from iodine.data.shifts.by_name import SHIFTS, fault, resolve

__all__ = ["SHIFTS", "Shift", "fault", "resolve"]
