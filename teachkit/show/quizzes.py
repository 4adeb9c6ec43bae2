"""Multiple-choice questions from data/quiz/<NN_lesson>.toml, as plain widgets."""

import tomllib
from pathlib import Path
from typing import NamedTuple

import ipywidgets as widgets

from teachkit.core import door
from teachkit.lab.data import folder
from teachkit.show.explorers import Static

LETTERS = "abcdef"


class Option(NamedTuple):
    """One answer: its text, whether it is right, and why."""

    text: str
    right: bool
    why: str


class Question(NamedTuple):
    """A question with its options."""

    text: str
    options: list[Option]


def stems() -> dict[str, str]:
    """The lessons' names by number, read off the quiz files, e.g. "obs" for "05".

    >>> stems()["05"]
    'obs'
    """
    paths = sorted((folder() / "quiz").glob("*_*.toml"))
    return {path.stem[:2]: path.stem[3:] for path in paths}


def load(path: Path) -> dict[str, Question]:
    """The questions of one file by id; a malformed file is refused with the id that is at fault.

    Each ``[[question]]`` has ``id``, ``text`` and at least three ``options`` with ``text``, ``why``
    and, on exactly one of them, ``right = true``.
    """
    questions: dict[str, Question] = {}
    for item in tomllib.loads(path.read_text("utf-8"))["question"]:
        options = [Option(o["text"], o.get("right", False), o["why"]) for o in item["options"]]
        name = item["id"]
        if name in questions or not name.startswith(path.stem[:2] + "."):
            raise ValueError(f"{path.name}: question {name!r} is there twice or not of this lesson")
        if not 3 <= len(options) <= len(LETTERS) or sum(o.right for o in options) != 1:
            raise ValueError(
                f"{path.name}: question {name!r} needs 3 to 6 options, exactly one right"
            )
        questions[name] = Question(item["text"], options)
    return questions


class Quiz(Static):
    """A question with radio buttons; choosing one says whether it is right, and why."""

    def __init__(self, question: Question) -> None:
        letters = [f"({letter})" for letter, _ in zip(LETTERS, question.options, strict=False)]
        lines = [f"{letter} {o.text}" for letter, o in zip(letters, question.options, strict=True)]
        choices = [(letter, i) for i, letter in enumerate(letters)]
        self.radio = widgets.RadioButtons(options=choices, value=None, layout={"width": "auto"})
        self.says = widgets.HTMLMath()
        self.question = question
        text = f"<b>{question.text}</b><br>" + "<br>".join(lines)
        self.radio.observe(self._answer, "value")
        plain = "Quiz: " + question.text + "\n" + "\n".join(lines)
        children = [widgets.HTMLMath(text), self.radio, self.says]
        super().__init__(children, plain=plain, static=f"<div>{text}</div>")

    def _answer(self, change: dict[str, int]) -> None:
        option = self.question.options[change["new"]]
        self.says.value = ("<b>Correct.</b> " if option.right else "<b>Not yet.</b> ") + option.why


def quiz(name: str) -> Quiz:
    """Show the question with this id, e.g. ``quiz("02.1")``.

    Raises:
        ValueError: no such question; the message lists those of the lesson.

    """
    lesson, lessons = name[:2], stems()
    if lesson not in lessons:
        raise ValueError(f"no quiz for question {name!r}; there are quizzes for {list(lessons)}")
    path = folder() / "quiz" / f"{lesson}_{lessons[lesson]}.toml"
    questions = load(path)
    if name not in questions:
        raise ValueError(f"no question {name!r}; {path.name} has {sorted(questions)}")
    return Quiz(questions[name])


door.hold(globals())
