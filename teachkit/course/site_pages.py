"""What the website is made of: every page as a source file, by its path within the site."""

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from posixpath import normpath
from types import ModuleType

import nbformat
from nbformat import NotebookNode

from teachkit.course import glossary, site_lessons
from teachkit.show import pages

WEB = Path(__file__).parent / "web"
FIRST = ("glossary", "formulas")  # of docs; the others follow by name
PICTURE = re.compile(r"^!\[[^\]]*\]\(data/accuracy\.png\)\n\n\*[^*]+\*$", re.MULTILINE)
NO_SLIDES = (
    "The slides are not part of this copy of the site. In the folder of the course "
    "`python -m teachkit slides` makes them, and `python -m teachkit site` takes them along."
)
Sources = dict[str, str | bytes]


class SiteError(Exception):
    """The site cannot be made; the message says why and what to do."""


def address(pyproject: str) -> str:
    r"""The repository's address in a pyproject.toml, "" where it names none.

    >>> address('[project.urls]\nRepository = "https://github.com/me/course/"')
    'https://github.com/me/course'
    """
    urls = tomllib.loads(pyproject).get("project", {}).get("urls", {})
    named = {name.lower(): url for name, url in urls.items()}
    asked = ("repository", "source", "source code", "code", "homepage")
    return next((named[name].rstrip("/") for name in asked if name in named), "")


