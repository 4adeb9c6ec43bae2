"""How long lessons take: what was measured (data/seconds.toml), and what their cells say of it."""

import re
import tomllib

import nbformat
import pytest

from benchmarks import lessons
from teachkit.core.bars import NOTE
from teachkit.course.notebooks import FOLDER

MEASURED = tomllib.loads(lessons.FILE.read_text("utf-8"))
BOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
LIMIT = 60  # seconds that Run All may take


def problems(sources, seconds):
    """What is wrong with the notes of a lesson's cells, given the seconds of the long ones."""
    for name, source in sources.items():
        took = seconds.get(name, 0.0)
        found = NOTE.match(source)
        if found and not took / 2 <= int(found[1]) <= max(2 * took, 2):
            yield f"{name} says {found[1]} s and takes {took} s"
        if not found and took > lessons.LONG + 0.5:  # a busy processor makes it slower, too
            yield f"{name} takes {took} s and does not say so: # takes about {took:.0f} s"
        if not found and re.search(r"#.*\btakes\b", source):
            yield f"{name} says how long it takes in other words than '# takes about 20 s'"


def test_every_lesson_is_measured_and_stays_under_a_minute():
    assert list(MEASURED) == list(BOOKS)
    assert {stem: own["total"] for stem, own in MEASURED.items() if own["total"] >= LIMIT} == {}


@pytest.mark.parametrize("stem", BOOKS)
def test_a_long_cell_says_so_in_its_first_line(stem):
    code = [c for c in nbformat.read(BOOKS[stem], as_version=4).cells if c.cell_type == "code"]
    sources = {cell.id: cell.source for cell in code[1:]}  # the first one imports
    assert list(problems(sources, MEASURED[stem])) == []


@pytest.mark.parametrize(
    ("source", "seconds", "wrong"),
    [
        ("x = 1", {}, 0),
        ("x = 1", {"a": 2.9}, 0),
        ("x = 1", {"a": 4.0}, 1),
        ("# takes about 4 s\nx = 1", {"a": 4.0}, 0),
        ("# takes about 9 s\nx = 1", {"a": 4.0}, 1),
        ("# takes about 1 s\nx = 1", {"a": 4.0}, 1),
        ("# takes about 9 s\nx = 1", {}, 1),
        ("# this takes long\nx = 1", {}, 1),
    ],
)
def test_the_test_of_notes_can_fail(source, seconds, wrong):
    assert len(list(problems({"a": source}, seconds))) == wrong


def test_a_lesson_is_timed_cell_by_cell_and_kept(tmp_path):
    cells = [nbformat.v4.new_code_cell(s) for s in ("import time", "sum(range(60_000_000))", "1")]
    cells.insert(1, nbformat.v4.new_markdown_cell("text"))
    path = tmp_path / "07_new.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_bytes()
    lesson = lessons.measure(path)
    quick, long, last = (lesson.cells[cell.id] for cell in cells if cell.cell_type == "code")
    assert max(quick, last) < 0.3 < long < lesson.wall + 0.1
    assert path.read_bytes() == before
    row = lessons._row(lesson)
    assert (row[0], row[3], row[5]) == ("07_new", cells[2].id, "")
    lessons.write((lesson._replace(cells={"a": 0.1, "07-2": 4.04}),), tmp_path / "s.toml")
    kept = tomllib.loads((tmp_path / "s.toml").read_text("utf-8"))
    assert kept == {"07_new": {"total": 4.1, "07-2": 4.0}}
