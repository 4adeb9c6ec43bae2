"""The ledger of the claims that the course tests: each has a source, and its verdict stands in its lesson."""

import re
import tomllib

import nbformat
import pytest

from teachkit.course.setup import ROOT

CLAIMS = tomllib.loads((ROOT / "data" / "claims.toml").read_text("utf-8"))["claim"]
TEXTS = {
    path.stem[:2]: "\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    for path in (ROOT / "notebooks").glob("*.ipynb")
}


def rows(text):
    """The rows of the tables with verdicts: who says what, and the verdict."""
    tables = re.findall(r"\| [^|\n]+ say \| verdict \|\n\|---\|---\|\n((?:\|.+\n?)+)", text)
    lines = "\n".join(tables).strip().splitlines()
    return [tuple(part.strip() for part in line.strip("|").split(" | ")) for line in lines if line]


@pytest.mark.parametrize("claim", CLAIMS, ids=[c["says"] for c in CLAIMS])
def test_a_claim_has_its_fields_and_its_verdict_is_that_of_the_lesson(claim):
    assert set(claim) == {"lesson", "source", "says", "published", "verdict"}
    assert claim["source"] in (
        "the lecture notes",
        "the note on pruning",
        "the slides",
        "the papers",
    )
    assert (claim["says"], claim["verdict"]) in rows(TEXTS[claim["lesson"]])


def test_each_verdict_of_a_lesson_is_in_the_ledger():
    held = {(c["lesson"], c["says"], c["verdict"]) for c in CLAIMS}
    assert held == {(lesson, *row) for lesson, text in TEXTS.items() for row in rows(text)}
