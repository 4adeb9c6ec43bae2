"""Tables: HTML that everyone can read, and the same numbers as plain text, which nbval compares.

A table is given as records (a list of dicts), as columns (a dict of lists) or as a DataFrame. The first
column names the rows. Rows stay in the order given: a mean whose interval overlaps another's comes
neither before nor after it, and both are marked where one is best.
"""

import html
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from teachkit.core import door
from teachkit.core.contract import quoted
from teachkit.show import columns, rows, styles
from teachkit.show.columns import Best, Cell, Numbers

STAR = "* the best of its column, and all that cannot be told from it: their intervals overlap."
STAR_PLAIN = "* the best of its column."
PAD = "\u2007"  # a space as wide as a digit
NO_COMMANDS = 'data-lm-suppress-shortcuts="true"'  # keys typed on it are none of JupyterLab's
BOX = "overflow-x: auto; max-width: 100%; container-type: inline-size"
TABLE = "border-collapse: collapse; font-variant-numeric: tabular-nums; width: auto; margin: 0"
CAPTION = (
    "caption-side: top; text-align: left; padding: 0.3em 0; font-weight: bold; color: inherit; "
)
CAPTION += "min-width: min(30em, 100cqw)"  # else no wider than a narrow table
HEAD = "border-bottom:1px solid currentColor;padding:.3em .8em;white-space:nowrap"
BODY = "padding:.2em .8em;white-space:nowrap"  # in every cell of every notebook, so short
NOTE = "font-size: 0.9em; padding: 0.3em 0"


class Column(NamedTuple):
    """A column as text."""

    name: str
    numeric: bool
    texts: list[str]
    stars: list[bool]

    @property
    def lines(self) -> list[str]:
        """The lines of the plain column below one another, all of one width."""
        marks = [" *" if star else "  " for star in self.stars] if any(self.stars) else None
        lines = [self.name + "  " * bool(marks)]
        lines += [
            text + mark
            for text, mark in zip(self.texts, marks or [""] * len(self.texts), strict=True)
        ]
        width = max(map(len, lines))
        return [line.rjust(width) if self.numeric else line.ljust(width) for line in lines]


class Table:
    """Columns of text under a caption, as HTML and as plain text with the same numbers."""

    def __init__(self, caption: str, shown: Sequence[Column], notes: Sequence[str]) -> None:
        self.caption, self.shown, self.notes = caption, shown, notes

    def __repr__(self) -> str:
        lines = [
            "  ".join(row).rstrip() for row in zip(*(c.lines for c in self.shown), strict=True)
        ]
        return "\n".join([self.caption, *lines, *self.notes])

    @property
    def html(self) -> str:
        """A <table> with caption and headers, which scrolls by itself where it is too wide."""
        caption = html.escape(self.caption)
        head = "".join(_tag("th", c.name, c.numeric, HEAD, ' scope="col"') for c in self.shown)
        body = "".join(self._row(i) for i in range(len(self.shown[0].texts)))
        notes = "".join(f'<div style="{NOTE}">{html.escape(note)}</div>' for note in self.notes)
        return (
            f'<div role="group" aria-label="{caption}" tabindex="0" {NO_COMMANDS} style="{BOX}">'
            f'<table style="{TABLE}"><caption style="{CAPTION}">{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
        )

    def _row(self, i: int) -> str:
        first, *others = self.shown
        named = _tag("th", first.texts[i], first.numeric, BODY, ' scope="row"')
        return f"<tr>{named}{''.join(_data(column, i) for column in others)}</tr>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html}


def _data(column: Column, i: int) -> str:
    """A cell with its mark, or with as much room where another of its column has one."""
    text = _typeset(column.texts[i]) if column.numeric else html.escape(column.texts[i])
    if any(column.stars):
        text = (
            f"<b>{text}</b> *"
            if column.stars[i]
            else text + '<span style="visibility: hidden"> *</span>'
        )
    side = "right" if column.numeric else "left"
    return f'<td style="{BODY};text-align:{side}">{text}</td>'


def _tag(tag: str, text: str, right: bool, style: str, more: str) -> str:
    side = "right" if right else "left"
    return f'<{tag}{more} style="{style};text-align:{side}">{html.escape(text)}</{tag}>'


def _typeset(text: str) -> str:
    """Padding as wide as digits, powers of ten, and minus signs that are read aloud."""
    page = html.escape(text).replace(" " * 2, PAD * 2).replace("( ", "(" + PAD)
    page = re.sub(r"(?<=\d)e([-+]\d+)", lambda m: f" × 10<sup>{int(m[1])}</sup>", page)
    return re.sub(r"(?<!\w)-(?=[\d.]|infinite)", "−", page)


