"""Take the place of a learner's file so that theirs is kept, whatever happens meanwhile.

What is there gets a second name first. So a program that is just saving into the file saves into what
is kept, and an end between the two steps loses nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

from teachkit.core import files


def names(path: Path, word: str) -> Iterator[Path]:
    """Names beside a file's own, the first of which may be taken.

    >>> two = names(Path("02_taylor.ipynb"), "new")
    >>> next(two).name, next(two).name
    ('02_taylor-new.ipynb', '02_taylor-new-2.ipynb')
    """
    yield path.with_stem(f"{path.stem}-{word}")
    for number in range(2, sys.maxsize):
        yield path.with_stem(f"{path.stem}-{word}-{number}")


def replace(path: Path, content: bytes) -> Path:
    """Put our content under the name of what is there; where the learner's is kept now."""
    kept = keep(path, path)
    try:
        files.replace(path, content)
    except BaseException:
        if path.is_file() and kept.samefile(path):
            kept.unlink()
        raise
    return kept


def keep(source: Path, path: Path) -> Path:
    """Give ``source`` a second name, that of ``path`` with the date."""
    for name in names(path, date.today().isoformat()):
        with suppress(FileExistsError):
            second_name(source, name)
            return name
    raise AssertionError("names do not end")


def second_name(path: Path, name: Path) -> None:
    """Keep what is at ``path`` under another name too; FileExistsError if that is taken.

    A folder moves there.
    """
    if path.is_symlink():
        os.symlink(os.readlink(path), name)
    elif path.is_dir():
        if os.path.lexists(name):
            raise FileExistsError(name)
        path.rename(name)
    else:
        files.link(path, name)
