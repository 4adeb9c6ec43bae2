"""Optimal Brain Surgeon on a whole matrix: time against slower ways, and drift by condition.

The matrices are random, so that their size and condition can be chosen; what happens in one layer of
a network and to its accuracy is measured in :mod:`benchmarks.layers`.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.cases import Case, Table
from teachkit.experiments import removals as surgeon


def cases(quick: bool) -> list[Case]:
    """None: the times are ratios already, see :func:`tables`."""
    return []


def tables(quick: bool) -> list[Table]:
    """The rows that :mod:`teachkit.experiments.removals` measures."""
    sizes, repeats, n = ((40,), 1, 20) if quick else ((500, 1000, 2000), 5, 400)
    return [
        as_table(
            "Removing half of n weights", surgeon.speed_rows(sizes, repeats), surgeon.speed_rows
        ),
        as_table("Drift after half of the removals", surgeon.drift_rows(n), surgeon.drift_rows),
    ]


def as_table(title: str, rows: Sequence[dict[str, Any]], about: object) -> Table:
    """A table from dicts, with the words of the function that made them.

    >>> as_table("t", [{"n": 2, "ratio": 1.23456}], len).rows
    [['2', '1.23']]
    """
    head = list(dict.fromkeys(key for row in rows for key in row))
    text = " ".join((about.__doc__ or "").split())
    return Table(title, head, [[_cell(row.get(key, "")) for key in head] for row in rows], text)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
