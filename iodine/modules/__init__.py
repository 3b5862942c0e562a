"""The port: IODINE and its parts, by the names of the reference."""

import iodine.quiet_tensorflow
