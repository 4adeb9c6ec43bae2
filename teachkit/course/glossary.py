"""The glossary and the formula sheet, read from the pages that a learner reads: ``docs/*.md``.

There is no second copy of them: the tests, the website and whoever else wants a term asks here.
A package that was installed without its course has neither the pages nor the lessons they lead to.
"""

import re
from pathlib import Path
from typing import NamedTuple

from teachkit.core import places

TABLE = "English and Korean"  # the section below the terms
LESSON = r"\[[^\]]+\]\(\.\./notebooks/(\w+)\.ipynb\)"
FACTS = re.compile(
    rf"^(?:Korean: (?P<korean>.+?)\. )?(?:Symbol: (?P<symbol>.+?)\. )?Lesson: {LESSON}$", re.M
)
FORMULA = re.compile(
    r"(?P<name>.+)\n\n\$\$(?P<tex>.+)\$\$\n\n(?P<text>(?:.+\n)+)\n"
    r"Code: (?P<code>`[\w.]+`(?:, `[\w.]+`)*)\.(?:\sSource: (?P<source>(?:.+\n?)+)\.)?\n*"
)


class Term(NamedTuple):
    """An entry of the glossary; Korean and symbol are empty where there is none."""

    name: str
    korean: str
    text: str
    symbol: str
    lesson: str

    @property
    def anchor(self) -> str:
        """What stands behind ``glossary.md#`` in a link, as GitHub makes it of the heading.

        >>> Term("n:m pattern", "", "", "", "03_masks").anchor
        'nm-pattern'
        """
        return re.sub(r"[^\w\- ]", "", self.name.lower()).replace(" ", "-")


class Formula(NamedTuple):
    """An entry of the formula sheet: TeX, words, the functions that compute it, where it is from."""

    name: str
    lesson: str
    tex: str
    text: str
    code: tuple[str, ...]
    source: str


def page(name: str) -> Path:
    """A page of ``docs``, e.g. "glossary"; FileNotFoundError where only the package is installed."""
    root = places.root()
    path = root / "docs" / f"{name}.md" if root else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"no page {name!r}: the pages are in the folder docs of the course")
    return path


def terms() -> dict[str, Term]:
    """The entries of the glossary by name, in the order of the page.

    >>> terms()["local maximum"].korean, terms()["local maximum"].lesson
    ('극대', '01_hessian')
    """
    sections, _ = _split(page("glossary").read_text("utf-8"))
    return {name: _term(name, text) for name, text in sections}


def korean() -> list[tuple[str, str, bool]]:
    """The table at the end: English, Korean, and whether the lecture notes have a word of it."""
    _, table = _split(page("glossary").read_text("utf-8"))
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.M)[1:]
    return [(english, words, note != "no") for english, words, note in rows]


def formulas() -> list[Formula]:
    """The entries of the formula sheet, lesson by lesson.

    >>> next(it.code for it in formulas() if it.name == "Saliency")
    ('teachkit.obd.saliency',)
    """
    text = page("formulas").read_text("utf-8")
    lessons = re.split(r"^## (\d\d [\w ]+)\n", text, flags=re.M)[1:]
    return [
        _formula(entry, lesson.replace(" ", "_"))
        for lesson, part in zip(lessons[::2], lessons[1::2], strict=True)
        for entry in re.split(r"^### ", part, flags=re.M)[1:]
    ]


def _split(text: str) -> tuple[list[tuple[str, str]], str]:
    """The sections of the glossary with their headings, and what stands below the last heading."""
    parts = re.split(r"^## (.+)\n", text, flags=re.M)[1:]
    sections = list(zip(parts[::2], parts[1::2], strict=True))
    if not sections or sections[-1][0] != TABLE:
        raise ValueError(f"the glossary does not end with the section {TABLE!r}")
    return sections[:-1], sections[-1][1]


def _term(name: str, text: str) -> Term:
    found = FACTS.search(text)
    words = " ".join(text[: found.start()].split()) if found else ""
    if not found or not words or text[found.end() :].strip():
        raise ValueError(
            f"the entry {name!r} is not a text with a last line 'Korean: … . Symbol: … . Lesson: [..](..)'"
        )
    return Term(name, found["korean"] or "", words, found["symbol"] or "", found[3])


def _formula(entry: str, lesson: str) -> Formula:
    found = FORMULA.fullmatch(entry)
    if not found:
        name = entry.partition("\n")[0]
        raise ValueError(
            f"the formula {name!r} is not $$…$$, a text, 'Code: `…`.' and 'Source: … .'"
        )
    text, source = (" ".join((found[key] or "").split()) for key in ("text", "source"))
    code = tuple(found["code"].replace("`", "").split(", "))
    return Formula(found["name"], lesson, found["tex"], text, code, source)
