"""A lesson as a page of the website: a notebook in, another out; the first stays as it is.

What needs a kernel or speaks to a lecturer goes, plotting code and solutions fold, terms become links
to the glossary and names such as ``teachkit.obd`` links to the reading room.
"""

import copy
import re
from collections.abc import Callable, Mapping

from nbformat import NotebookNode

FOLDED = re.compile(r"\bshow\.(explore|reveal|plots|figure)\b|\bscenes\.\w+\(|\blab\.setup\(\)")
FOR_LECTURERS = re.compile(r"\W*For (the )?lecturers?\b")
GONE = re.compile(r"show\.end\(")
# What asks a learner to run a cell, of an explorer and of a question, and stays where no kernel is.
RUN = re.compile(r"<p>(<i>)?Run this cell to (move the sliders|answer)\.(</i>)?</p>\n?")
PROTECTED = re.compile(
    r"(?P<kept>^(`{3,}|~{3,}).*?^\2|`+[^`]+`+|\$\$.*?\$\$|\$[^$\n]+\$|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>\n]+>|^#[^\n]*|\*\*[^\n]*?\*\*)"
    r"|(?<![\w*\\])\*(?P<term>[^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])",
    re.DOTALL | re.MULTILINE,
)
CODE = re.compile(
    r"(^(?:`{3,}|~{3,}).*?^(?:`{3,}|~{3,})|`+[^`\n]+`+(?!\])|\$\$.*?\$\$|\$[^$\n]+\$)",
    re.DOTALL | re.MULTILINE,
)
MODULE = re.compile(r"(?<!`)`(teachkit\.(\w+))`(?!`)")
PAGE = re.compile(r"(?<=\w)\.(ipynb|md)(?=[)#])")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def _entry(term: str, anchors: Mapping[str, str]) -> str:
    """The entry of a term; several masks are found under mask."""
    word = " ".join(term.lower().split())
    stems = [word, word.removesuffix("s"), word.removesuffix("es"), f"{word[:-3]}y"]
    return next((anchors[stem] for stem in stems if stem in anchors), "")


def link_terms(text: str, anchors: Mapping[str, str], page: str, seen: set[str]) -> str:
    """Make each term that is set *in italics* a link, once a page; ``seen`` keeps which were met.

    Code, formulas, links, headings and bold words stay as they are.

    >>> link_terms("A *mask*, a *mask*, $a *mask* b$.", {"mask": "mask"}, "g.md", set())
    'A [*mask*](g.md#mask), a *mask*, $a *mask* b$.'
    """

    def linked(match: re.Match[str]) -> str:
        anchor = _entry(match["term"] or "", anchors)
        if match["kept"] or not anchor or anchor in seen:
            return match[0]
        seen.add(anchor)
        return f"[*{match['term']}*]({page}#{anchor})"

    return PROTECTED.sub(linked, text)


def link_modules(text: str, modules: set[str]) -> str:
    """Make the names of the reading room's modules links to their pages.

    >>> link_modules("`teachkit.obd` and `teachkit.lab`", {"obd"})
    '[`teachkit.obd`](../api/obd.md) and `teachkit.lab`'
    """

    def linked(match: re.Match[str]) -> str:
        inside = match.string[: match.start()].rpartition("\n")[2]
        if match[2] not in modules or inside.count("[") > inside.count("]"):
            return match[0]
        return f"[{match[0]}](../api/{match[2]}.md)"

    return MODULE.sub(linked, text)


def relink(text: str, there: Callable[[str], bool], address: str = "") -> str:
    """Links to files that are no pages lead to the repository, or are words where it has no address.

    >>> relink("[code](../teachkit/obd.py), [next](b.md)", lambda target: target == "b.md")
    'code, [next](b.md)'
    """

    def linked(match: re.Match[str]) -> str:
        words, target = match.groups()
        if re.match(r"https?:|#|mailto:", target) or there(target.partition("#")[0]):
            return match[0]
        path = re.sub(r"^(\.\.?/)+", "", target)
        return f"[{words}]({address}/blob/HEAD/{path})" if address else words

    return _outside(LINK, linked, text)


def _outside(pattern: re.Pattern[str], change: Callable[[re.Match[str]], str], text: str) -> str:
    """Change what matches outside of code and formulas: ``f[i](x)`` is no link there."""
    parts = CODE.split(text)  # what stands between the pieces of code has an even place
    return "".join(p if i % 2 else pattern.sub(change, p) for i, p in enumerate(parts))


def page(book: NotebookNode, doors: str, number: str, prose: Callable[[str], str]) -> NotebookNode:
    """The notebook of a page: its title numbered, ``doors`` below it, ``prose`` applied to its text."""
    made = copy.deepcopy(book)
    gone = [_gone(cell) for cell in made.cells]
    ends = [
        *(left and c.cell_type == "code" for left, c in zip(gone, made.cells, strict=True)),
        False,
    ]
    made.cells = [
        cell
        for i, cell in enumerate(made.cells)
        if not gone[i] and not (ends[i + 1] and _only_a_heading(cell))
    ]
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = prose(cell.source)
        elif cell.cell_type == "code":
            _code(cell, prose)
    title, _, rest = made.cells[0].source.partition("\n")
    made.cells[0].source = f"# {number} {title.removeprefix('# ')}\n\n{doors}\n{rest}"
    return made


def _gone(cell: NotebookNode) -> bool:
    """Whether a cell has no place on a page: a check, the learner's state, a word to the lecturer."""
    if cell.cell_type == "markdown":
        notes = cell.metadata.get("slideshow", {}).get("slide_type") == "notes"
        return bool(notes and FOR_LECTURERS.match(cell.source))
    return "check" in cell.metadata.get("tags", []) or bool(GONE.match(cell.source))


def _only_a_heading(cell: NotebookNode) -> bool:
    return cell.cell_type == "markdown" and bool(re.fullmatch(r"#+ [^\n]+", cell.source.strip()))


def _code(cell: NotebookNode, prose: Callable[[str], str]) -> None:
    """Fold and hide what a reader need not see, and let the outputs lead to pages."""
    tags = cell.metadata.setdefault("tags", [])
    if "solution" in tags:
        tags.append("hide-input")
        cell.metadata["mystnb"] = {"code_prompt_show": "Show the solution"}
        cell.outputs = []
    elif re.match(r"show\.quiz\(", cell.source):
        tags.append("remove-input")
    elif FOLDED.search(cell.source):
        tags.append("hide-input")
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/html" in data:
            data["text/html"] = html(data["text/html"])
        if "text/markdown" in data:  # the reader of notebooks leaves its links as they are
            data["text/markdown"] = _outside(PAGE, lambda _: ".html", prose(data["text/markdown"]))


def html(text: str) -> str:
    """The HTML of an output, with links between lessons that lead from page to page.

    >>> html('<a href="03_masks.ipynb">03</a>')
    '<a href="03_masks.html">03</a>'
    """
    return re.sub(r'(href="[\w./-]+)\.ipynb(?=["#])', r"\1.html", RUN.sub("", text))
