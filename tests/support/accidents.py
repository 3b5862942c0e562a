"""Scripts that run a command until an accident ends it, for `python -c`."""

# A thread that kills its process as soon as a file of such a name appears.
KILLED_AT_FILE = """
import os, pathlib, signal, sys, threading
folder, pattern, *words = sys.argv[1:]
sys.setswitchinterval(1e-4)

def watch():
  while not any(pathlib.Path(folder).glob(pattern)):
    pass
  os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
from iodine import main
main.main(["iodine", *words])
"""
# Files cannot grow beyond a number of bytes.
LIMITED = """
import resource, sys
limit, *words = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
from iodine import main
main.main(["iodine", *words])
"""
