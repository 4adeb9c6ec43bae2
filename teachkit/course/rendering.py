"""A lesson for a page without a kernel: decks and the website are made from what stands here.

Text, numbers and pictures are those that are stored in the notebook, compared by every test run. Only
the explorers are new: the lesson runs once more, and each brings the pictures along between which its
controls move. That takes up to a minute a lesson, so what was made is kept in ``build/rendered`` until
the lesson, or the code and data behind it, change.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from teachkit.core import files, places
from teachkit.course import notebooks
from teachkit.course.setup import ROOT
from teachkit.show import frames

FOLDER = ROOT / "build" / "rendered"
MOVING = 'class="teachkit-explorer"'


def rendered(path: Path) -> NotebookNode:
    """The notebook with explorers that move without a kernel.

    Raises:
        NotebookError: a cell raised, or an explorer brought no pictures along.

    """
    notebook = nbformat.read(path, as_version=4)
    last = max((i for i, cell in enumerate(notebook.cells) if _explores(cell)), default=-1)
    if last < 0:
        return notebook
    name = f"{path.stem}-{_stamp(notebook)}.ipynb"
    if not (FOLDER / name).exists():
        _keep(name, path, notebook, last)
    made = nbformat.read(FOLDER / name, as_version=4)
    for cell, new in zip(notebook.cells, made.cells, strict=False):
        if _explores(cell) and not _move(cell, new):
            raise notebooks.NotebookError(f"{path.name}: the explorer of {cell.id} does not move")
    return notebook


def _move(cell: NotebookNode, new: NotebookNode) -> bool:
    """Give a stored explorer the pictures that it brought along; False if there are none."""
    moved = False
    for output, moving in zip(cell.outputs, new.outputs, strict=False):
        if MOVING in moving.get("data", {}).get("text/html", ""):
            output.data["text/html"], moved = moving.data["text/html"], True
    return moved


def all_rendered(paths: Iterable[Path]) -> Iterator[tuple[Path, NotebookNode]]:
    """Several notebooks, run side by side, in their order."""
    paths = list(paths)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        yield from zip(paths, pool.map(rendered, paths), strict=True)


def _explores(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "show.explore(" in cell.source


def _keep(name: str, path: Path, notebook: NotebookNode, last: int) -> None:
    """Run the lesson up to its last explorer, and keep it instead of what was made before."""
    part = nbformat.from_dict({**notebook, "cells": notebook.cells[: last + 1]})
    variables = {frames.VARIABLE: "1", places.VARIABLE: "", "OMP_NUM_THREADS": "1"}
    made = notebooks.run(path, part, **variables)
    files.replace(FOLDER / name, nbformat.writes(made))
    for old in FOLDER.glob(f"{path.stem}-*.ipynb"):
        if old.name != name:
            old.unlink(missing_ok=True)


def _stamp(notebook: NotebookNode) -> str:
    """What the cells say, and the code and data behind them, in a word; how they stand on slides is not."""
    said = [(cell.cell_type, cell.source) for cell in notebook.cells]
    known = hashlib.sha256(repr(said).encode())
    code = [each for kind in ("py", "js") for each in (ROOT / "teachkit").rglob(f"*.{kind}")]
    data = [each for each in (ROOT / "data").rglob("*") if each.is_file()]
    for each in sorted([*code, *data]):
        if "course" not in each.relative_to(ROOT).parts:
            known.update(each.read_bytes())
    return known.hexdigest()[:16]
