"""Explorers: from a move to its picture, in the kernel and in JupyterLab.

The explorers are those that the lessons' own cells make. Fifty moves each, the controls in turn.
"""

import contextlib
import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from IPython.core.interactiveshell import InteractiveShell
from tqdm.auto import tqdm

from benchmarks import browser
from benchmarks.cases import Case, Table
from teachkit import show
from teachkit.course.notebooks import FOLDER
from teachkit.lab import timing
from teachkit.show.explorers import Explorer

MOVES = 50
CALL = "show.explore("
Ran = Callable[[str], object]


def cases(quick: bool = False) -> list[Case]:
    """None: nobody else's explorers are compared with."""
    return []


def tables(quick: bool = False) -> list[Table]:
    """Two tables: what the kernel takes, and what a learner waits for in the browser."""
    books = sorted(FOLDER.glob("*.ipynb"))[: 2 if quick else None]
    moves = 4 if quick else MOVES
    bar = tqdm(books, desc="lessons' cells", leave=False)
    rows = [row for book in bar for row in in_kernel(book, moves)]
    head = ["median ms", "p90 ms", "slowest ms", "picture kB"]
    made = [Table("In the kernel", ["explorer", *head], rows, "One thread, without the browser.")]
    return made if quick else [*made, browser.table(books, moves)]


def in_kernel(book: Path, moves: int) -> list[list[str]]:
    """A row for each explorer of a lesson."""
    rows = []
    for name, explorer in found(book):
        taken, sizes = [], []
        for at in walk(explorer, moves + 1):
            start = timing.clock()()
            explorer._answer("", at)
            taken.append(1000 * (timing.clock()() - start))
            sizes.append(len(explorer.png) / 1000)
            if explorer.problem:
                raise RuntimeError(f"{name} at {at}: {explorer.problem}")
        rows.append([name, *browser.summary(taken[1:]), f"{np.median(sizes):.0f}"])
    return rows


def walk(explorer: Explorer, moves: int) -> Iterator[dict[str, int]]:
    """One step of one control after the other, up or down, as arrow keys make it."""
    dice, at = random.Random(0), dict(explorer.at)  # noqa: S311 -- no secret
    for move in range(moves):
        ask = explorer.asks[move % len(explorer.asks)]
        last, here = len(ask.options) - 1, at[ask.name]
        up = here == 0 or (here < last and dice.random() < 0.7)
        at = {**at, ask.name: here + (1 if up else -1)}
        yield at


def found(book: Path) -> list[tuple[str, Explorer]]:
    """The explorers of a lesson, after running its cells up to the last one that makes one."""
    code = [
        cell.source for cell in nbformat.read(book, as_version=4).cells if cell.cell_type == "code"
    ]
    last = max((i for i, source in enumerate(code) if CALL in source), default=-1)
    made: list[tuple[str, Explorer]] = []
    original: Callable[..., Explorer] = show.explore

    def explore(draw: Callable[..., Any], **controls: Any) -> Explorer:
        explorer = original(draw, **controls)
        made.append((f"{book.stem[:2]} {named(draw)}", explorer))
        return explorer

    with _shell() as run:
        show.explore = explore
        try:
            for source in code[: last + 1]:
                run(source)
        finally:
            show.explore = original
    return made


def named(draw: Any) -> str:
    """The name of the function that draws."""
    inner = getattr(draw, "func", draw)
    return str(getattr(getattr(inner, "prepare", inner), "__name__", "draw"))


@contextlib.contextmanager
def _shell() -> Iterator[Ran]:
    """A shell as a notebook has it, in the lessons' folder; what cells print is dropped."""
    before, kept = Path.cwd(), os.environ.get("TEACHKIT_WORK")
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    os.environ["TEACHKIT_WORK"] = ""

    def run(source: str) -> object:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = shell.run_cell(source)
        result.raise_error()
        return result.result

    os.chdir(FOLDER)
    try:
        yield run
    finally:
        os.chdir(before)
        InteractiveShell.clear_instance()
        os.environ.pop("TEACHKIT_WORK")
        if kept is not None:
            os.environ["TEACHKIT_WORK"] = kept