def table(
    data: Any,
    *,
    caption: str,
    units: Mapping[str, str] | None = None,
    digits: int | Mapping[str, int] = 3,
    decimals: int | Mapping[str, int] | None = None,
    signed: bool | Collection[str] = False,
    best: str | Mapping[str, str] | None = None,
) -> Table:
    """Show a table; its first column names the rows.

    Args:
        data: records, a dict of columns or a DataFrame; see :mod:`teachkit.show.columns` for what a
            cell may hold. A column that is an ``Interval`` of arrays has one interval in each row.
        caption: what the table shows, in a sentence.
        units: by column; the header shows them in brackets.
        digits: significant digits of a column's largest number; all others have as many decimals.
        decimals: digits after the point instead, for all columns or by column; whole numbers and
            the names of the rows have none.
        signed: columns whose positive numbers get a plus sign, such as differences; True for all.
        best: "max" or "min" for all columns of numbers but the first, or by column. The best value is
            marked, and each that cannot be told from it because the intervals overlap.

    Raises:
        TypeError, ValueError: what cannot be shown, named by column and row.

    """
    if not caption.strip():
        raise ValueError("caption must say what the table shows, got an empty text")
    given = rows.read(data)
    names = list(given)
    settings = [
        _setting("digits", digits, 3, names),
        _setting("decimals", decimals, None, names),
        {n: signed is True or (signed is not False and n in signed) for n in names},
    ]
    _known("signed", [] if isinstance(signed, bool) else signed, names)
    _known("units", units or {}, names)
    wanted = _wanted(best, given)
    first, *_ = given
    numbered = all(isinstance(c, Numbers) for c in given[first])
    given[first] = columns.names(given[first])
    shown = [
        _column(name, cells, tuple(each[name] for each in settings), wanted.get(name))
        for name, cells in given.items()
    ]
    shown = [c._replace(name=_header(c.name, units or {})) for c in shown]
    shown[0] = shown[0]._replace(numeric=numbered)
    return Table(caption, shown, list(_notes(given, wanted)))


def _known(what: str, named: Collection[str], names: Sequence[str]) -> None:
    for name in named:
        if name not in names:
            raise ValueError(f"{what} names the column {name!r}; there are {', '.join(names)}")


def _setting(what: str, given: Any, otherwise: Any, names: Sequence[str]) -> dict[str, Any]:
    """A value for each column."""
    if isinstance(given, Mapping):
        _known(what, given, names)
        return {name: given.get(name, otherwise) for name in names}
    return dict.fromkeys(names, given)


def _wanted(best: Any, given: Mapping[str, list[Cell]]) -> dict[str, Best]:
    """What is best, by column."""
    others = [n for n in list(given)[1:] if any(isinstance(c, Numbers) for c in given[n])]
    wanted = (
        dict(best) if isinstance(best, Mapping) else dict.fromkeys(others if best else [], best)
    )
    _known("best", wanted, list(given))
    for name, want in wanted.items():
        if want not in get_args(Best):
            raise ValueError(f"best of {name!r} must be 'max' or 'min', got {quoted(want)}")
    return wanted


def _column(name: str, cells: list[Cell], setting: tuple[Any, ...], want: Best | None) -> Column:
    parts = columns.written(cells, columns.how_of(*setting))
    pairs = list(zip(cells, parts, strict=True))
    spans = [p for c, p in pairs if isinstance(c, Numbers) and c.kind == "interval"]
    widths = [max(map(len, each)) for each in zip(*spans, strict=True)] or [0, 0, 0]
    texts = [columns.joined(c, p, widths) for c, p in pairs]
    stars = columns.best(f"column {name!r}", cells, texts, want) if want else [False] * len(cells)
    return Column(name, any(isinstance(c, Numbers) for c in cells), texts, stars)


def _header(name: str, units: Mapping[str, str]) -> str:
    return f"{name} ({units[name]})" if name in units else name


def _notes(given: Mapping[str, list[Cell]], wanted: Mapping[str, Best]) -> list[str]:
    kinds = {n: {c.kind for c in cells if isinstance(c, Numbers)} for n, cells in given.items()}
    notes = [styles.BRACKETS] if any("interval" in kind for kind in kinds.values()) else []
    if wanted:
        notes.append(STAR if any("interval" in kinds[n] for n in wanted) else STAR_PLAIN)
    return notes


door.hold(globals())
