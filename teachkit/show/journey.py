"""Where a learner stands: the end of a lesson, and the progress in all of them.

The words in plain text are the same for everyone, so that notebooks compare; the HTML is what this
learner has done, read when the cell runs.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from teachkit.core import door, places
from teachkit.lab import progress as kept
from teachkit.lab.data import folder
from teachkit.lab.progress import Prediction, Progress
from teachkit.show import pages
from teachkit.show.exercises import lesson_exercises
from teachkit.show.quizzes import load, stems

SHOWN = "your predictions beside what turned out, and the exercises that you have solved"
HEADS = ("lesson", "run through", "predictions", "exercises")
NOTHING = Progress({}, [], [], False)
UNKEPT = "Open the course with <code>python -m teachkit lab</code> and run this cell"


class Sight:
    """A cell's output: HTML in JupyterLab, and words that never change elsewhere."""

    def __init__(self, html: str, plain: str) -> None:
        self.html, self.plain = html, plain

    def __repr__(self) -> str:
        return self.plain

    def _repr_html_(self) -> str:
        return self.html


class Line(NamedTuple):
    """A lesson with what it asks for and what the learner has done of it."""

    it: pages.Lesson
    questions: dict[str, str]
    exercises: list[str]
    done: Progress

    @property
    def solved(self) -> list[str]:
        """The exercises solved of those that the lesson has today."""
        return [name for name in self.exercises if name in self.done.solved]

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Name, run through, predictions, exercises: how a table says it."""
        made, there = len(self.done.predictions), len(self.questions | self.done.predictions)
        predictions = f"{made} of {there} made, {self.done.right} right" if made else "none yet"
        solved = f"{len(self.solved)} of {len(self.exercises)} solved"
        through = "yes" if self.done.finished else "not yet"
        return self.it.title, through, predictions, solved if self.done.tried else "none yet"


def lines() -> list[Line]:
    """Every lesson of the course with the learner's progress."""
    done = kept.summary(kept.events())
    there = [pages.lesson(path) for path in pages.notebooks()]
    # Where only the package is installed, as on Colab, its questions say which lessons there are.
    named = [pages.Lesson(f"{number}_{name}", "", "") for number, name in stems().items()]
    return [_line(it, done) for it in there or named]


def _line(it: pages.Lesson, done: dict[str, Progress]) -> Line:
    number = it.stem[:2]
    tasks = lesson_exercises(stems()[number]) if number in stems() else []
    return Line(it, _questions(it.stem), tasks, done.get(number, NOTHING))


def _questions(stem: str) -> dict[str, str]:
    """The lesson's questions, by number."""
    path = folder() / "quiz" / f"{stem}.toml"
    if not path.is_file():
        return {}
    return {name: question.text for name, question in load(path).items()}


def end(lesson: str) -> Sight:
    """The last cell of a lesson: predictions beside what turned out, exercises solved, the way on.

    The lesson counts as run through when its questions and checks were shown before, in this kernel.

    Args:
        lesson: its number, e.g. "02".

    """
    all_lines = lines()
    numbers = [line.it.stem[:2] for line in all_lines]
    if lesson not in numbers:
        raise ValueError(f"no lesson {lesson!r}; there are {numbers}")
    at = numbers.index(lesson)
    line = _finished(all_lines[at])
    before = all_lines[at - 1].it if at else None
    after = all_lines[at + 1].it if at + 1 < len(all_lines) else None
    found = [_predictions(line), _exercises(line), _through(line)]
    if kept.path() is None:
        found = [f"<p>{UNKEPT}: it shows {SHOWN}.</p>"]
    parts = [*found, _way(before, after), pages.reference()]
    plain = f"The end of lesson {lesson}: run this cell in JupyterLab, and it shows {SHOWN}."
    way = [f"{word}: {it.title}" for word, it in (("Before", before), ("Next", after)) if it]
    way += [f"{word}: docs/{name}.md" for word, name in pages.PAGES.items()]
    return Sight("\n".join(part for part in parts if part), "\n".join([plain, *way]))


def _finished(line: Line) -> Line:
    """The line, with the lesson recorded as run through if it was."""
    seen = kept.seen("quiz", line.questions) and kept.seen("check", line.exercises)
    if not seen or line.done.finished or kept.path() is None:
        return line
    kept.record("lesson", line.it.stem[:2])
    return line._replace(done=line.done._replace(finished=True))


