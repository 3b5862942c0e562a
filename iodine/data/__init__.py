"""From files to batches."""

import iodine.quiet_tensorflow
