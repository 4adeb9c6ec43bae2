"""A Chromium without a network, for what only a browser can say: whether a page fits, and its PDF."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
READY = "window.deckReady === true"
WIDE, HIGH = 640, 360  # of a slide on the contact sheet
SLOW = 120_000  # ms; other programs may keep the machine busy


class NoChromiumError(Exception):
    """There is no browser here; the message says what is missing."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Lend a browser whose pages reach nothing but files.

    Raises:
        NoChromiumError: playwright or Chromium is not installed.

    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise NoChromiumError("playwright is not installed") from error
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:  # without a path, the one that ``playwright install`` has fetched
            browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        except Error as error:
            raise NoChromiumError("there is no Chromium on this machine") from error
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
        yield context
        browser.close()


def opened(context: Any, path: Path, query: str = "") -> Any:
    """A page with a deck, ready to be looked at."""
    page = context.new_page()
    page.goto(path.resolve().as_uri() + query)
    page.wait_for_function(READY, timeout=SLOW)
    return page


def problems(context: Any, path: Path) -> list[dict[str, Any]]:
    """What ``deck.js`` finds wrong with the slides of a deck: what sticks out, what is empty."""
    page = opened(context, path)
    found: list[dict[str, Any]] = page.evaluate("deckProblems()")
    page.close()
    return found


def print_pdf(context: Any, path: Path, pdf: Path) -> None:
    """Print a deck, a slide a page of 1280×720."""
    page = opened(context, path, "?print-pdf")
    page.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
    page.close()


def contact_sheet(context: Any, path: Path, sheet: Path, across: int = 3) -> None:
    """Draw all slides of a deck on one picture, so that an author sees them side by side."""
    page = opened(context, path)
    count = page.evaluate("Reveal.getTotalSlides()")
    whole = Image.new("RGB", (across * WIDE, -(-count // across) * HIGH), "grey")
    for i in range(count):
        page.evaluate("i => Reveal.slide(i, 0, 99)", i)  # with all that comes step by step
        shot = Image.open(io.BytesIO(page.screenshot())).resize((WIDE - 6, HIGH - 6))
        whole.paste(shot, (i % across * WIDE + 3, i // across * HIGH + 3))
    whole.save(sheet)
    page.close()
