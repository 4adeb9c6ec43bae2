"""Experiments that take longer than a lesson: each writes its table into data/experiments/."""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from teachkit.lab import data, models, session, sweep
from teachkit.lab.sweep import Cell, Row
from teachkit.lab.training import fit

Grid = dict[str, list[Any]]


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
    found = path(name)
    if not found.exists():
        there = sorted(p.stem for p in found.parent.glob("*.jsonl"))
        raise ValueError(f"no experiment {name!r}; there are {there}")
    return [json.loads(line) for line in found.read_text("utf-8").splitlines()]


def write(tables: Mapping[str, tuple[Cell, Grid]], workers: int = 1) -> None:
    """Run each grid, or what is missing of it, and write its table."""
    session.setup()
    for name, (cell, grid) in tables.items():
        file = path(name)
        sweep.tidy(file, sweep.run(cell, grid, file=file, workers=workers))


def trained(
    seed: int,
    hidden: tuple[int, ...] = (64, 32),
    activation: Callable[[], nn.Module] = nn.ReLU,
    epochs: int = 30,
    batch_size: int = 64,
    falling: float | None = None,
) -> nn.Module:
    """A network on the digits, trained by Adam once and kept: several experiments prune the same.

    Args:
        seed: of its first weights and of its training.
        hidden: the widths of the hidden layers.
        activation: between the layers.
        epochs: how long.
        batch_size: of the training.
        falling: a rate that falls to zero along a cosine; without it the default, which does not.

    """
    return _trained(seed, hidden, activation, epochs, batch_size, falling)


@cache
def _trained(
    seed: int,
    hidden: tuple[int, ...],
    activation: Callable[[], nn.Module],
    epochs: int,
    batch_size: int,
    falling: float | None,
) -> nn.Module:
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    if falling is not None:
        options["optimizer"] = partial(torch.optim.Adam, lr=falling)
        options["scheduler"] = partial(CosineAnnealingLR, T_max=epochs)
    start = models.mlp(hidden=hidden, activation=activation, seed=seed)
    return fit(start, data.digits().train, progress=False, **options)[0]


@cache
def mnist() -> data.Data:
    """MNIST in float32: this is long, and no weight is compared between machines."""
    train, test = ((x.float(), y) for x, y in data.mnist())
    return data.Data(train, test)
