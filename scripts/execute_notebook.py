"""Executes a notebook and stores it as a code host can show it.

  python scripts/execute_notebook.py Eval.ipynb

The stored file holds pictures and text, and nothing of the machine or the time.
Views of widgets are left out: without a running kernel they show nothing, where
the picture that comes with them does.
"""

import pathlib
import sys

import nbclient
import nbformat

_TIMEOUT = 3600  # seconds a cell may take
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_METADATA = {
  "kernelspec": {
    "display_name": "Python 3",
    "language": "python",
    "name": "python3",
  },
  "language_info": {"name": "python"},
}


def execute(
  notebook: nbformat.NotebookNode, folder: pathlib.Path
) -> nbformat.NotebookNode:
  """Runs all cells in a folder.

  Args:
    notebook: is changed in place.
    folder: the kernel's working directory.

  Returns:
    The notebook as it is to be stored.

  Raises:
    nbclient.exceptions.CellExecutionError: if a cell fails.
  """
  client = nbclient.NotebookClient(
    notebook,
    timeout=_TIMEOUT,
    kernel_name="python3",
    # Start-up messages of TensorFlow's libraries go to the terminal.
    extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    record_timing=False,
    store_widget_state=False,
    resources={"metadata": {"path": str(folder)}},
  )
  client.execute()
  for cell in notebook.cells:
    cell.metadata.clear()
    for output in cell.get("outputs", ()):
      output.get("data", {}).pop(_WIDGET_VIEW, None)
  notebook.metadata = nbformat.from_dict(_METADATA)
  return notebook


def main() -> None:
  """Executes the notebook that the command names, and stores it."""
  path = pathlib.Path(sys.argv[1])
  notebook = execute(nbformat.read(path, as_version=4), path.parent)
  nbformat.write(notebook, path)
  print(f"Wrote {path}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
  main()
