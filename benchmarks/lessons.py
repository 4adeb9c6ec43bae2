"""Lessons: how long Run All of each takes, and its longest cell.

The processor's time of the kernel, one thread: other programs do not disturb it. ``--write`` keeps
the seconds in ``data/seconds.toml``, by which the tests hold what a long cell says of itself.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from tqdm.auto import tqdm

from benchmarks.cases import Case, Table
from teachkit.core import files
from teachkit.course.notebooks import QUIET, select
from teachkit.course.setup import ROOT

FILE = ROOT / "data" / "seconds.toml"
LONG, KEPT = 3.0, 1.0  # seconds from which a cell is called long, and from which it is in the file
HEAD = ["lesson", "CPU seconds", "on the wall", "longest cell", "its seconds", "cells over 3 s"]
CLOCK = """import os, time
def _now(): return sum(os.times()[:4]), time.perf_counter()
_seconds = [_now()]
def _before(info): _seconds.append(_now())
def _after(result): _seconds[-1] = [b - a for a, b in zip(_seconds[-1], _now())]
get_ipython().events.register("pre_run_cell", _before)
get_ipython().events.register("post_run_cell", _after)"""
READ = "import json; print(json.dumps(_seconds[:-1]))"
ABOUT = """# CPU seconds of one thread: each lesson as a whole, and its cells of a second or more.
# Written by: python -m teachkit bench lessons --write
"""


class Lesson(NamedTuple):
    """CPU seconds by the id of each code cell, and the seconds that all took on the wall."""

    stem: str
    cells: dict[str, float]
    wall: float


def cases(quick: bool) -> list[Case]:
    """Nobody to compare with."""
    return []


def tables(quick: bool) -> list[Table]:
    """A line for each lesson; only the first one if it is to be quick."""
    rows = [_row(lesson) for lesson in measured(quick)]
    text = "The longest cell is the longest behind the first one, which imports."
    return [Table("Run All", HEAD, rows, text)]


@cache
def measured(quick: bool) -> tuple[Lesson, ...]:
    """Run every lesson once, on a kernel of its own."""
    paths = select(["00"] if quick else [])
    return tuple(measure(path) for path in tqdm(paths, desc="lessons", leave=False))


def measure(path: Path) -> Lesson:
    """Run a notebook top to bottom and time each code cell; the file stays as it is."""
    book = nbformat.read(path, as_version=4)
    ids = [cell.id for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    book.cells.insert(0, nbformat.v4.new_code_cell(CLOCK))
    book.cells.append(nbformat.v4.new_code_cell(READ))
    options = {"timeout": 1800, "extra_arguments": ["--log-level=ERROR"]}
    place = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(book, kernel_name="python3", resources=place, **options)
    alone = {"OMP_NUM_THREADS": "1", "TEACHKIT_WORK": ""}
    client.execute(env={**os.environ, **QUIET, **alone})
    times = json.loads(book.cells[-1].outputs[0].text)[1:]  # the first is that of the clock itself
    cells = dict(zip(ids, (cpu for cpu, _ in times), strict=True))
    return Lesson(path.stem, cells, sum(wall for _, wall in times))


def write(lessons: tuple[Lesson, ...], file: Path = FILE) -> None:
    """Keep the seconds of all lessons."""
    parts = [ABOUT]
    for lesson in lessons:
        parts.append(f"\n[{lesson.stem}]\ntotal = {sum(lesson.cells.values()):.1f}\n")
        parts += [f"{name} = {cpu:.1f}\n" for name, cpu in lesson.cells.items() if cpu >= KEPT]
    files.replace(file, "".join(parts))


def _row(lesson: Lesson) -> list[str]:
    rest = dict(list(lesson.cells.items())[1:])
    longest = max(rest, key=lambda name: rest[name])
    over = [name for name, cpu in rest.items() if cpu > LONG]
    total, own = f"{sum(lesson.cells.values()):.1f}", f"{rest[longest]:.1f}"
    return [lesson.stem, total, f"{lesson.wall:.1f}", longest, own, ", ".join(over)]
