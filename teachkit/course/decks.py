"""From a notebook to slides: what its cells' metadata say of a lecture.

``slideshow.slide_type`` begins a slide (slide, subslide), goes on with it step by step (fragment) or at
once (none), leaves a cell out (skip), or gives it to the lecturer (notes). Code is not shown, its
result is; the tag ``show-input`` shows it, too. ``slideshow.heading``, ``slideshow.minutes`` and
``slideshow.layout`` overrule what is guessed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from nbformat import NotebookNode

from teachkit.course import parts
from teachkit.course.parts import Part

BEGINS = ("slide", "subslide")
LEFT_OUT = {"exercise", "check", "solution", "appendix"}  # tags of cells that no slide shows
LAYOUTS = ("auto", "rows", "columns")
PACE = 110  # words a minute, of what is shown and what is said
LOOK = {"picture": 1.0, "explorer": 2.0, "table": 0.75, "code": 1.0, "question": 1.5}  # minutes
SAID = ("<p><strong>You will", "<p><strong>You need")
HEADING = re.compile(r"\s*<h([1-6])[^>]*>(.*?)</h\1>", re.S)


class DeckError(Exception):
    """A deck cannot be made; the message says of which notebook and why."""


@dataclass
class Slide:
    """One slide: a heading, what stands below it, and what the lecturer is told."""

    cell: str
    heading: str = ""
    level: int = 2
    layout: str = "auto"
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    given: float = 0.0  # minutes, if the author says how many

    @property
    def minutes(self) -> float:
        """How long it takes, in halves of a minute: reading, looking, voting and talking."""
        words = sum(len(part.words.split()) for part in self.parts)
        words += sum(len(parts.plain(note).split()) for note in self.notes)
        guess = words / PACE + sum(LOOK.get(part.kind, 0) for part in self.parts)
        return self.given or max(1.0, round(2 * guess) / 2)

    def add(self, made: Iterable[Part], step: bool) -> None:
        """Put parts below those that are there; the first heading becomes the slide's own."""
        for part in made:
            found = HEADING.match(part.html) if part.kind == "text" else None
            if found and self.heading in ("", found[2]):
                self.heading, self.level = found[2], int(found[1])
                part = part._replace(html=part.html[found.end() :].strip())
                part = self._title(part) if self.level == 1 else part
            if part.html:
                self.parts.append(part._replace(step=part.step or step))

    def _title(self, part: Part) -> Part:
        """On the first slide stands the question; what one will learn and needs, the lecturer says."""
        paragraphs = part.html.split("\n")
        self.notes += [p for p in paragraphs if p.startswith(SAID)]
        return part._replace(html="\n".join(p for p in paragraphs if not p.startswith(SAID)))


@dataclass
class Deck:
    """The slides of a lesson."""

    stem: str
    slides: list[Slide]

    @property
    def title(self) -> str:
        """The heading of the first slide, in plain words."""
        return parts.plain(self.slides[0].heading) or self.stem

    @property
    def minutes(self) -> float:
        """How long all slides take."""
        return sum(slide.minutes for slide in self.slides)


def deck(stem: str, notebook: NotebookNode, decks: Sequence[str] = ()) -> Deck:
    """The deck of a notebook; links to lessons among ``decks`` lead to their decks.

    Raises:
        DeckError: no cell begins a slide, or the metadata of one mean nothing.

    """
    slides: list[Slide] = []
    for cell, kind in _shown(notebook.cells):
        if kind in BEGINS:
            slides.append(_begin(stem, cell))
        if slides and kind == "notes":
            slides[-1].notes += parts.said(cell, decks)
        elif slides:
            _show(slides[-1], cell, decks, step=kind == "fragment")
    if not slides:
        raise DeckError(f"{stem} has no slides: give a cell the slide type 'slide'")
    _inherit(slides)
    return Deck(stem, slides)


def _shown(cells: Iterable[NotebookNode]) -> Iterator[tuple[NotebookNode, str]]:
    """The cells of a lecture with their slide types.

    A heading without a type after skipped cells is skipped, too, with what follows it.
    """
    before, off = "", False
    for cell in cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "")
        heads = cell.cell_type == "markdown" and cell.source.startswith("#")
        off = not kind and (off or (before == "skip" and heads))
        before = kind
        if not off and kind != "skip" and not LEFT_OUT & set(cell.metadata.get("tags", [])):
            yield cell, kind


def _begin(stem: str, cell: NotebookNode) -> Slide:
    show = cell.metadata["slideshow"]
    layout, minutes = show.get("layout", "auto"), show.get("minutes", 0)
    if layout not in LAYOUTS:
        raise DeckError(f"{stem}, cell {cell.id}: layout must be one of {LAYOUTS}, got {layout!r}")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 <= minutes <= 60:
        raise DeckError(f"{stem}, cell {cell.id}: minutes must be from 0 to 60, got {minutes!r}")
    heading = parts.markdown(show.get("heading", "")).removeprefix("<p>").removesuffix("</p>")
    return Slide(cell.id, heading, layout=layout, given=float(minutes))


def _show(slide: Slide, cell: NotebookNode, decks: Sequence[str], *, step: bool) -> None:
    """A result that a question on the same slide covers comes a step later."""
    asked = {part.asks for part in slide.parts if part.asks}
    for part in parts.of(cell, decks):
        slide.add([part], step or (bool(part.covered) and part.covered in asked))
        if part.asks:
            slide.add([parts.answer(part)], step=True)
            slide.notes.append(parts.expected(part.asks))


def _inherit(slides: Sequence[Slide]) -> None:
    """A slide without a heading goes on under the one before it."""
    for before, slide in pairwise(slides):
        if not slide.heading:
            slide.heading, slide.level = before.heading, max(2, before.level)
