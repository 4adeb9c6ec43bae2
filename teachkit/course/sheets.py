"""Glossary and formula sheet beside the decks, and the terms of a deck that lead to them."""

import html
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

import jinja2

from teachkit.course import glossary, parts, vendored
from teachkit.course.glossary import Term

NAMES = parts.SHEETS
MATHJAX = "mathjax/es5/tex-svg.js"
TEMPLATES = Path(__file__).with_name("deck")
HEADING = re.compile(r"<h([2-6])>(.*?)</h\1>", re.S)
MEANT = re.compile(r"<em>([^<]+)</em>")


def template(name: str) -> jinja2.Template:
    """A template of ours; what it is given is HTML, or is escaped there."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined)  # noqa: S701
    return environment.get_template(name)


@cache
def _terms() -> dict[str, Term]:
    try:
        return {name.lower(): term for name, term in glossary.terms().items()}
    except FileNotFoundError:  # a package without its course
        return {}


def linked(page: str) -> str:
    """HTML in which a term of the glossary, where it stands in italics, leads to its entry."""
    return MEANT.sub(_term, page)


def _term(found: re.Match[str]) -> str:
    term = _terms().get(html.unescape(found[1]).lower())
    if not term:
        return found[0]
    title = f' title="{html.escape(term.korean)}"' if term.korean else ""
    return f'<a class="term" href="glossary.html#{term.anchor}"{title}>{found[0]}</a>'


def write(folder: Path, decks: Collection[str]) -> None:
    """Write both pages; a lesson's link leads to its deck where there is one."""
    for name in NAMES:
        try:
            text = glossary.page(name).read_text("utf-8")
        except FileNotFoundError:
            continue
        body = HEADING.sub(_anchored, parts.markdown(text, tuple(decks)))
        page = template("sheet.html.j2").render(
            title=text.partition("\n")[0].strip("# "),
            body=body,
            mathjax=vendored.script(MATHJAX) if "$" in text else "",
        )
        (folder / f"{name}.html").write_text(page, "utf-8")


def _anchored(found: re.Match[str]) -> str:
    name = html.unescape(re.sub(r"<[^>]*>", "", found[2]))
    return f'<h{found[1]} id="{Term(name, "", "", "", "").anchor}">{found[2]}</h{found[1]}>'
