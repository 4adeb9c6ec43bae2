"""A question: what is shown of it, in which order, as text, as HTML and for the page's JavaScript."""

import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from teachkit.core import door

LETTERS = "abcdef"
SALT = "1989"  # with it no place among the options is the right one more often than chance has it
Item = TypeVar("Item")


class Option(NamedTuple):
    """One answer: its text, whether it is right, and why; in an order, its place counted from 0."""

    text: str
    right: bool
    why: str
    place: int = 0


class Reason(NamedTuple):
    """The second step: why? It is judged apart from the guess."""

    text: str
    options: list[Option]


class Question(NamedTuple):
    """A question with its options in the author's order; ``facts`` is what else its kind needs."""

    name: str
    text: str
    options: Sequence[Option] = ()
    kind: str = "choice"
    facts: dict[str, Any] = {}  # noqa: RUF012  (nobody writes into it)
    reason: Reason | None = None

    @property
    def shown(self) -> list[Option]:
        """The options in the order in which they are shown, which is fixed by the question's name.

        An order never starts as the right one.
        """
        options = shuffled(self.name, self.options)
        if self.kind == "order" and [o.place for o in options] == sorted(o.place for o in options):
            return options[1:] + options[:1]
        return options

    @property
    def truth(self) -> str:
        """What is right, in words."""
        if self.kind == "number":
            return f"{self.facts['answer']:g} {self.facts['unit']}".strip()
        if self.kind == "curve":
            places = ", ".join(map(str, self.facts["x"]))
            return ", ".join(f"{y:g}" for y in self.facts["truth"]) + f" at {places}"
        if self.kind == "order":
            return ", then ".join(o.text for o in sorted(self.options, key=lambda o: o.place))
        return "; ".join(o.text for o in self.options if o.right)

    @property
    def asks(self) -> list[str]:
        """What stands below the text, line by line, where nothing can be clicked."""
        lines = [f"({c}) {o.text}" for c, o in zip(LETTERS, self.shown, strict=False)]
        heads = {"several": "More than one is right.", "order": "Put these in order."}
        if self.kind == "number":
            unit = f" ({self.facts['unit']})" if self.facts["unit"] else ""
            return [f"Your answer: a number{unit}."]
        if self.kind == "curve":
            places, y = ", ".join(map(str, self.facts["x"])), self.facts["ylabel"]
            return [f"Your answer: a line, {y} against {self.facts['xlabel']}, at {places}."]
        return [heads[self.kind], *lines] if self.kind in heads else lines

    @property
    def plain(self) -> str:
        """The question as text, which nbval compares."""
        return "\n".join(["Quiz: " + self.text, *self.asks])

    @property
    def front(self) -> dict[str, Any]:
        """All that the page needs to ask and to judge."""
        made = {"name": self.name, "kind": self.kind, "text": self.text, "in_words": self.truth}
        reason = self.reason and {
            "text": self.reason.text,
            "options": [o._asdict() for o in shuffled(f"{self.name} why", self.reason.options)],
        }
        return {
            **self.facts,
            **made,
            "options": [o._asdict() for o in self.shown],
            "reason": reason,
        }

    @property
    def static(self) -> str:
        """The question as HTML; ``questions.js`` brings it to life on a page without a kernel."""
        lines = "<br>".join(map(html.escape, self.asks))
        data = html.escape(json.dumps(self.front, ensure_ascii=False, sort_keys=True))
        return (
            f'<div class="teachkit-question" data-question="{data}">'
            f"<p><b>{html.escape(self.text)}</b></p><p>{lines}</p>"
            "<p><i>Run this cell to answer.</i></p></div>"
        )


def shuffled(name: str, items: Sequence[Item]) -> list[Item]:
    """The items in an order that depends on the name alone.

    >>> shuffled("02.1", ["a", "b", "c"])
    ['b', 'a', 'c']
    """
    places = sorted(
        range(len(items)),
        key=lambda i: hashlib.sha256(f"{SALT} {name} {i}".encode()).digest(),
    )
    return [items[i] for i in places]


door.hold(globals())
