"""Each number that a lesson's text claims, and where it comes from: ``data/numbers.toml``.

``python -m teachkit.course.numbers`` goes through the text of every notebook, looks for each percentage
and each decimal fraction in the printed outputs of its cells, and writes the list anew. A number that no
cell prints keeps the source that a person gave it there; a new one is listed with the source "?", which
the tests refuse until it is replaced by one of ``SOURCES``. So a number in the text cannot change alone.
"""

import json
import re
import sys
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from teachkit.core import files
from teachkit.course.setup import ROOT

FILE = ROOT / "data" / "numbers.toml"
FOLDER = ROOT / "notebooks"
SOURCES = {
    "definition": "a convention or a setting, such as a 95 % interval or a learning rate",
    "by hand": "computed in the text itself, from numbers that stand there",
    "derived": "computed from printed numbers or from a picture, which show it to the reader",
    "paper": "quoted from the literature",
}
CLAIM = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.]*\d)|(?<![\w.])\d+(?=\s?\\?%)")
PRINTED = re.compile(r"\d*\.?\d+(?:e[-+]?\d+)?")
Listed = dict[str, dict[str, str]]


def claims(text: str) -> list[str]:
    r"""The percentages and decimal fractions of a text, once each, in order; percentages keep their sign.

    >>> claims("From 95 % to 0.97, [2.1](x.ipynb), in 12 steps: again 95 %.")
    ['95 %', '0.97', '2.1']
    """
    found = []
    for match in CLAIM.finditer(text):
        percent = re.match(r"\s?\\?%", text[match.end() :])
        found.append(match.group() + (" %" if percent else ""))
    return list(dict.fromkeys(found))


def printed(cell: NotebookNode) -> str:
    """What a cell prints in words and numbers."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    said = [output.get("text", "") for output in cell.get("outputs", [])]
    said += [each.get(kind, "") for each in data for kind in ("text/plain", "text/markdown")]
    return "\n".join(said)


def shows(text: str, claim: str) -> bool:
    """Whether a printed number rounds to the claimed one, as it stands or as a fraction for per cent.

    >>> shows("accuracy 0.9497", "95 %"), shows("accuracy 0.9497", "97 %"), shows("loss .12", "0.12")
    (True, False, True)
    """
    number, *percent = claim.split()
    value, places = float(number), len(number.partition(".")[2])
    factors = (1, 100) if percent else (1,)
    numbers = [float(each) for each in PRINTED.findall(text)]
    half = 0.5 * 10.0**-places + 1e-9
    return any(abs(factor * each - value) <= half for each in numbers for factor in factors)


def source(cells: list[NotebookNode], index: int, claim: str) -> str:
    """The id of the nearest cell that prints the number, looking back first; "" if none does."""
    order = sorted(range(len(cells)), key=lambda i: (abs(i - index), i > index))
    return next((cells[i].id for i in order if shows(printed(cells[i]), claim)), "")


def listed(book: NotebookNode, before: dict[str, str]) -> dict[str, str]:
    """Source by "cell: number" for one notebook; a source stays if it is a person's or prints it still."""
    result, cells = {}, {cell.id: cell for cell in book.cells}
    for index, cell in enumerate(book.cells):
        for claim in claims(cell.source) if cell.cell_type == "markdown" else ():
            given = earlier(cell.id, claim, before)
            stays = given in cells and shows(printed(cells[given]), claim)
            stays = stays or given in SOURCES
            where = given if stays else source(book.cells, index, claim)
            result[f"{cell.id}: {claim}"] = where or "?"
    return result


def earlier(cell: str, claim: str, before: dict[str, str]) -> str:
    """The source that a number had, perhaps in the cell of which this one was a part; "?" without one.

    >>> earlier("04-46d", "0.5", {"04-46: 0.5": "04-42", "04-45: 0.5": "04-44"})
    '04-42'
    """
    whole = re.compile(re.match(r"\d*-?\d*", cell)[0] + r"(?!\d)")  # type: ignore[index]
    same = [key for key in before if key.endswith(f": {claim}") and whole.match(key)]
    nearest = max(same, key=lambda key: _alike(key, cell), default="")
    return before.get(nearest, "?")


def _alike(one: str, other: str) -> int:
    """How many letters two texts have in common from the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def books(folder: Path = FOLDER) -> dict[str, NotebookNode]:
    """The notebooks by name."""
    return {p.stem: nbformat.read(p, as_version=4) for p in sorted(folder.glob("*.ipynb"))}


def read(file: Path = FILE) -> Listed:
    """The list as it is saved; empty where there is none."""
    return tomllib.loads(file.read_text("utf-8")) if file.exists() else {}


def write(notebooks: dict[str, NotebookNode], file: Path = FILE) -> list[str]:
    """Write the list anew; the claims that have no source yet."""
    before: Any = read(file)
    parts = ["# Written by `python -m teachkit.course.numbers`, which says what this is.\n"]
    parts += [f"# {name}: {says}.\n" for name, says in SOURCES.items()]
    open_ = []
    for stem, book in notebooks.items():
        entries = listed(book, before.get(stem, {}))
        open_ += [key for key, where in entries.items() if where == "?"]
        parts.append(f"\n[{stem}]\n")
        parts += [
            f"{json.dumps(key, ensure_ascii=False)} = {json.dumps(where)}\n"
            for key, where in entries.items()
        ]
    files.replace(file, "".join(parts))
    return open_


def main() -> int:
    """The command ``python -m teachkit.course.numbers``."""
    open_ = write(books())
    if open_:
        print("Give these a source in data/numbers.toml:", *open_, sep="\n  ")
    return int(bool(open_))


if __name__ == "__main__":
    sys.exit(main())