def _predictions(line: Line) -> str:
    made = line.done.predictions
    if not line.questions and not made:
        return ""
    if not made:
        return _empty("You have made no prediction in this lesson yet.")
    rows = [
        [line.questions.get(name, name), vote.answer, vote.truth, _judged(vote)]
        for name, vote in sorted(made.items())
    ]
    table = _table(["question", "you said", "what turned out", "verdict"], rows)
    left = [name for name in line.questions if name not in made]
    missing = f" Without a prediction: {', '.join(left)}." if left else ""
    right = _right(line.done.right, len(made))
    return f"<p><b>Your predictions.</b> {right}{missing}</p>\n{table}"


def _right(right: int, made: int) -> str:
    """How many predictions were right, as one says it."""
    if made == 1:
        return f"You made one prediction, and it was {'right' if right else 'not right'}."
    return f"{right} of your {made} predictions {'was' if right == 1 else 'were'} right."


def _judged(vote: Prediction) -> str:
    """A word on a vote, and on its reason where one was asked for."""
    word = {True: "right", False: "not right", None: ""}[vote.right]
    reason = {True: "the reason, too", False: "but not the reason", None: ""}[vote.reason_right]
    if vote.right is False and vote.reason_right is not None:
        reason = "the reason was right" if vote.reason_right else "nor the reason"
    return ", ".join(filter(None, (word, reason)))


def _exercises(line: Line) -> str:
    if not line.exercises:
        return ""
    if not line.done.tried:
        return _empty("You have tried no exercise of this lesson yet.")
    left = [name for name in line.exercises if name not in line.solved]
    still = f" Still open: {', '.join(left)}." if left else ""
    words = f"{len(line.solved)} of {len(line.exercises)} solved.{still}"
    return f"<p><b>Your exercises.</b> {words}</p>"


def _through(line: Line) -> str:
    if line.done.finished:
        return ""
    return (
        "<p>This lesson does not count as run through yet: a question or a check above has not been "
        "shown since the kernel started. Run all cells, and it will.</p>"
    )


def _empty(words: str) -> str:
    return f"<p>{words} Run this cell again when you have.</p>"


def _way(before: pages.Lesson | None, after: pages.Lesson | None) -> str:
    """Links that JupyterLab follows from beside the notebooks."""
    words = (("Before", before), ("Next", after))
    found = [f"{word}: {_link(it)}" for word, it in words if it]
    return f"<p>{'<br>'.join(found)}</p>" if found else ""


def _link(it: pages.Lesson) -> str:
    """A lesson with its question; without a notebook there is nothing to lead to."""
    if not it.question:
        return escape(it.title)
    return f'<a href="{it.stem}.ipynb">{escape(it.title)}</a>: {escape(it.question)}'


def progress() -> Sight:
    """How far the learner has come, a line a lesson."""
    rows = [line.words for line in lines()]
    parts = [f"<p>{UNKEPT}: it shows how far you have come.</p>"] if kept.path() is None else []
    parts += [_table(HEADS, rows), *map(_paragraph, notes())]
    plain = (
        "Your progress, a line a lesson: run this cell in JupyterLab, and it shows which lessons ran "
        "through, your predictions and the exercises that you have solved."
    )
    return Sight("\n".join(parts), plain)


def notes() -> list[str]:
    """What else there is to say: damaged lines, and new versions that lie beside the learner's own."""
    work, damaged = places.work(), kept.log().damaged
    new = sorted(path.name for path in work.glob("[0-9][0-9]_*-new*.ipynb")) if work else []
    words = [f"A new version of a lesson lies beside yours: {', '.join(new)}."] if new else []
    if damaged:
        words.append(
            f"{_count(damaged, 'line')} of {kept.path()} cannot be read; all others count."
        )
    return words


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Words in rows; what comes from the learner's file is text and nothing else."""

    def row(cells: Sequence[Any], tag: str) -> str:
        kind = ' scope="col"' if tag == "th" else ""
        words = (f'<{tag}{kind} style="text-align:left">{_text(cell)}</{tag}>' for cell in cells)
        return f"<tr>{''.join(words)}</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    return f"<table>\n<thead>{row(heads, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _text(value: Any) -> str:
    return "" if value is None else pages.breakable(escape(str(value)))


door.hold(globals())
