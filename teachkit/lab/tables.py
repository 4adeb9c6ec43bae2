"""A table in a file that several programs fill together: each row one line of JSON, written once.

Whoever wants to compute a row claims it first, with a lock of the operating system on a file beside
the table. Such a lock ends with its holder, however that one ends: a row claimed by a program that
was killed is free again at once, and no clock has to tell when a claim has grown old.
"""

import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from teachkit.core import files

Row = dict[str, Any]


def load(path: Path, names: Sequence[str]) -> dict[str, Row]:
    """The finished rows of a file by their point in the grid.

    Left out, and so computed again, are a line that an interrupted write has cut or that anything has
    damaged, a row that holds a NaN or an infinity, and one that holds its arguments alone. Rows that
    lack an argument, or differ for the same ones, are of another experiment: a ValueError.
    """
    rows: dict[str, Row] = {}
    _take(rows, path.read_bytes() if path.exists() else b"", path, names)
    return rows


def tidy(path: Path | str, rows: Sequence[Row]) -> None:
    """Write a table in the order given, one row a line, whole or not at all."""
    files.replace(path, "".join(line(row) for row in rows))


class Table:
    """The rows that are finished, by point, and the claims that this program holds.

    Without a path there is nobody to share with. Several threads may use one table.
    """

    def __init__(self, path: Path | None, names: Sequence[str]) -> None:
        """Read what is there; the file need not exist, nor be writable, before the first claim."""
        self.path, self.names = path, names
        self.rows = {} if path is None else load(path, names)
        self.trouble: Exception | None = None
        self._claims: dict[str, tuple[Row, FileLock | None]] = {}
        self._inside = threading.RLock()
        self._place = (0, 0)  # which file was read, and up to where

    def missing(self, cells: Sequence[Row]) -> list[Row]:
        """The points without a row, when what others have finished meanwhile is counted too."""
        with self._inside:
            if any(key(point) not in self.rows for point in cells):
                self._read()
            return [point for point in cells if key(point) not in self.rows]

    def open(self) -> None:
        """See that rows can be written, and end a line that an interrupted write left open."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            _append(self.path, "")

    def claimed(self, cells: Sequence[Row]) -> Iterator[Row]:
        """Claim one point after the other, as they are asked for; those of others are passed over.

        An error is kept for :meth:`add`: joblib asks from a thread in which it would be lost.
        """
        try:
            yield from (point for point in cells if self._claim(point))
        except Exception as error:
            self.trouble = error

    def under_way(self) -> list[Row]:
        """The points that are claimed here and not finished."""
        with self._inside:
            return [point for point, _ in self._claims.values()]

    def add(self, row: Row, point: Row) -> None:
        """Write a finished row and give its claim back; a row that is there already stays."""
        with self._inside, self._alone():
            self._read()
            if self.rows.setdefault(key(point), row) is row and self.path is not None:
                _append(self.path, line(row))
            self._release(key(point))
        self.check()

    def check(self) -> None:
        """Raise what went wrong while points were claimed."""
        if self.trouble is not None:
            raise self.trouble

    def close(self) -> None:
        """Give all claims back: whoever comes next may compute these rows."""
        with self._inside:
            for name in list(self._claims):
                self._release(name)

    def _claim(self, point: Row) -> bool:
        name, lock = key(point), None
        with self._inside:
            if name in self.rows:
                return False
            if self.path is not None:
                digest = hashlib.sha256(name.encode()).hexdigest()[:24]
                lock = _lock(self.path, f"{digest}.claim")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    return False
            self._claims[name] = (point, lock)
            self._read()
            if name in self.rows:  # finished between the last look and the claim
                self._release(name)
            return name not in self.rows

    def _release(self, name: str) -> None:
        _, lock = self._claims.pop(name, (None, None))
        if lock is not None:
            _unlock(lock)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes."""
        if self.path is None:
            yield
            return
        lock = _lock(self.path, "lock")
        lock.acquire()
        try:
            yield
        finally:
            _unlock(lock)

    def _read(self) -> None:
        """Take in the lines that were finished since the last look, or all of another file."""
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as stream:
            now = os.fstat(stream.fileno())
            known, start = self._place
            start = start if known == now.st_ino and start <= now.st_size else 0
            stream.seek(start)
            new = stream.read(now.st_size - start)
        whole = new[: new.rfind(b"\n") + 1]  # the rest is being written
        _take(self.rows, whole, self.path, self.names)
        self._place = (now.st_ino, start + len(whole))


def _lock(path: Path, suffix: str) -> FileLock:
    # Not thread_local: acquired in one of joblib's threads and released in another.
    return FileLock(path.with_name(f".{path.name}.{suffix}"), thread_local=False)


def _unlock(lock: FileLock) -> None:
    """Remove the file while it is held: who has it open already sees that it has no name any more."""
    if os.name != "nt":  # Windows removes no file that is open, and there its name does no harm
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _take(rows: dict[str, Row], content: bytes, path: Path, names: Sequence[str]) -> None:
    """Add the rows of some lines; the first row of a point stays, and another one is refused."""
    for each in content.split(b"\n"):
        try:
            row = json.loads(each, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError):  # cut off, in the middle of a letter too
            continue
        if not isinstance(row, dict) or not set(names) <= set(row):
            raise ValueError(
                f"{path} is not of this experiment: it has the row {row!r}, the grid {list(names)}"
            )
        if len(row) == len(names):
            continue
        name = key({name: row[name] for name in names})
        if rows.setdefault(name, row) != row:
            raise ValueError(
                f"{path} is not of this experiment: it has two rows for {name}: {rows[name]!r} and {row!r}"
            )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _append(path: Path, text: str) -> None:
    """Add a line; what an interrupted write has left without an end gets one first."""
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            text = text if stream.read(1) == b"\n" else "\n" + text
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def line(row: Row) -> str:
    """A row as a line of the file; what JSON cannot hold is a ValueError."""
    return _json(row, "a row must hold finite", ensure_ascii=False) + "\n"


def key(point: Row) -> str:
    """A point of the grid as a word.

    >>> key({"b": 2, "a": 1})
    '{"a": 1, "b": 2}'
    """
    return _json(point, "the grid may hold", sort_keys=True)


def _json(row: Row, allowed: str, **options: bool) -> str:
    try:
        return json.dumps(row, allow_nan=False, **options)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{allowed} numbers and words only: {row!r} ({error})") from None
