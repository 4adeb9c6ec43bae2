"""What becomes of a vote: kept once, shown again, and it opens what waited for it."""

import json

import pytest
from matplotlib.figure import Figure

from teachkit import show
from teachkit.lab import progress
from teachkit.show import predictions, reveals

VOTE = {"answer": "it rises", "words": "it rises", "right": True}
FIRST = VOTE | {"reason": None, "reason_right": None}
SECOND = VOTE | {"reason": "the effects of the weights do not add up", "reason_right": True}
WRONG = {"answer": "it falls", "words": "it falls", "right": False, "reason": None}


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """A learner's folder and a session of our own."""
    monkeypatch.setenv("TEACHKIT_WORK", str(tmp_path))
    for table in (predictions._votes, predictions._looked, predictions._waiting, progress._shown):
        table.clear()
    return tmp_path


def new_session():
    predictions._votes.clear()
    predictions._looked.clear()


def picture():
    figure = Figure()
    figure.subplots().plot([1, 2])
    return show.figure(figure, "A line that goes up from one to two.")


def kept():
    return [(e["name"], e["answer"], e["right"], e["reason_right"]) for e in progress.events()]


def test_the_first_vote_is_kept_and_no_later_one():
    quiz = show.quiz("02.3")
    assert not predictions.voted("02.3")
    quiz.vote = FIRST
    quiz.vote = WRONG
    assert predictions.voted("02.3")
    assert kept() == [("02.3", "it rises", True, None)]
    assert progress.events()[0]["truth"] == "it rises"
    assert quiz.says == "Your first answer is kept as your prediction."


def test_the_reason_is_kept_when_it_comes():
    quiz = show.quiz("02.3")
    quiz.vote = FIRST
    quiz.vote = SECOND
    quiz.vote = SECOND | {"reason": "another", "reason_right": False}
    assert kept() == [("02.3", "it rises", True, None), ("02.3", "it rises", True, True)]
    one = progress.summary(progress.events())["02"].predictions["02.3"]
    assert (one.right, one.reason_right) == (True, True)
    new_session()
    assert predictions.vote("02.3")["reason"] == SECOND["reason"]


def test_a_cell_that_runs_again_shows_the_vote():
    show.quiz("02.3").vote = FIRST
    assert show.quiz("02.3").vote["answer"] == "it rises"
    new_session()  # another day
    again = show.quiz("02.3")
    assert again.vote["answer"] == "it rises"
    assert again.says
    again.vote = WRONG
    assert len(kept()) == 1


def test_the_reason_for_another_answer_is_not_taken():
    quiz = show.quiz("02.3")
    progress.record("prediction", "02.3", answer="it falls", right=False)  # by another kernel
    quiz.vote = FIRST
    quiz.vote = SECOND
    assert len(progress.events()) == 1
    assert predictions.vote("02.3")["reason"] is None
    new_session()
    assert predictions.vote("02.3")["reason"] is None


def test_without_a_folder_the_session_remembers(monkeypatch):
    monkeypatch.setenv("TEACHKIT_WORK", "")
    quiz = show.quiz("02.3")
    quiz.vote = FIRST
    assert predictions.voted("02.3")
    assert quiz.says == "Your first answer is kept as your prediction, for this session only."
    assert progress.events() == []
    new_session()
    assert not predictions.voted("02.3")


def test_a_damaged_or_foreign_event_is_no_vote(work):
    time = "2026-11-21T00:00:00+00:00"
    lines = [
        {"kind": "prediction", "name": "02.3", "time": time},
        {"kind": "lesson", "name": "02.3"},
    ]
    (work / "progress.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{", "utf-8")
    assert predictions.vote("02.3") == {}


def test_an_event_of_words_alone_is_a_vote():
    progress.record("prediction", "02.3", answer="it rises", right=True, truth="it rises")
    assert predictions.vote("02.3")["answer"] == "it rises"


# Reveals ---------------------------------------------------------------------------------------


def test_a_result_is_covered_until_the_vote():
    quiz = show.quiz("02.3")
    first, other = show.reveal("02.3", picture()), show.reveal("02.2", picture())
    assert not first.opened
    quiz.vote = WRONG
    assert first.opened
    assert not other.opened
    assert show.reveal("02.3", picture()).opened
    new_session()
    assert show.reveal("02.3", picture()).opened


def test_a_question_that_was_not_asked_is_said_so():
    covered = show.reveal("02.3", picture())
    assert not covered.asked
    show.quiz("02.3")
    assert covered.asked


def test_a_look_without_a_prediction_is_kept_as_such():
    quiz, covered = show.quiz("02.3"), show.reveal("02.3", picture())
    covered.looked = True
    assert [(e["kind"], e["name"]) for e in progress.events()] == [("skipped", "02.3")]
    quiz.vote = FIRST
    assert not predictions.voted("02.3")
    assert "You have seen the result first" in quiz.says
    assert len(progress.events()) == 1
    assert progress.summary(progress.events())["02"].predictions == {}
    new_session()
    assert show.reveal("02.3", picture()).opened


def test_a_look_that_only_the_page_knows_of_comes_with_the_vote():
    quiz = show.quiz("02.3")
    quiz.set_state({"vote": FIRST, "looked": True})
    assert not predictions.voted("02.3")
    assert [(e["kind"], e["name"]) for e in progress.events()] == [("skipped", "02.3")]
    assert "You have seen the result first" in quiz.says


def test_what_was_thrown_away_is_not_told():
    quiz = show.quiz("02.3")
    show.reveal("02.3", picture())
    quiz.vote = FIRST  # raises if a dead reference is called


def test_the_plain_text_is_the_things_own():
    shown = picture()
    bundle = show.reveal("02.3", shown)._repr_mimebundle_()
    assert bundle["text/plain"] == repr(shown)
    assert bundle["text/html"].startswith('<details class="teachkit-reveal" data-predict="02.3">')
    assert "<summary>Predict first: question 02.3</summary><img src=" in bundle["text/html"]


class Table:
    """As ``show.table`` makes it."""

    def __repr__(self):
        return "a 1"

    def _repr_html_(self):
        return "<table></table>"


def test_tables_pages_and_explorers_are_taken():
    assert show.reveal("02.3", Table()).plain == "a 1"
    assert show.reveal("02.3", Table()).html == "<table></table>"
    page = show.reveal("02.3", show.source(picture))
    assert page.html.startswith("<pre>def picture():")
    explorer = show.explore(lambda a: picture(), a=(0, 2, 1))
    covered = show.reveal("02.3", explorer)
    assert covered.child is explorer
    assert covered.plain == explorer.plain
    assert explorer.static in covered.static


@pytest.mark.parametrize("thing", [3, None, "text", show.Picture, reveals.Reveal])
def test_what_has_no_html_is_refused(thing):
    with pytest.raises(TypeError, match="thing must be a figure, table, source or explorer"):
        show.reveal("02.3", thing)
