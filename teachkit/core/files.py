"""Write a file whole or not at all.

Standard library only: the set-up uses it before anything is installed.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Lend a new path beside ``path``; what is written there takes its place at the end.

    If the block raises or is interrupted, ``path`` stays as it was and nothing is left beside it.
    The lent name cannot be guessed, so two writers never meet and no link lies in wait there.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, writing(f"{folder}/new/a.txt") as part:
    ...     _ = part.write_text("whole", "utf-8")
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        with part.open("rb+") as stream:  # on the disk before the name says so: power may fail
            os.fsync(stream.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def replace(path: Path | str, content: str | bytes) -> None:
    """Write a text in UTF-8 with Unix line ends, or bytes, whole or not at all.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     replace(f"{folder}/a.txt", "whole")
    """
    with writing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def append(path: Path | str, line: str) -> None:
    r"""Add a line to a file, which is made if need be, in one piece: any number of programs may write.

    An end of line comes before it, too: what an interrupted write has left open stays alone, and so
    there are empty lines between.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     append(f"{folder}/new/a", "one")
    ...     append(f"{folder}/new/a", "two")
    ...     Path(f"{folder}/new/a").read_text()
    '\none\n\ntwo\n'
    """
    target, content = Path(path), f"\n{line}\n".encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # A pipe under that name would wait for a reader; Windows would change line ends.
    how |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = os.open(target, how, 0o666)
    try:
        written = os.write(stream, content)
        if written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    finally:
        os.close(stream)


def create(path: Path | str, content: bytes) -> None:
    """Write a new file whole or not at all; FileExistsError where something has its name.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     create(f"{folder}/a", b"whole")
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        link(part, target)
    finally:
        part.unlink(missing_ok=True)


def link(path: Path, name: Path) -> None:
    """Give a file a second name, or a copy where the disk knows no second names.

    FileExistsError if the name is taken.
    """
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(name):
            raise FileExistsError(name) from None
        with writing(name) as part:  # half of a file under its name would be worse than a race
            part.write_bytes(path.read_bytes())
