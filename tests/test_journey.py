"""What a learner sees of their progress: at a lesson's end, in lesson 00, in the terminal."""

import os
import re

import pytest

from teachkit import show
from teachkit.core import places
from teachkit.course import progress as command
from teachkit.lab import progress
from teachkit.show import journey, pages

LESSONS = [pages.lesson(path) for path in pages.notebooks()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(progress, "_shown", set())
    return tmp_path / "work"


def words(html):
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))


def line(number):
    return next(each for each in journey.lines() if each.it.stem.startswith(number))


def show_all(number):
    for kind, names in (("quiz", line(number).questions), ("check", line(number).exercises)):
        for name in names:
            progress.shown(kind, name)


def test_the_plain_text_is_the_same_for_everyone(folder, monkeypatch):
    before = repr(show.end("02")), repr(show.progress())
    progress.record("prediction", "02.1", answer="up", right=True)
    show_all("02")
    assert (repr(show.end("02")), repr(show.progress())) == before
    monkeypatch.setenv("TEACHKIT_WORK", "")
    assert (repr(show.end("02")), repr(show.progress())) == before
    assert "Before: 01 hessian\nNext: 03 masks\nGlossary" in before[0]


def test_where_nothing_is_kept_the_html_is_the_same_for_everyone(monkeypatch):
    show_all("02")
    html = show.end("02").html, show.progress().html
    assert (
        "<code>python -m teachkit lab</code> and run this cell: it shows your predictions"
        in html[0]
    )
    assert "it shows how far you have come" in html[1]
    monkeypatch.setattr(progress, "_shown", set())
    assert (show.end("02").html, show.progress().html) == html
    assert progress.events() == []


def test_predictions_stand_beside_what_turned_out(folder):
    progress.record("prediction", "02.1", answer="<b>up</b>", right=False, truth="down & out")
    progress.record("prediction", "02.1", answer="down & out", right=True)
    progress.record("prediction", "02.3", answer="x", right=True, truth="x", reason_right=False)
    progress.record("prediction", "02.9", answer="0.3", right=None)
    html = show.end("02").html
    assert "&lt;b&gt;up&lt;/b&gt;" in html
    said = words(html)
    assert "1 of your 3 predictions was right. Without a prediction: 02.2." in said
    assert "You raise the order for log(1 + x) about 0 from 2 to 8. At which x" in said
    assert "down &amp; out not right" in said
    assert "x x right, but not the reason" in said


def test_predictions_are_counted_as_one_says_it():
    assert journey._right(0, 1) == "You made one prediction, and it was not right."
    assert journey._right(0, 2) == "0 of your 2 predictions were right."
    assert journey._right(1, 2) == "1 of your 2 predictions was right."


def test_a_vote_and_its_reason_are_judged_apart():
    said = [
        journey._judged(progress.Prediction("", "", right, reason))
        for right, reason in [
            (True, True),
            (True, None),
            (False, True),
            (False, False),
            (None, None),
        ]
    ]
    assert said == ["right, the reason, too", "right", "not right, the reason was right",
                    "not right, nor the reason", ""]  # fmt: skip


def test_exercises_are_counted_once_solved(folder):
    assert "You have tried no exercise" in show.end("02").html
    for right in (False, True, False):
        progress.record("exercise", "02.1", right=right)
    progress.record("exercise", "02.2", right=False)
    assert "1 of 4 solved. Still open: 02.2, 02.3, 02.4." in words(show.end("02").html)
    for name in [*line("02").exercises, "02.99"]:  # one of an earlier version of the lesson
        progress.record("exercise", name, right=True)
    assert "4 of 4 solved." in words(show.end("02").html)
    assert line("02").words[3] == "4 of 4 solved"
    assert "Still open" not in show.end("02").html


def test_a_lesson_is_run_through_when_all_was_shown_and_stays_so(folder, monkeypatch):
    assert "does not count as run through yet" in show.end("02").html
    for name in line("02").questions:
        progress.shown("quiz", name)
    assert "does not count as run through yet" in show.end("02").html
    show_all("02")
    assert "does not count" not in show.end("02").html
    assert "does not count" not in show.end("02").html
    assert [each["kind"] for each in progress.events()] == ["lesson"]
    monkeypatch.setattr(progress, "_shown", set())  # another kernel
    assert "does not count" not in show.end("02").html
    assert "does not count" in show.end("03").html


