"""What stands beside an exercise: its difficulty, its minutes, and hints that open one by one.

They stand in ``data/exercises/<NN_lesson>.toml``, one ``[[exercise]]`` for each with ``id``, ``call``
(the stub's name and parameters), ``difficulty`` from 1 to 5, ``minutes`` and ``hints``, each with the
``symptom`` in the learner's words and the ``hint``.
"""

import re
import tomllib
from functools import cache
from html import escape
from typing import NamedTuple

from teachkit.lab.data import folder
from teachkit.show.tables import NO_COMMANDS

LEVELS = 5


class Hint(NamedTuple):
    """What the learner sees, and what helps."""

    symptom: str
    hint: str


class Sheet(NamedTuple):
    """What a learner may know of an exercise before it is solved."""

    call: str
    difficulty: int
    minutes: int
    hints: tuple[Hint, ...]

    @property
    def names(self) -> list[str]:
        """The stub's parameters."""
        return re.findall(r"\w+", self.call.partition("(")[2])

    @property
    def size(self) -> str:
        """Difficulty and minutes in words."""
        return f"difficulty {self.difficulty} of {LEVELS}, about {self.minutes} minutes"


@cache
def sheets() -> dict[str, Sheet]:
    """The sheets of all exercises by number.

    >>> sheets()["01.1"].names
    ['fxx', 'fyy', 'fxy']
    """
    found = {}
    for path in sorted((folder() / "exercises").glob("*_*.toml")):
        for item in tomllib.loads(path.read_text("utf-8"))["exercise"]:
            hints = tuple(Hint(hint["symptom"], hint["hint"]) for hint in item["hints"])
            found[item["id"]] = Sheet(item["call"], item["difficulty"], item["minutes"], hints)
    return found


def marked(text: str) -> str:
    """Text as HTML; what stands between backticks is code.

    >>> marked("`a < b` holds")
    '<code>a &lt; b</code> holds'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def folded(hints: tuple[Hint, ...], first: int = 1) -> str:
    """Hints as HTML without a script: each opens below the one before."""
    if not hints:
        return ""
    (symptom, hint), *rest = hints
    total = first + len(rest)
    return (
        f"<details><summary {NO_COMMANDS}>"
        f"Hint {first} of {total}: “{marked(symptom)}”</summary>"
        f'<div style="margin: 0.3em 0 0.3em 1.2em">{marked(hint)}{folded(tuple(rest), first + 1)}</div>'
        "</details>"
    )
