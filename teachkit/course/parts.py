"""What a cell puts on a slide: text, formulas, code, pictures, tables, questions and their answers."""

import html
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from teachkit.show import quizzes
from teachkit.show.questions import Question

RUN = re.compile(r"<p>(?:<i>)?Run this cell[^<]*(?:</i>)?</p>")
COVER = re.compile(
    r'<details class="teachkit-reveal" data-predict="([^"]+)">\s*<summary>.*?</summary>(.*)</details>',
    re.S,
)
ASKS = re.compile(r'class="teachkit-question".*?&quot;name&quot;: &quot;([^&]+)&quot;', re.S)
LINK = re.compile(r'<a href="([^"]*)"([^>]*)>(.*?)</a>', re.S)
FENCE = "`" * 6
ASIDE = re.compile(r'\s*<span class="c1"># (?:type: ignore|noqa)[^<]*</span>')  # said to tools
KINDS = {  # what an output is by what its HTML holds; the first that fits
    "question": "teachkit-question",
    "explorer": "teachkit-explorer",
    "picture": "<img",
    "table": "<table",
}


class Part(NamedTuple):
    """A part of a slide, of one kind, with the cell that it is of.

    ``asks`` is the question that it is, ``covered`` the one that it answers; ``step`` says that it
    comes with a key of its own.
    """

    kind: str
    html: str
    cell: str
    asks: str = ""
    covered: str = ""
    step: bool = False

    @property
    def words(self) -> str:
        """What can be read in it."""
        return plain(self.html)


def plain(page: str) -> str:
    """The words of HTML without its elements.

    >>> plain("<p>a &lt; <b>b</b></p>")
    'a < b'
    """
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def said(cell: NotebookNode, decks: Sequence[str] = ()) -> list[str]:
    """A cell as the lecturer's text: Markdown, or the words of a code cell's outputs."""
    if cell.cell_type == "markdown":
        return [markdown(cell.source, decks)]
    texts = [
        o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", [])
    ]
    return [f"<pre>{html.escape(text.rstrip())}</pre>" for text in texts if text.strip()]


def markdown(text: str, decks: Sequence[str] = ()) -> str:
    """Markdown as HTML; formulas stay as they are, for MathJax."""
    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
    made = ASIDE.sub("", str(MarkdownWithMath(renderer=renderer).render(text)).strip())
    return LINK.sub(lambda found: _link(found, decks), made)


def _link(found: re.Match[str], decks: Sequence[str]) -> str:
    """Between decks and to the web links stay; what else the course links to is not beside a deck."""
    target = found[1].partition("#")[0].removesuffix(".ipynb")
    if target in decks:
        return f'<a href="{target}.html">{found[3]}</a>'
    return found[0] if found[1].startswith(("https://", "http://")) else found[3]


def of(cell: NotebookNode, decks: Sequence[str] = ()) -> Iterator[Part]:
    """The parts of a cell: Markdown, or the outputs of code, after the code itself where it is tagged."""
    if cell.cell_type == "markdown":
        yield Part("text", markdown(cell.source, decks), cell.id)
    if cell.cell_type != "code":
        return
    if "show-input" in cell.metadata.get("tags", []):
        yield Part("code", markdown(f"{FENCE}python\n{cell.source}\n{FENCE}"), cell.id)
    for output in cell.outputs:
        kind, page = _output(output)
        if page:
            yield _part(kind, page, cell.id)


def _output(output: NotebookNode) -> tuple[str, str]:
    """The richest form of an output that a page can show."""
    data: dict[str, Any] = output.get("data", {})
    text = output.get("text") or data.get("text/plain", "")
    if "text/html" in data:
        page = RUN.sub("", data["text/html"])
        return next((k for k, mark in KINDS.items() if mark in page), "html"), page.strip()
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            address = f"data:{mime};base64,{data[mime].strip()}"
            return "picture", f'<img src="{address}" alt="{html.escape(text, quote=True)}">'
    if "text/markdown" in data:
        page = markdown(data["text/markdown"])
        return ("code" if "<pre" in page else "html"), page
    if "text/latex" in data:
        return "html", f"<p>{html.escape(data['text/latex'])}</p>"
    return "code", f"<pre>{html.escape(text.rstrip())}</pre>" if text.strip() else ""


def _part(kind: str, page: str, cell: str) -> Part:
    cover, asks = COVER.search(page), ASKS.search(page)
    if cover:  # a lecturer's key uncovers it
        page = page[: cover.start()] + cover[2] + page[cover.end() :]
    return Part(kind, page, cell, asks[1] if asks else "", cover[1] if cover else "")


def answer(part: Part) -> Part:
    """What turns out, for a lecturer who has asked the hall and clicks nothing."""
    asked = quizzes.find(part.asks)
    said = [f"<b>{html.escape(asked.truth)}</b>", *map(html.escape, _why(asked))]
    if asked.reason:
        right = next(o for o in asked.reason.options if o.right)
        said += [f"<b>{html.escape(asked.reason.text)} {html.escape(right.text)}.</b>"]
        said += [html.escape(right.why)]
    return Part("answer", f"<p>{' '.join(said)}</p>", part.cell, covered=part.asks)


def _why(asked: Question) -> list[str]:
    if asked.kind in ("choice", "several"):
        return [o.why for o in asked.options if o.right]
    return [str(asked.facts["right"])]


def expected(name: str) -> str:
    """The lecturer's note on a question: which wrong answers will come, and what to say to them."""
    asked = quizzes.find(name)
    wrong = [(o.text, o.why) for o in asked.options if not o.right]
    wrong += [(_said(t), t["why"]) for t in asked.facts.get("typical", [])]
    if asked.kind == "order":
        wrong = [(o.text, o.why) for o in asked.options]
    if asked.reason:
        wrong += [
            (f"{asked.reason.text} {o.text}", o.why) for o in asked.reason.options if not o.right
        ]
    rows = "".join(f"<li>“{html.escape(a)}”: {html.escape(b)}</li>" for a, b in wrong)
    head = "What to say of each" if asked.kind == "order" else "Wrong answers that will come"
    return (
        f"<p><b>Question {name}.</b> Let everyone vote before you go on. "
        f"Right: {html.escape(asked.truth)}.</p><p>{head}:</p><ul>{rows}</ul>"
    )


def _said(typical: dict[str, Any]) -> str:
    y = typical.get("value", typical.get("y"))
    return ", ".join(f"{v:g}" for v in y) if isinstance(y, list) else f"{y:g}"
