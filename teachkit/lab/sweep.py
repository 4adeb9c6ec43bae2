"""Run an experiment over a grid, in parallel, so that nothing finished is ever computed twice.

A cell of the grid is one call of a function with keyword arguments; its result is a dict of
numbers and words. The table is a list of such rows, one a cell. With a file, every finished cell is
on disk at once, as one line of JSON: the file is the record of the experiment and what a run that
was interrupted goes on from.
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

from teachkit.core import checks, files
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
        workers: processes on this machine; 1 runs the cells here, one after the other.
        progress: show a progress bar.

    Raises:
        ValueError: an empty grid, a value or a result that JSON cannot hold, or a file that belongs
            to another experiment.

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
    if todo:
        with (
            _backend(workers),
            tqdm(total=len(cells), initial=len(cells) - len(todo), disable=not progress) as bar,
        ):
            for point, result in _results(cell, todo, workers):
                row = _row(point, result)
                done[_key(point)] = row
                if path is not None:
                    _append(path, row)
                bar.update()
    return [done[_key(point)] for point in cells]


def load(path: Path, names: Sequence[str]) -> dict[str, Row]:
    """The rows of a file by their point in the grid; damaged lines are left out.

    Raises:
        ValueError: a row lacks one of the arguments, or two rows differ for the same ones: the file
            belongs to another experiment.

    """
    found: dict[str, Row] = {}
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
        if found.setdefault(key, row) != row:
            raise ValueError(
                f"{path} is not of this experiment: it has two rows for {key}: {found[key]!r} and {row!r}"
            )
    return found


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
    across = list(dict.fromkeys(row[by] for row in rows))
    down = list(dict.fromkeys(row[over] for row in rows))
    found = {(row[over], row[by]): row[name] for row in rows}
    if len(found) != len(rows) or len(found) != len(across) * len(down):
        raise ValueError(
            f"{len(rows)} rows do not give each of {len(down)} values of {over!r} and {len(across)} "
            f"of {by!r} once: select first"
        )
    return [[found[d, a] for a in across] for d in down]


def points(grid: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Every combination of the grid's values, the last argument changing fastest."""
    empty = [name for name, values in grid.items() if isinstance(values, str) or not len(values)]
    if empty or not grid:
        raise ValueError(f"the grid needs a list of values for each argument, got {dict(grid)!r}")
    cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if len({_key(point) for point in cells}) < len(cells):
        raise ValueError(f"the grid names a value twice: {dict(grid)!r}")
    return cells


def _results(cell: Cell, points: list[Row], workers: int) -> Iterator[tuple[Row, Row]]:
    if workers == 1 and DASK not in os.environ:
        yield from (_one(cell, point) for point in points)
        return
    parallel = joblib.Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")
    yield from parallel(joblib.delayed(_one)(cell, point) for point in points)


def _one(cell: Cell, point: Row) -> tuple[Row, Row]:
    """One cell, after the course's set-up, here or on a worker."""
    session.setup()
    return point, cell(**point)


@contextmanager
def _backend(workers: int) -> Iterator[None]:
    """Joblib's own processes, or the Dask cluster that the environment names."""
    address = os.environ.get(DASK)
    if not address:
        yield
        return
    from distributed import Client  # only where a cluster is used

    with Client(address), joblib.parallel_config(backend="dask"):  # type: ignore[no-untyped-call]
        yield


def _row(point: Row, result: object) -> Row:
    if not isinstance(result, dict):
        raise ValueError(f"a cell must return a dict, got {type(result).__name__} at {point}")
    clash = set(point) & set(result)
    if clash:
        raise ValueError(f"the cell returns {sorted(clash)}, which are arguments of the grid")
    kept: Row = json.loads(_line(point | result))  # what a file would give back, or refused
    return kept


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
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"a row must hold finite numbers and words only: {row!r} ({error})"
        ) from None


def _key(point: Row) -> str:
    try:
        return json.dumps(point, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the grid may hold numbers and words only: {point!r} ({error})") from None
