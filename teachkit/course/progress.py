"""Say in the terminal how far the learner has come: ``python -m teachkit progress``.

The same lines stand in lesson 00 (``show.progress``); the file is read and never written here.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence

from teachkit.lab import progress
from teachkit.show import journey


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as columns.

    >>> print(table([("a", "bb"), ("ccc", "d")]))
    a    bb
    ccc  d
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def report() -> str:
    """All that there is to say."""
    file = progress.path()
    if file is None:
        return "No progress is kept: TEACHKIT_WORK is empty, or the course is not installed here."
    lines = [line.words for line in journey.lines()]
    where = f"Kept in {file}." if os.path.isfile(file) else f"Nothing is kept yet in {file}."
    return "\n".join([table([journey.HEADS, *lines]), "", *journey.notes(), where])


def main(arguments: Iterable[str]) -> int:
    """The command ``python -m teachkit progress``."""
    argparse.ArgumentParser("python -m teachkit progress", description=__doc__).parse_args(
        list(arguments)
    )
    print(report())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
