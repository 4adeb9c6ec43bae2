"""Pruning schedules, the prune–retrain loop, and the search for the sparsest good network."""

from teachkit.schedule.loop import Run, gradual
from teachkit.schedule.search import Search, within_bound
from teachkit.schedule.shapes import (
    Schedule,
    constant,
    cubic,
    delayed,
    every,
    exponential,
    linear,
    one_shot,
)

__all__ = [
    "Run",
    "Schedule",
    "Search",
    "constant",
    "cubic",
    "delayed",
    "every",
    "exponential",
    "gradual",
    "linear",
    "one_shot",
    "within_bound",
]
