"""The port: IODINE and its parts, by the names of the reference."""

# By a name of its own: `iodine` is a module of this package.
import iodine.quiet_tensorflow as _quiet_tensorflow
