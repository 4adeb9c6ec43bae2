"""Every number that a lesson's text claims is printed by a cell, or has a source that a person gave."""

import copy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from teachkit.course import numbers

BOOKS, LISTED = numbers.books(), numbers.read()
RENEW = "look at it, then run python -m teachkit.course.numbers"


def faults(book, listed):
    """Claims that are not listed or whose cell does not print them, and entries without a claim."""
    cells, wrong, seen = {cell.id: cell for cell in book.cells}, [], set()
    for cell in book.cells:
        for claim in numbers.claims(cell.source) if cell.cell_type == "markdown" else ():
            key = f"{cell.id}: {claim}"
            seen.add(key)
            where = listed.get(key, "?")
            by_hand = where in numbers.SOURCES
            if not by_hand and not (
                where in cells and numbers.shows(numbers.printed(cells[where]), claim)
            ):
                wrong.append(key)
    return wrong + sorted(set(listed) - seen)


@pytest.mark.parametrize("stem", BOOKS)
def test_every_number_in_the_text_has_its_source(stem):
    assert faults(BOOKS[stem], LISTED[stem]) == [], RENEW


def test_no_lesson_is_listed_that_is_not_there():
    assert set(LISTED) == set(BOOKS)


def changed(claim):
    """The claim with its last digit moved by two."""
    *start, last = re.findall(r"\d|\D", claim.split()[0])
    return "".join(start) + str((int(last) + 2) % 10)


@pytest.mark.parametrize("stem", BOOKS)
def test_a_number_that_changes_in_the_text_alone_is_noticed(stem):
    """95 → 97 %, everywhere in the lesson, one at a time."""
    for index, cell in enumerate(BOOKS[stem].cells):
        for claim in numbers.claims(cell.source) if cell.cell_type == "markdown" else ():
            number = claim.split()[0]
            other = changed(claim) + claim[len(number) :]
            if other in numbers.claims(cell.source):
                continue  # the cell claims both
            book = copy.copy(BOOKS[stem])
            book.cells = list(book.cells)
            text = re.sub(rf"(?<![\w.]){re.escape(number)}(?!\d)", changed(claim), cell.source)
            book.cells[index] = new_markdown_cell(text, id=cell.id)
            assert faults(book, LISTED[stem]), (cell.id, claim)


def test_the_list_as_written_is_the_list_as_saved(tmp_path):
    file = tmp_path / "numbers.toml"
    file.write_bytes(numbers.FILE.read_bytes())
    assert numbers.write(BOOKS, file) == []
    assert file.read_bytes() == numbers.FILE.read_bytes(), RENEW


def book(*texts):
    """A text and a printing cell by turns."""
    cells = [
        new_code_cell(id=f"c{i}", outputs=[new_output("stream", text=text)])
        if i % 2
        else new_markdown_cell(text, id=f"t{i}")
        for i, text in enumerate(texts)
    ]
    return new_notebook(cells=cells)


def test_a_new_number_is_asked_for_and_a_persons_answer_stays(tmp_path, capsys, monkeypatch):
    file = tmp_path / "numbers.toml"
    made = book("Of 95 % of intervals,", "accuracy 0.9123", "it is 0.91, or 91 %: 12.5 up.", "0.3")
    monkeypatch.setattr(numbers, "FILE", file)
    monkeypatch.setattr(numbers.write, "__defaults__", (file,))
    monkeypatch.setattr(numbers.read, "__defaults__", (file,))
    monkeypatch.setattr(numbers, "books", lambda: {"77_x": made})
    assert numbers.main() == 1
    assert "t0: 95 %\n  t2: 12.5" in capsys.readouterr().out
    text = file.read_text("utf-8")
    assert '"t2: 0.91" = "c1"' in text
    assert '"t2: 91 %" = "c1"' in text
    file.write_text(text.replace('"t0: 95 %" = "?"', '"t0: 95 %" = "definition"'), "utf-8")
    assert numbers.write({"77_x": made}, file) == ["t2: 12.5"]
    assert faults(made, numbers.read(file)["77_x"]) == ["t2: 12.5"]


@given(st.floats(0, 1), st.integers(0, 3))
def test_a_number_is_shown_by_what_rounds_to_it(value, places):
    assert numbers.shows(f"accuracy {value!r}", f"{100 * value:.{places}f} %")
    assert numbers.shows(f"accuracy {value!r}", f"{value:.{places + 1}f}")
    assert not numbers.shows(f"accuracy {value!r}", f"{100 * value + 2 + 99:.{places}f} %")


def test_a_source_stays_while_it_prints_the_number_also_where_a_cell_was_cut_in_two():
    made = book("of 0.5", "0.5", "and 0.7", "0.5 and 0.7")
    before = {"t0: 0.5": "c3", "t2: 0.7": "c1"}
    assert numbers.listed(made, before) == {"t0: 0.5": "c3", "t2: 0.7": "c3"}
    made.cells[0].id = "04-46d"
    assert numbers.listed(made, {"04-46: 0.5": "derived"})["04-46d: 0.5"] == "derived"
    assert numbers.listed(made, {"04-4: 0.5": "derived"})["04-46d: 0.5"] == "c1"
