"""What the learner's folder was made from: a small file in it, which no damage makes dangerous.

Where it is lost, or says something else than it should, nothing is known of any notebook there, and
so each of them counts as the learner's own.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from teachkit.core import files

NAME = ".course.json"


class Entry(NamedTuple):
    """Of one notebook: the digest of the version copied, of the one laid beside, and its name."""

    copied: str = ""
    offered: str = ""
    beside: str = ""


class Manifest:
    """The entries by the notebook's name; each change is on the disk at once, for what follows may fail."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.entries = _read(self.path)

    def __getitem__(self, name: str) -> Entry:
        return self.entries.get(name, Entry())

    def __setitem__(self, name: str, entry: Entry) -> None:
        if self.entries.get(name) != entry:
            self.entries[name] = entry
            content = {name: entry._asdict() for name, entry in sorted(self.entries.items())}
            files.replace(self.path, json.dumps(content, indent=1) + "\n")


def digest(content: bytes) -> str:
    """The SHA-256 of a version.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> dict[str, Entry]:
    try:
        content = json.loads(path.read_bytes())
        return {name: _entry(value) for name, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _entry(value: dict[str, str]) -> Entry:
    given = Entry(**value)
    if not all(isinstance(word, str) for word in given) or Path(given.beside).name != given.beside:
        raise ValueError(value)
    return given
