"""The option that a quiz marks as right is the one that the answer key finds."""

import re

import house
import nbformat
import pytest
from answer_key import KEY

from teachkit.course.notebooks import FOLDER
from teachkit.lab.data import folder
from teachkit.show import quizzes

KEYS = KEY | house.tables("KEY")  # a new lesson has them in its own tests
QUESTIONS = {
    name: question
    for path in sorted((folder() / "quiz").glob("*.toml"))
    for name, question in quizzes.load(path).items()
}


def chosen(question, words):
    """The numbers of the options that have these words in their text, whole."""
    whole = re.compile(rf"(?<![\w.]){re.escape(words)}(?![\w]|\.\d)")
    return [i for i, option in enumerate(question.options) if whole.search(option.text)]


def agrees(name, question):
    """Whether the key's words are in the right option, and in no other."""
    right = [i for i, option in enumerate(question.options) if option.right]
    return chosen(question, KEYS[name]()) == right


def test_every_question_has_a_key():
    assert sorted(KEYS) == sorted(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_right_option_is_the_keys(name):
    assert agrees(name, QUESTIONS[name])


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_right_that_is_moved_is_noticed(name):
    question = QUESTIONS[name]
    for number, option in enumerate(question.options):
        moved = [o._replace(right=i == number) for i, o in enumerate(question.options)]
        assert agrees(name, question._replace(options=moved)) == option.right


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_notebook_shows_the_question_as_it_is(name):
    """The saved output holds a copy of the text."""
    (path,) = FOLDER.glob(f"{name[:2]}_*.ipynb")
    asked = [
        output["data"]["text/plain"]
        for cell in nbformat.read(path, as_version=4).cells
        if f'show.quiz("{name}")' in cell.source and cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert asked == [quizzes.Quiz(QUESTIONS[name])._repr_mimebundle_()["text/plain"]]
