"""Experiments that take longer than a lesson: each writes its table into data/experiments/."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from teachkit.lab import data, session, sweep
from teachkit.lab.sweep import Cell, Row

Grid = dict[str, list[Any]]
Tables = Mapping[str, tuple[Cell, Grid]]


def path(name: str) -> Path:
    """Where an experiment's table is kept."""
    return data.folder() / "experiments" / f"{name}.jsonl"


def table(name: str) -> list[Row]:
    """The rows of a saved experiment.

    Raises:
        ValueError: no such experiment; the message names those there are.

    >>> table("schedules")[0]["shape"]
    'one-shot'

    """
    file = path(name)
    if not file.exists():
        there = sorted(each.stem for each in file.parent.glob("*.jsonl"))
        raise ValueError(f"no experiment {name!r}; there are {there}")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def write(tables: Tables, workers: int = 1) -> None:
    """Run each grid, or what is missing of it, and write its table."""
    session.setup()
    for name, (cell, grid) in tables.items():
        file = path(name)
        sweep.tidy(file, sweep.run(cell, grid, file=file, workers=workers))


@cache
def mnist() -> data.Data:
    """MNIST in float32: this is long, and no weight is compared between machines."""
    train, test = ((x.float(), y) for x, y in data.mnist())
    return data.Data(train, test)
