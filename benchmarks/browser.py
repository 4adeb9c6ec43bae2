"""JupyterLab in Chromium, driven by the keyboard: how long a learner waits for a picture."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from benchmarks.cases import Table
from benchmarks.jupyterlab import CHROME, FLAGS, Server
from teachkit.course.setup import ROOT

CONNECTED = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
RUN = """async () => {
  const app = window.jupyterapp; await app.restored;
  const book = app.shell.currentWidget; await book.context.ready; await book.sessionContext.ready;
  await book.sessionContext.session.kernel.info;
  const cells = book.content.widgets.map(cell => cell.model.sharedModel.getSource());
  book.content.activeCellIndex = cells.findLastIndex(text => text.includes("show.explore(")) + 1;
  await app.commands.execute("notebook:run-all-above");
}"""
# Listens before JupyterLab and the explorers do. A picture counts when it is decoded.
CLOCK = """
window.moves = [];
window.addEventListener("keydown", () => (window.pressed = performance.now()), true);
document.addEventListener("load", async ({ target }) => {
  if (!target.closest?.(".tk-explorer")) return;
  await target.decode();
  window.moves.push(performance.now() - window.pressed);
  window.told?.();
}, true);
"""
NEXT = """n => window.moves.length > n || new Promise((tell, fail) => {
  window.told = tell;
  setTimeout(() => fail(new Error("no picture after 20 seconds")), 20000);
})"""
REST = 600  # ms in which the last picture of the explorer before has come


def table(books: Sequence[Path], moves: int) -> Table:
    """From the key press to the decoded picture, for each explorer of each lesson."""
    title, head = "In JupyterLab", ["explorer", "median ms", "p90 ms", "slowest ms", "kernel MB"]
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return Table(title, head, [], "Not measured: playwright is not installed.")
    if not CHROME:
        return Table(title, head, [], "Not measured: there is no Chromium on this machine.")
    with server() as lab, sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROME, args=FLAGS)
        bar = tqdm(books, desc="lessons in JupyterLab", leave=False)
        rows = []
        for book in bar:
            page = running.new_page(viewport={"width": 1400, "height": 1000})
            page.add_init_script(CLOCK)
            page.goto(f"{lab.address(book.name)}&reset")
            rows += lesson(page, book.stem[:2], moves, lab.info()["pid"])
            page.evaluate("() => jupyterapp.serviceManager.sessions.shutdownAll()")
            page.close()
        running.close()
    return Table(title, head, rows, "From the key press until the new picture is decoded.")


def lesson(page: Any, name: str, moves: int, server: int) -> list[list[str]]:
    """Run the open notebook up to its last explorer, then move them all."""
    page.wait_for_function(CONNECTED, timeout=60_000)
    page.evaluate(RUN)
    covers = page.get_by_role("button", name="Show it without a prediction")
    while covers.count():
        covers.first.click()
    explorers = page.locator(".jp-OutputArea .tk-explorer")
    explorers.first.wait_for(timeout=60_000)
    taken = [pressed(page, explorers.nth(i), moves) for i in range(explorers.count())]
    memory = f"{peak(server):.0f}"
    return [
        [f"{name}, {i + 1}. explorer", *summary(times), memory] for i, times in enumerate(taken)
    ]


def summary(taken: Sequence[float]) -> list[str]:
    """Median, 90th percentile and maximum in words."""
    return [f"{value:.0f}" for value in (*np.quantile(taken, [0.5, 0.9]), max(taken))]


def pressed(page: Any, explorer: Any, moves: int) -> list[float]:
    """Milliseconds from each of some arrow keys, on the controls in turn, to its picture."""
    explorer.scroll_into_view_if_needed()
    page.wait_for_timeout(REST)
    controls = explorer.locator("input, select")
    kinds = [controls.nth(i).evaluate("c => c.tagName") for i in range(controls.count())]
    for move in range(moves + 1):
        at = move % len(kinds)
        control, count = controls.nth(at), page.evaluate("window.moves.length")
        low, high, here = control.evaluate(
            "c => c.options ? [0, c.options.length - 1, c.selectedIndex] : [+c.min, +c.max, +c.value]"
        )
        up = here == low or (here < high and (move // len(kinds)) % 3 < 2)
        forward, back = (
            ("ArrowDown", "ArrowUp") if kinds[at] == "SELECT" else ("ArrowRight", "ArrowLeft")
        )
        control.focus()
        control.press(forward if up else back)
        page.evaluate(NEXT, count)
        page.wait_for_timeout(30)
    first = page.evaluate("window.moves.length") - moves
    return [float(value) for value in page.evaluate("n => window.moves.slice(n)", first)]


def peak(server: int) -> float:
    """The most memory, in MB, that a kernel of this process has held; not a number where unknown."""
    most = float("nan")
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            lines = (line.split() for line in path.read_text("utf-8").splitlines())
            facts = {line[0]: line[1] for line in lines if len(line) > 1}
            if facts.get("PPid:") == str(server) and "VmHWM:" in facts:
                most = float(np.fmax(most, int(facts["VmHWM:"]) / 1000))
    return most


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A JupyterLab over fresh copies of the lessons, with settings and folders of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        made = Server(Path(home), ROOT, Path(home, "work"))
        try:
            made.start()
            yield made
        finally:
            made.stop()