def section(readme: str, heading: str) -> str:
    """A section of README with its heading.

    Raises:
        SiteError: README has no such section.

    """
    match = re.search(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", readme, re.M | re.S)
    if not match:
        raise SiteError(f"README.md has no section {heading!r}, which the start page shows")
    return match[0].strip()


def doors(stem: str, module: str, slides: Iterable[str], repository: str) -> str:
    """The line below a lesson's title: where else it can be opened."""
    links = [f"{{download}}`Download the notebook <../downloads/{stem}.ipynb>`"]
    book = f"notebooks/{stem}.ipynb"
    if match := re.fullmatch(r"https://github\.com/([^/]+/[^/]+)", repository):
        hub = match[1].removesuffix(".git")
        links.append(
            f"[Open in Binder](https://mybinder.org/v2/gh/{hub}/HEAD?urlpath=lab/tree/{book})"
        )
        links.append(
            f"[Open in Colab](https://colab.research.google.com/github/{hub}/blob/HEAD/{book})"
        )
    for name in slides:
        if name.startswith(f"{stem}."):
            words = "Slides as PDF" if name.endswith(".pdf") else "Slides"
            links.append(f'<a href="../slides/{name}">{words}</a>')
    if module:
        links.append(f"[Code: `{module}`](../api/{module.removeprefix('teachkit.')}.md)")
    return "{.doors}\n" + " · ".join(links) + "\n"


def _toc(caption: str, entries: Iterable[str]) -> str:
    listed = "\n".join(entries)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n" if listed else ""


def _table(lessons: Iterable[pages.Lesson]) -> str:
    rows = [
        f"| [{it.title}](notebooks/{it.stem}.ipynb) | {it.question} | {it.minutes} |"
        for it in lessons
    ]
    return "\n".join(["| lesson | question it answers | minutes |", "|---|---|---|", *rows])


def start(readme: str, lessons: list[pages.Lesson], docs: list[str], modules: list[str]) -> str:
    """The start page, in Markdown: ``web/index.md`` with what README says, and the table of contents."""
    picture = PICTURE.search(readme)
    if not picture:
        raise SiteError("README.md has no picture data/accuracy.png, which the start page shows")
    look_up = [f"[{words}](docs/{name}.md)" for name, words in DOCS.items() if name in docs]
    parts = {
        "picture": picture[0],
        "look up": ", ".join(look_up) or "the terms",
        "lessons": _table(lessons),
        "start": section(readme, "Start").replace("## Start", "## Run it yourself"),
        "who": section(readme, "Who it is for"),
    }
    text = (WEB / "index.md").read_text("utf-8").replace("{lessons}", str(len(lessons)))
    text = re.sub(r"<!-- ([\w ]+) -->", lambda m: parts[m[1]], text)
    text += "\n" + _toc("Lessons", [f"notebooks/{it.stem}" for it in lessons])
    text += _toc("Look up", [*(f"docs/{name}" for name in docs), "slides"])
    return text + _toc("Reading room", ["api/index", *(f"api/{name}" for name in modules)])


DOCS = {"glossary": "the glossary", "formulas": "the formulas"}


def slides_page(lessons: Iterable[pages.Lesson], slides: list[str]) -> str:
    """The page of the decks, in Markdown; without decks it says how they are made."""
    rows = []
    for it in lessons:
        files = [f"{it.stem}.html", f"{it.stem}.pdf"]
        words = [f"Slides {it.stem[:2]}", f"PDF {it.stem[:2]}"]
        links = [
            f'<a href="slides/{name}">{says}</a>' if name in slides else ""
            for name, says in zip(files, words, strict=True)
        ]
        if any(links):
            rows.append(f"| {it.title} | {it.question} | {links[0]} | {links[1]} |")
    if not rows:
        return f"# Slides\n\n{NO_SLIDES}\n"
    head = ["# Slides", "", "Each deck is one file that needs no internet.", ""]
    head += ["| lesson | question | slides | to print |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def members(module: ModuleType) -> tuple[list[str], list[str]]:
    """What the page of a module shows: what stands in it, in its order, and what it takes from elsewhere.

    >>> from teachkit import obd
    >>> own, taken = members(obd)
    >>> own[0], "diagonal" in taken
    ('saliency', True)
    """
    things = {
        name: inspect.unwrap(thing) for name, thing in vars(module).items() if callable(thing)
    }
    listed = getattr(module, "__all__", [])
    own = [
        name
        for name, thing in things.items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__
        and thing.__name__ == name and inspect.getdoc(thing)
    ]  # fmt: skip
    taken = [n for n in listed if n in things and n not in own and inspect.getdoc(things[n])]
    return sorted(own, key=lambda name: inspect.getsourcelines(things[name])[1]), taken


def _directives(module: ModuleType, names: Iterable[str]) -> str:
    parts = []
    for name in names:
        kind = "class" if inspect.isclass(getattr(module, name)) else "function"
        parts.append(f".. auto{kind}:: {module.__name__}.{name}\n")
        parts += ["   :members:\n"] if kind == "class" else []
    return "".join(parts)


def api_page(it: pages.Lesson) -> str:
    """The page of a lesson's module, made by autodoc."""
    module = importlib.import_module(it.module)
    own, taken = members(module)
    text = f"# {it.module}\n\nThe code of [lesson {it.title}](../notebooks/{it.stem}.ipynb).\n\n"
    text += f"```{{eval-rst}}\n.. automodule:: {it.module}\n\n{_directives(module, own)}```\n"
    if taken:
        text += (
            "\n## From the engine room\n\nWhat the lesson uses under these names, exact and fast.\n"
        )
        text += f"\n```{{eval-rst}}\n{_directives(module, taken)}```\n"
    return text


def _room(lessons: Iterable[pages.Lesson]) -> str:
    rows = [
        f"| [`{it.module}`]({it.module[9:]}.md) | {it.title} | {it.question} |" for it in lessons
    ]
    head = (
        "# The reading room\n\nOne module a lesson: its formulas, each a function to read in one go, "
        "the plain algorithm made of them, and the fast one under the name that the lesson uses.\n"
    )
    return "\n".join([head, "| module | lesson | question |", "|---|---|---|", *rows, ""])


def _docs(root: Path) -> dict[str, str]:
    """The Markdown in docs, glossary and formulas first."""
    found = {path.stem: path.read_text("utf-8") for path in sorted((root / "docs").glob("*.md"))}
    first = {name: found[name] for name in FIRST if name in found}
    return first | found


def sources(root: Path, books: Mapping[str, NotebookNode], slides: list[str]) -> Sources:
    """Every source file of the site, by path: of the course in ``root``, its lessons, its decks."""
    lessons = [pages.lesson(root / "notebooks" / f"{stem}.ipynb") for stem in books]
    rooms = [it for it in lessons if it.module]
    repository = address((root / "pyproject.toml").read_text("utf-8"))
    readme, docs = (root / "README.md").read_text("utf-8"), _docs(root)
    names = [it.module.removeprefix("teachkit.") for it in rooms]
    made: Sources = {
        "index.md": start(readme, lessons, list(docs), names),
        "slides.md": slides_page(lessons, slides),
        "api/index.md": _room(rooms),
        "data/accuracy.png": (root / "data" / "accuracy.png").read_bytes(),
    }
    made |= {f"api/{name}.md": api_page(it) for name, it in zip(names, rooms, strict=True)}
    made |= {f"docs/{name}.md": text for name, text in docs.items()}
    made |= {
        f"downloads/{stem}.ipynb": (root / f"notebooks/{stem}.ipynb").read_bytes() for stem in books
    }
    known = {*made, *(f"notebooks/{stem}.ipynb" for stem in books)}
    for path in [name for name in made if name.endswith(".md")]:
        made[path] = site_lessons.relink(str(made[path]), partial(_there, known, path), repository)
    entries = glossary.terms() if "glossary" in docs else {}
    anchors = {name.lower(): term.anchor for name, term in entries.items()}
    for it in lessons:
        path, seen = f"notebooks/{it.stem}.ipynb", set[str]()

        def prose(text: str, path: str = path, seen: set[str] = seen) -> str:
            text = site_lessons.relink(text, partial(_there, known, path), repository)
            text = site_lessons.link_terms(text, anchors, "../docs/glossary.md", seen)
            return site_lessons.link_modules(text, set(names))

        line = doors(it.stem, it.module, slides, repository)
        made[path] = nbformat.writes(site_lessons.page(books[it.stem], line, it.stem[:2], prose))
    return made


def _there(known: set[str], page: str, target: str) -> bool:
    """Whether a link on a page leads to a page or a file of the site."""
    return normpath(str(PurePosixPath(page).parent / target)) in known
