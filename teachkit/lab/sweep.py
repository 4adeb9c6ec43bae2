"""Run an experiment over a grid, in parallel, so that nothing finished is ever computed twice.

A cell of the grid is one call of a function with keyword arguments; its result is a dict of numbers
and words. The table is a list of such rows. With a file, every finished cell is on disk at once, as
one line of JSON, and a run that was interrupted goes on from there.
"""

import itertools
import json
import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import TerminatedWorkerError

from teachkit.core import bars, checks, door
from teachkit.lab import session
from teachkit.lab.tables import Row as Row
from teachkit.lab.tables import Table as Table
from teachkit.lab.tables import key as key
from teachkit.lab.tables import line
from teachkit.lab.tables import load as load
from teachkit.lab.tables import tidy as tidy

Cell = Callable[..., Row]
DASK = "TEACHKIT_DASK"
AT = "at the grid point"
WAIT = 0.2  # seconds between two looks at what other programs have finished


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
        file: where finished cells are kept, see ``lab.tables``. Cells found there are not run again,
            and several programs that name one file share the work: each cell is claimed by one, and
            what a killed one had claimed goes to the others. That the file can be written is tried
            before the first cell. Cells are known by their arguments alone: after a change of the
            function name a new file.
        workers: processes on this machine; 1 runs the cells here. The cells that were under way when
            a worker was killed are run again, one at a time.
        progress: show a progress bar where it takes long, see ``core.bars``.

    Raises:
        ValueError: an empty grid, a result that is no dict of finite numbers and words (NaN, a
            tensor, a date), or a file of another experiment.
        RuntimeError: a worker was killed twice by one cell; or an error that cannot pass from one
            process to another, in words. Any other error of a cell keeps its type and its cause. All
            of them name the cell, and what was finished before is in the file.

    >>> def square(x, power):
    ...     return {"y": x**power}
    >>> run(square, {"x": [2, 3], "power": [2]}, progress=False)
    [{'x': 2, 'power': 2, 'y': 4}, {'x': 3, 'power': 2, 'y': 9}]

    """
    checks.whole("workers", workers, 1)
    cells = points(grid)
    table = Table(None if file is None else Path(file), list(grid))
    todo = table.missing(cells)
    if todo:
        table.open()
        with _cluster(), bars.bar(desc="cells", total=len(cells), show=progress) as bar:
            while todo:
                bar.update(len(cells) - len(todo) - bar.n)
                if not _fill(table, cell, todo, workers, bar):
                    time.sleep(WAIT)  # all that is left is under way elsewhere
                todo = table.missing(cells)
    return [table.rows[key(point)] for point in cells]


def _fill(table: Table, cell: Cell, todo: list[Row], workers: int, bar: Any) -> int:
    """Run what nobody else has claimed; how many cells that were."""
    count = 0
    try:
        for point, result in _results(table, cell, todo, workers):
            table.add(_row(point, result), point)
            bar.update()
            count += 1
        table.check()
    except Exception as error:
        if not any(AT in note for note in getattr(error, "__notes__", [])):
            error.add_note(f"{AT} {table.under_way()}")
        raise
    finally:
        table.close()
    return count


def _results(
    table: Table, cell: Cell, todo: list[Row], workers: int
) -> Iterator[tuple[Row, object]]:
    """The cells in parallel; those that were under way when a worker was killed, again and alone.

    Alone, because memory that ran out for several may do for one, and because then there is no doubt
    which cell it was that killed its worker.
    """
    options = {"batch_size": 1, "pre_dispatch": "n_jobs", "return_as": "generator_unordered"}
    share, one = joblib.Parallel(n_jobs=workers, **options), joblib.delayed(_one)
    try:
        yield from share(one(cell, point, os.getpid()) for point in table.claimed(todo))
    except TerminatedWorkerError:
        for point in table.under_way():
            try:  # two jobs, since one would run it here
                yield joblib.Parallel(n_jobs=2)([one(cell, point, os.getpid())])[0]
            except TerminatedWorkerError as error:
                raise RuntimeError(
                    f"a worker was killed twice, the second time while it ran nothing but the cell {point}"
                ) from error


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
    if len({key(point) for point in cells}) < len(cells):
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


class Failure(NamedTuple):
    """What a cell has raised in another process, and the traceback there in words."""

    error: Exception
    trace: str


def _one(cell: Cell, point: Row, client: int) -> tuple[Row, object]:
    """One cell, after the course's set-up, here or on a worker; an error says which one it was."""
    session.setup()
    try:
        return point, cell(**point)
    except Exception as error:
        error.add_note(f"{AT} {point}")
        if os.getpid() == client:
            raise
        # Returned, not raised: joblib would drop what others have finished at the same time.
        return point, _failure(error)


def _failure(error: Exception) -> Failure:
    """The error as it is, or in words if another process could not read it."""
    trace = "".join(traceback.format_exception(error))
    try:
        if type(pickle.loads(dumps(error))) is type(error):  # noqa: S301 -- our own bytes
            return Failure(error, trace)
    except Exception as reason:
        trace += f"{reason}\n"
    words = RuntimeError(f"{type(error).__name__}: {error}")
    words.add_note(error.__notes__[-1])
    return Failure(words, trace)


def _row(point: Row, result: object) -> Row:
    if isinstance(result, Failure):
        raise result.error from RuntimeError(f"in a worker:\n{result.trace}")
    if not isinstance(result, dict) or not result:
        what = "an empty one" if result == {} else type(result).__name__
        raise ValueError(f"a cell must return a dict, got {what} at {point}")
    clash = set(point) & set(result)
    if clash:
        raise ValueError(
            f"the cell returns {sorted(clash)}, which are arguments of the grid, at {point}"
        )
    row: Row = json.loads(line(point | result))  # what a file would give back, or refused
    return row


door.hold(globals())
