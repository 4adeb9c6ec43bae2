"""The folder of the decks: its table of contents, and how a new one takes the place of the old."""

import html
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

SLIDE = re.compile(r'<section data-cell="[^"]*" data-timing="(\d+)">')
ABOUT = re.compile(r'<title>(.*?)</title>\s*<meta name="description" content="(.*?)">', re.S)


class Row(NamedTuple):
    """A deck in the table of contents."""

    stem: str
    title: str
    question: str
    slides: int
    minutes: float
    pdf: bool


def rows(folder: Path) -> list[Row]:
    """The decks of a folder, as they say of themselves."""
    return [_row(path) for path in sorted(folder.glob("[0-9][0-9]_*.html"))]


def _row(path: Path) -> Row:
    text = path.read_text("utf-8")
    seconds = [int(found) for found in SLIDE.findall(text)]
    about = ABOUT.search(text)
    title, question = map(html.unescape, about.groups()) if about else (path.stem, "")
    pdf = path.with_suffix(".pdf").exists()
    return Row(path.stem, title, question, len(seconds), sum(seconds) / 60, pdf)


def keep(old: Path, new: Path, stems: Collection[str]) -> None:
    """Take over the decks of these lessons from an earlier folder."""
    for path in old.glob("[0-9][0-9]_*"):
        if path.stem in stems:
            shutil.copy2(path, new / path.name)


def take_place(part: Path, out: Path) -> None:
    """Give a new folder the name of the old one, which goes."""
    old = part.with_name(f"{part.name}.old")
    if out.exists():
        out.rename(old)
    part.chmod(0o755)
    try:
        part.rename(out)
    except BaseException:  # interrupted, too
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
