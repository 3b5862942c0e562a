"""A page in Chromium, as a reader sees it."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
  """Starts the system's Chromium; skips the test where that cannot be."""
  playwright = pytest.importorskip("playwright.sync_api")
  program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
  if program is None:
    pytest.skip(f"needs one of {', '.join(_PROGRAMS)}")
  with playwright.sync_playwright() as started:
    # Root, as in a container, has no sandbox.
    browser = started.chromium.launch(
      executable_path=program, args=["--no-sandbox"]
    )
    try:
      yield browser
    finally:
      browser.close()


class Shown:
  """A page that is shown, with what went wrong.

  Attributes:
    page: Playwright's page.
    faults: errors of scripts, and requests that leave this machine.
  """

  def __init__(self, browser: Any, path: pathlib.Path, **context: Any):
    self.page = browser.new_context(**context).new_page()
    self.faults: list[str] = []
    self.page.on("pageerror", lambda error: self.faults.append(str(error)))
    self.page.on("request", self._check)
    self.page.goto(path.as_uri())

  def _check(self, request: Any) -> None:
    if not request.url.startswith(("file:", "data:")):
      self.faults.append(request.url[:100])

  def settle(self) -> None:
    """Waits until what is due is drawn."""
    self.page.evaluate(
      "new Promise((done) => requestAnimationFrame("
      "() => requestAnimationFrame(done)))"
    )

  def pixels(self, selector: str) -> np.ndarray:
    """[H, W, 4] in [0, 255], of a canvas."""
    height, width, values = self.page.evaluate(
      """(selector) => {
        const canvas = document.querySelector(selector);
        const {width, height} = canvas;
        const image = canvas.getContext("2d").getImageData(0, 0, width, height);
        return [height, width, Array.from(image.data)];
      }""",
      selector,
    )
    return np.reshape(values, (height, width, 4))

  def is_wide(self) -> bool:
    """Whether the page scrolls horizontally."""
    return self.page.evaluate(
      "document.documentElement.scrollWidth > window.innerWidth"
    )