@pytest.mark.parametrize("it", LESSONS, ids=lambda it: it.stem)
def test_each_lesson_ends_and_leads_on_to_lessons_that_are_there(it, folder):
    html = show.end(it.stem[:2]).html
    at = LESSONS.index(it)
    wanted = [each.stem for each in LESSONS[max(at - 1, 0) : at + 2] if each != it]
    assert re.findall(r'href="(.+?)\.ipynb"', html) == wanted
    assert line(it.stem[:2]).questions
    assert line(it.stem[:2]).exercises


@pytest.mark.parametrize(
    ("work", "wanted"),
    [
        ("", ["../docs/glossary.md", "../docs/formulas.md"]),
        ("work", ["../docs/glossary.md", "../docs/formulas.md"]),
        ("my/own/work", ["../../../docs/glossary.md", "../../../docs/formulas.md"]),
    ],
)
def test_each_lesson_leads_to_the_glossary_and_the_formulas(work, wanted, monkeypatch):
    monkeypatch.setenv("TEACHKIT_WORK", work)
    sight = show.end("02")
    assert re.findall(r'href="(.+?\.md)"', sight.html) == wanted
    assert str(sight).endswith("Glossary: docs/glossary.md\nFormulas: docs/formulas.md")
    here = places.root() / (work or "notebooks")
    assert all((places.root() / os.path.normpath(here / link)).is_file() for link in wanted)


@pytest.mark.parametrize("inside", ["hidden", "elsewhere"])
def test_where_jupyterlab_shows_no_docs_the_end_says_where_they_lie(inside, monkeypatch, tmp_path):
    work = {"hidden": ".mine/work", "elsewhere": str(tmp_path / "work")}[inside]
    monkeypatch.setenv("TEACHKIT_WORK", work)
    html = show.end("02").html
    assert f"Glossary: <code>{places.root() / 'docs' / 'glossary.md'}</code>" in html
    assert '.md"' not in html


def test_without_the_course_a_lesson_ends_and_leads_nowhere(folder, monkeypatch):
    monkeypatch.setattr(pages, "notebooks", list)
    monkeypatch.setattr(places, "root", lambda: None)
    progress.record("prediction", "02.1", answer="up", right=True)
    html = show.end("02").html
    assert "it was right" in html
    assert "Before: 01 hessian<br>Next: 03 masks" in html
    assert "href" not in html
    assert "02 taylor" in show.progress().html
    with pytest.raises(ValueError, match="no lesson '77'; there are \\['00', '01'"):
        show.end("77")


def test_an_unknown_lesson_is_refused():
    with pytest.raises(ValueError, match="no lesson '77'; there are \\['00', '01'"):
        show.end("77")


def test_progress_has_a_line_for_each_lesson(folder):
    progress.record("prediction", "02.1", answer="up", right=False)
    progress.record("exercise", "05.1", right=True)
    show_all("05")
    show.end("05")
    rows = re.findall("<tr>.*?</tr>", show.progress().html)[1:]
    said = [words(row).strip() for row in rows]
    assert [row[:2] for row in said] == [it.stem[:2] for it in LESSONS]
    assert "02 taylor not yet 1 of 3 made, 0 right none yet" in said
    assert [row for row in said if " yes " in row] == ["05 obs yes none yet 1 of 4 solved"]


def test_the_terminal_says_the_same_and_what_else_there_is(folder, capsys):
    assert command.main([]) == 0
    assert "Nothing is kept yet in" in capsys.readouterr().out
    progress.record("exercise", "05.1", right=True)
    with (folder / "progress.jsonl").open("ab") as file:
        file.write(b"\x00\n{")
    (folder / "02_taylor-new.ipynb").touch()
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^05 obs +not yet +none yet +1 of 4 solved$", said, re.M)
    assert "A new version of a lesson lies beside yours: 02_taylor-new.ipynb." in said
    assert "2 lines of" in said
    assert "cannot be read; all others count" in said
    assert "2 lines of" in show.progress().html


def test_the_terminal_says_when_nothing_is_kept(capsys):
    assert command.main([]) == 0
    assert "No progress is kept" in capsys.readouterr().out
