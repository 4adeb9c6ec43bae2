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
    """Source by "cell: number" for one notebook; sources given by hand stay where no cell prints it."""
    result = {}
    for index, cell in enumerate(book.cells):
        for claim in claims(cell.source) if cell.cell_type == "markdown" else ():
            key = f"{cell.id}: {claim}"
            given = before.get(key, "?")
            result[key] = given if given in SOURCES else source(book.cells, index, claim) or "?"
    return result


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
