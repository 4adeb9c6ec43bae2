"""The one progress bar: shown where work takes more than a second, gone without a trace when it ends.

In a terminal it is tqdm's; where the output is no terminal there is none. In a notebook all bars of
a cell share one place in its output, a picture in HTML that is replaced as the work goes on and
taken away when the cell ends, also when it raised or was interrupted. Nothing of it needs a kernel
later, so a saved notebook opened again shows no dead widget. A cell whose first line says
``# takes about 20 s`` shows how much of that has passed.

With the environment variable TQDM_DISABLE=1 there is none, as in tests and in notebooks as stored.
"""

import html
import os
import re
import sys
import time
import uuid
from collections.abc import Iterable
from typing import Any, ClassVar

from tqdm.std import tqdm

from teachkit.core import door

DELAY = 1.0  # seconds that a cell, or a loop in a terminal, may take without a bar
PAUSE = 0.2  # seconds between two pictures
NOTE = re.compile(r"# takes about (\d+) s\b")
OFF = ("", "0", "false")  # what TQDM_DISABLE may say for a bar


def bar(
    over: Iterable[Any] | None = None,
    desc: str = "",
    *,
    total: int | None = None,
    show: bool = True,
) -> Any:
    """A progress bar over an iterable, or with a total one to ``update()``; as tqdm's.

    >>> sum(bar([1, 2], "numbers", show=False))
    3
    """
    off = not show or os.environ.get("TQDM_DISABLE", "").lower() not in OFF
    options: dict[str, Any] = {"total": total, "desc": desc, "leave": False}
    shell = None if off else _shell()
    if shell is None:
        return tqdm(over, disable=off or not _terminal(), delay=DELAY, **options)
    options |= {"disable": False, "mininterval": PAUSE / 2, "miniters": 1}
    return _CellBar(over, cell=_cell(shell), file=_Nowhere(), **options)


def _terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _shell() -> Any:
    """IPython's shell if it belongs to a notebook's kernel."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return shell if getattr(shell, "kernel", None) else None


class _Nowhere:
    """A file that keeps nothing: a bar in a cell draws itself."""

    def write(self, _: str) -> None: ...

    def flush(self) -> None: ...


class _Cell:
    """The place of the bars in the output of the cell that runs."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.begin(None, shell.history_manager.input_hist_raw[-1])
        shell.events.register("pre_run_cell", self.begin)
        shell.events.register("post_run_cell", self.end)

    def begin(self, info: Any, code: str = "") -> None:
        """A cell begins: nothing is shown yet."""
        found = NOTE.match(getattr(info, "raw_cell", None) or code)
        self.expected = int(found[1]) if found else None
        self.start, self.last, self.place = time.monotonic(), 0.0, ""
        self.running, self.open = True, list[_CellBar]()

    def end(self, _: Any) -> None:
        """The cell ends, however it does: its bars go."""
        if self.place:
            self._publish({})
        self.begin(None)
        self.running = False

    def draw(self) -> None:
        """Show the open bars, the outer above the inner, if it is time."""
        now = time.monotonic()
        if not self.running or now - self.start < DELAY or now - self.last < PAUSE:
            return
        self.last = now
        lines = [_line(each) for each in self.open if (each.total or 0) > 1]
        if self.expected:
            passed = now - self.start
            said = f"this cell: {passed:.0f} s of about {self.expected} s"
            lines.insert(0, (said, passed, max(self.expected, passed)))
        if not lines:
            return
        page = "".join(f"<div>{_meter(*line)}</div>" for line in lines)
        self._publish({"text/plain": "; ".join(line[0] for line in lines), "text/html": page})

    def _publish(self, data: dict[str, str]) -> None:
        """Without data JupyterLab draws nothing, and leaves no room for it."""
        update, self.place = bool(self.place), self.place or uuid.uuid4().hex
        transient = {"display_id": self.place}
        self.shell.display_pub.publish(data, metadata={}, transient=transient, update=update)


def _cell(shell: Any) -> _Cell:
    """The place that belongs to this shell, made once."""
    if getattr(shell, "_teachkit_bars", None) is None:
        shell._teachkit_bars = _Cell(shell)
    found: _Cell = shell._teachkit_bars
    return found


class _CellBar(tqdm):  # type: ignore[misc]
    """tqdm that counts, and lets its cell draw."""

    monitor_interval: ClassVar[int] = 0  # no thread that draws on its own

    def __init__(self, *given: Any, cell: _Cell, **options: Any) -> None:
        self.cell = cell
        cell.open.append(self)
        super().__init__(*given, **options)

    def display(self, *_: Any, **__: Any) -> None:
        """Ask the cell to draw."""
        self.cell.draw()

    def close(self) -> None:
        """Count no longer; the picture stays until another bar or the end of the cell replaces it."""
        others = [each for each in self.cell.open if each is not self]
        if len(others) < len(self.cell.open):
            self.cell.draw()
        self.cell.open = others
        super().close()


def _line(each: _CellBar) -> tuple[str, float, float]:
    """What a bar says, how far it is, and how far it goes."""
    facts = each.format_dict
    n, total, passed = facts["n"], facts["total"], facts["elapsed"]
    text = f"{facts['prefix'] or 'progress'}: {n:,} of {total:,}"
    if n and n < total:
        text += f", about {passed * (total - n) / n:.0f} s left"
    return text, float(n), float(total)


def _meter(text: str, n: float, total: float) -> str:
    said = html.escape(text)
    return (
        f'<progress value="{n:.6g}" max="{max(total, 1e-9):.6g}" aria-label="{said}" '
        f'style="width: 16em; vertical-align: middle"></progress> {said}'
    )


door.hold(globals())
