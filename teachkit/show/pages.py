"""Text that a cell shows: the source of a function, the map of the course, where the glossary is."""

import inspect
import json
import os
import re
from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from teachkit.core import door, places
from teachkit.lab.data import folder

PAGES = {"Glossary": "glossary", "Formulas": "formulas"}  # of the folder docs


class Page:
    """A text in Markdown for JupyterLab, HTML and slides, and in plain words elsewhere."""

    def __init__(self, markdown: str, plain: str) -> None:
        self.markdown, self.plain = markdown, plain

    def __repr__(self) -> str:
        return self.plain

    def _repr_markdown_(self) -> str:
        return self.markdown


def source(function: Callable[..., Any], *, docstring: bool = False) -> Page:
    """Show the code of a function or class as it runs and is tested.

    Args:
        function: anything ``inspect`` finds a source for.
        docstring: keep the docstring; without it the code fits on a slide.

    """
    try:
        text = inspect.getsource(function).rstrip()
    except (TypeError, OSError) as error:
        raise TypeError(f"{function!r} has no Python source to show") from error
    if inspect.getdoc(function) and not docstring and text.count('"""') >= 2:
        before, _, rest = text.partition('"""')
        text = before.rstrip(" r") + rest.partition('"""')[2].removeprefix("\n")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)  # a shorter one would end at the first such run in the code
    return Page(f"{fence}python\n{text}\n{fence}", text)


class Lesson(NamedTuple):
    """What a notebook's name and first cell say of its lesson; empty where they say nothing."""

    stem: str
    question: str
    minutes: str

    @property
    def title(self) -> str:
        """Number and name."""
        return self.stem.replace("_", " ")

    @property
    def module(self) -> str:
        """The module of the same name, if there is one."""
        module = f"teachkit.{self.stem[3:]}"
        return module if find_spec(module) else ""


def notebooks() -> list[Path]:
    """The lessons beside the course's data, in order; copies such as 05_obs-Copy1 do not count.

    A package that was installed without the checkout has none.
    """
    paths = sorted((folder().parent / "notebooks").glob("*.ipynb"))
    return [path for path in paths if re.fullmatch(r"\d\d_[a-z_]+", path.stem)]


def lesson(path: Path) -> Lesson:
    """Read a notebook's first cell: its line "**The question**: …" (or the title) and its minutes."""
    text = "".join(json.loads(path.read_text("utf-8"))["cells"][0]["source"])
    question = re.search(r"^\*\*The question\*\*: (.+)", text, re.M) or re.search("# (.+)", text)
    minutes = re.search(r"Time: (\d+) minutes", text)
    return Lesson(path.stem, *(match.group(1) if match else "" for match in (question, minutes)))


def course_map(here: str = "00") -> Page:
    """The lessons that are there, with their questions, as a table with links but to ``here``."""
    lessons = [lesson(path) for path in notebooks()]
    if not lessons:
        text = (
            "The notebooks are not installed with the package teachkit: the map of the course is "
            "in its checkout, in the folder notebooks."
        )
        return Page(text, text)
    gaps = _gaps([int(it.stem[:2]) for it in lessons])
    rows = ["| lesson | question it answers | min | module of teachkit |", "|---|---|---|---|"]
    rows += [_row(it, here) for it in lessons]
    plain = [f"{it.title}: {it.question} ({it.minutes} minutes) {it.module}" for it in lessons]
    return Page("\n".join(rows + gaps), "\n".join(line.rstrip() for line in plain + gaps))


def _row(it: Lesson, here: str) -> str:
    """A line of the table, with a link that JupyterLab follows from beside the notebooks."""
    mine = it.stem.startswith(here)
    name = f"{it.title} (this one)" if mine else f"[{breakable(it.title)}]({it.stem}.ipynb)"
    question = it.question.replace("|", "\\|")
    module = it.module.removeprefix("teachkit.")  # the whole name would not fit a narrow window
    parts = breakable(module)
    code = f"<code>{parts}</code>" if parts != module else f"`{module}`" if module else ""
    return f"| {name} | {question} | {it.minutes} | {code} |"


def breakable(words: str) -> str:
    """HTML in which a long word may go on in the next line, where the window is narrow.

    >>> breakable("sparse_training, compression")
    'sparse_<wbr>training, compres<wbr>sion'
    """
    return re.sub(r"(_|[a-z]{7}(?=[a-z]{3}))", r"\1<wbr>", words)


def _gaps(numbers: list[int]) -> list[str]:
    """A sentence on the numbers that are left out, so that 11 after 09 surprises nobody."""
    *others, last = [f"{n:02d}" for n in range(max(numbers)) if n not in numbers] or [""]
    which = f"Lessons {', '.join(others)} and {last} are" if others else f"Lesson {last} is"
    return (
        [f"\n{which} not part of this edition: go on with the next in the table."] if last else []
    )


def reference() -> str:
    """Links to glossary and formulas, as HTML that JupyterLab follows from beside the learner's copies.

    An empty text where only the package is installed.
    """
    root = places.root()
    if root is None:
        return ""
    here = places.work() or root / "notebooks"
    found = [_page(word, root / "docs" / f"{name}.md", here) for word, name in PAGES.items()]
    return f"<p>{' · '.join(found)}</p>"


def _page(word: str, path: Path, here: Path) -> str:
    """A link to a page of the course; of a folder elsewhere JupyterLab shows no page but its own."""
    if not places.within(path.parents[1], here):
        return f"{word}: <code>{escape(str(path))}</code>"
    return f'<a href="{Path(os.path.relpath(path, here)).as_posix()}">{word}</a>'


door.hold(globals())
