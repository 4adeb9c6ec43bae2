"""Run an experiment over a grid, in parallel, so that nothing finished is ever computed twice.

A cell of the grid is one call of a function with keyword arguments; its result is a dict of numbers
and words. The table is a list of such rows. With a file, every finished cell is on disk at once, as
one line of JSON, and a run that was interrupted goes on from there.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
from tqdm.auto import tqdm

from teachkit.core import checks, door, files
from teachkit.lab import session

Row = dict[str, Any]
Cell = Callable[..., Row]
DASK = "TEACHKIT_DASK"


def run(
    cell: Cell,
    grid: Mapping[str, Sequence[Any]],
    *,
    file: Path | str | None = None,
    workers: int = 1,
    progress: bool = True,
) -> list[Row]:
    """Call ``cell`` for every combination of the grid's values; the table, in the grid's order.

    Each call runs after :func:`teachkit.lab.session.setup`, so a cell gives the same numbers on any
    worker. With the environment variable TEACHKIT_DASK, e.g. ``tcp://127.0.0.1:8786``, the cells
    run on that Dask cluster; a worker that dies loses nothing, its cells run elsewhere.

    Args:
        cell: a function of a module (workers import it), from keyword arguments to a dict.
        grid: values for each argument: numbers, words or truth values.
        file: where finished cells are kept. Cells found there are not run again; a damaged line is.
            Cells are known by their arguments alone: after a change of the function name a new file.
        workers: processes on this machine; 1 runs the cells here.
        progress: show a progress bar.

    Raises:
        ValueError: an empty grid, what JSON cannot hold, or a file of another experiment.

    >>> def square(x, power):
    ...     return {"y": x**power}
    >>> run(square, {"x": [2, 3], "power": [2]}, progress=False)
    [{'x': 2, 'power': 2, 'y': 4}, {'x': 3, 'power': 2, 'y': 9}]

    """
    checks.whole("workers", workers, 1)
    cells = points(grid)
    path = None if file is None else Path(file)
    done = {} if path is None else load(path, list(grid))
    todo = [point for point in cells if _key(point) not in done]
    bar = {"total": len(cells), "initial": len(cells) - len(todo), "disable": not progress}
    if todo:
        with _cluster():
            share = joblib.Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")
            results = share(joblib.delayed(_one)(cell, point) for point in todo)
            for point, result in tqdm(results, **bar):
                row = done[_key(point)] = _row(point, result)
                if path is not None:
                    _append(path, row)
    return [done[_key(point)] for point in cells]


def load(path: Path, names: Sequence[str]) -> dict[str, Row]:
    """The rows of a file by their point in the grid; damaged lines are left out.

    Rows that lack an argument, or differ for the same ones, are of another experiment: a ValueError.
    """
    rows: dict[str, Row] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:  # cut off, in the middle of a letter too
            continue
        if not isinstance(row, dict) or not set(names) <= set(row):
            raise ValueError(
                f"{path} is not of this experiment: it has the row {row!r}, the grid {list(names)}"
            )
        key = _key({name: row[name] for name in names})
        if rows.setdefault(key, row) != row:
            raise ValueError(
                f"{path} is not of this experiment: it has two rows for {key}: {rows[key]!r} and {row!r}"
            )
    return rows


def tidy(path: Path | str, rows: Sequence[Row]) -> None:
    """Write a table in the order given, one row a line, whole or not at all."""
    files.replace(path, "".join(_line(row) for row in rows))


def select(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows with these values.

    >>> select([{"a": 1, "b": 2}, {"a": 3, "b": 4}], a=3)
    [{'a': 3, 'b': 4}]
    """
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def column(rows: Sequence[Row], name: str, by: str, over: str) -> list[list[Any]]:
    """One column as a matrix: a row for each value of ``over``, e.g. seeds, a column for each of ``by``.

    >>> column([{"s": 0, "q": 1, "y": 5}, {"s": 0, "q": 2, "y": 6}], "y", by="q", over="s")
    [[5, 6]]
    """
    lacking = [key for key in (name, by, over) if any(key not in row for row in rows)]
    if lacking:
        raise ValueError(
            f"each row must have {name!r}, {by!r} and {over!r}; some lack {lacking[0]!r}"
        )
    across = list(dict.fromkeys(row[by] for row in rows))
    down = list(dict.fromkeys(row[over] for row in rows))
    values = {(row[over], row[by]): row[name] for row in rows}
    if len(values) != len(rows) or len(values) != len(across) * len(down):
        raise ValueError(
            f"{len(rows)} rows do not give each of {len(down)} values of {over!r} and {len(across)} "
            f"of {by!r} once: select first"
        )
    return [[values[d, a] for a in across] for d in down]


def points(grid: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Every combination of the grid's values, the last argument changing fastest."""
    empty = [name for name, values in grid.items() if isinstance(values, str) or not len(values)]
    if empty or not grid:
        raise ValueError(f"the grid needs a list of values for each argument, got {dict(grid)!r}")
    cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if len({_key(point) for point in cells}) < len(cells):
        raise ValueError(f"the grid names a value twice: {dict(grid)!r}")
    return cells


@contextmanager
def _cluster() -> Iterator[None]:
    """The Dask cluster that the environment names; without one, joblib's own processes."""
    address = os.environ.get(DASK)
    if not address:
        yield
        return
    from distributed import Client  # only where a cluster is used

    with Client(address), joblib.parallel_config(backend="dask"):  # type: ignore[no-untyped-call]
        yield


def _one(cell: Cell, point: Row) -> tuple[Row, Row]:
    """One cell, after the course's set-up, here or on a worker."""
    session.setup()
    return point, cell(**point)


def _row(point: Row, result: object) -> Row:
    if not isinstance(result, dict):
        raise ValueError(f"a cell must return a dict, got {type(result).__name__} at {point}")
    clash = set(point) & set(result)
    if clash:
        raise ValueError(f"the cell returns {sorted(clash)}, which are arguments of the grid")
    row: Row = json.loads(_line(point | result))  # what a file would give back, or refused
    return row


def _append(path: Path, row: Row) -> None:
    """Add a line; what an interrupted write has left without an end gets one first."""
    line = _line(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else "\n" + line
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _line(row: Row) -> str:
    return _json(row, "a row must hold finite", ensure_ascii=False) + "\n"


def _key(point: Row) -> str:
    return _json(point, "the grid may hold", sort_keys=True)


def _json(row: Row, allowed: str, **options: bool) -> str:
    try:
        return json.dumps(row, allow_nan=False, **options)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{allowed} numbers and words only: {row!r} ({error})") from None


door.hold(globals())
