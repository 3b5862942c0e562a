"""Models other than IODINE, a file or a folder for each family."""

import iodine.quiet_tensorflow
