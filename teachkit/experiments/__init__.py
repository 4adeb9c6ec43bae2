"""Experiments that take longer than a lesson: each writes its table into data/experiments/."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from teachkit.core import files
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


def manifest() -> dict[str, str]:
    """The sha256 of each saved table by its name, as its own command left it.

    It is data/experiments.sha256, which ``sha256sum -c`` in the folder data checks as well.
    """
    file = path("x").parent.with_suffix(".sha256")
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {Path(line.split()[1]).stem: line.split()[0] for line in lines}


def digest(name: str) -> str:
    """The sha256 of a saved table as it is now."""
    return hashlib.sha256(path(name).read_bytes()).hexdigest()


def seal(name: str) -> None:
    """Enter a table that its command has just made into the manifest."""
    sums = manifest() | {name: digest(name)}
    lines = [f"{sums[each]}  experiments/{each}.jsonl\n" for each in sorted(sums)]
    files.replace(path(name).parent.with_suffix(".sha256"), "".join(lines))


def write(tables: Tables, workers: int = 1) -> None:
    """Run each grid, or what is missing of it, write its table and enter it into the manifest.

    Raises:
        ValueError: a whole table is not what its command left; its rows would be taken for computed.

    """
    session.setup()
    for name, (cell, grid) in tables.items():
        file, points = path(name), len(list(sweep.points(grid)))
        whole = file.exists() and len(file.read_bytes().splitlines()) >= points
        if whole and digest(name) != manifest().get(name, digest(name)):
            raise ValueError(
                f"{file.name} was changed after its command made it: its sha256 is not that in "
                f"experiments.sha256; restore it, or delete it to compute it anew"
            )
        sweep.tidy(file, sweep.run(cell, grid, file=file, workers=workers))
        seal(name)


def main(tables: Tables, on_mnist: Tables | None = None) -> None:
    """What an experiment's command does: write its tables, and those on MNIST where its folder is named."""
    write(tables)
    if on_mnist and "TEACHKIT_DATA" in os.environ:
        write(on_mnist)


@cache
def mnist() -> data.Data:
    """MNIST in float32: this is long, and no weight is compared between machines."""
    train, test = ((x.float(), y) for x, y in data.mnist())
    return data.Data(train, test)
