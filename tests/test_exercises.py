"""Every solution passes its check, every wrong answer fails with the helpful word."""

import re

import house
import nbformat
import pytest
import sympy
import torch
import wrong_answers

from teachkit.course.notebooks import FOLDER
from teachkit.show.exercises import all_tasks, difference, same, verdict

TASKS = all_tasks()
WRONG = wrong_answers.WRONG | house.tables("WRONG")  # a new lesson has them in its own tests
BOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(FOLDER.glob("*.ipynb"))}


def cells(tag):
    return [
        (stem, cell.source)
        for stem, book in BOOKS.items()
        for cell in book.cells
        if tag in cell.metadata.get("tags", [])
    ]


def exercise(source):
    return re.search(r'check\("([\d.]+)"', source).group(1)


def test_every_task_has_an_exercise_a_solution_and_wrong_answers():
    for tag in ("check", "solution"):
        assert [exercise(source) for _, source in cells(tag)] == sorted(TASKS)
    assert sorted(WRONG) == sorted(TASKS)
    assert len(cells("exercise")) == len(TASKS)


@pytest.mark.parametrize(("stem", "source"), cells("solution"), ids=lambda s: s[:8])
def test_solutions_pass(stem, source, capsys):
    space = {}
    for cell in BOOKS[stem].cells:  # the lesson's imports
        if cell.cell_type == "code" and "import" in cell.source and "solution" not in cell.source:
            exec("\n".join(line for line in cell.source.splitlines() if "import" in line), space)  # noqa: S102
    exec(source, space)  # noqa: S102
    assert capsys.readouterr().out == f"{exercise(source)}: correct.\n"
    for seed in range(5):
        assert verdict(exercise(source), space["solution"], seed) == "correct."


@pytest.mark.parametrize(("stem", "source"), cells("exercise"), ids=lambda s: s[:8])
def test_stubs_are_not_attempted(stem, source):
    space = {}
    exec(source, space)  # noqa: S102
    (stub,) = [value for value in space.values() if callable(value) and hasattr(value, "__code__")]
    assert verdict(
        next(n for n in TASKS if n[:2] == stem[:2]), lambda *a: stub(*a) if False else None
    ).startswith("not attempted yet")
    assert stub(*[None] * stub.__code__.co_argcount) is None


@pytest.mark.parametrize(
    ("name", "answer", "word"), [(name, *pair) for name, pairs in WRONG.items() for pair in pairs]
)
def test_wrong_answers_fail_with_the_helpful_word(name, answer, word):
    for seed in range(3):
        says = verdict(name, answer, seed)
        assert says.startswith("not yet:")
        assert word in says


def test_a_function_that_raises_is_quoted():
    says = verdict("01.1", lambda a, b, c: 1 / 0)
    assert "your function raised ZeroDivisionError: division by zero\ninput: " in says


def test_check_needs_a_known_exercise_and_a_function():
    with pytest.raises(ValueError, match=r"no exercise '99.1'; there are \['00.1'"):
        verdict("99.1", print)
    with pytest.raises(TypeError, match="check needs your function itself, got float"):
        verdict("01.1", 3.0)


@pytest.mark.parametrize(
    ("given", "expected", "says"),
    [
        (
            torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T,
            torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "transposed",
        ),
        (torch.ones(2, 3), torch.arange(6.0).reshape(2, 3), "the values differ"),
        (torch.tensor([1.0, -2.0]), torch.tensor([1.0, 2.0]), "sign of some entries"),
        (torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]), "same amount everywhere"),
        (torch.tensor([2.0, 5.0]), torch.tensor([1.0, 2.0]), "the values differ"),
        (object(), torch.tensor([1.0]), "the type differs: object instead of Tensor"),
        (float("nan"), 1.0, "the values differ"),
    ],
)
def test_differences_are_named(given, expected, says):
    assert not same(given, expected)
    assert says in difference(given, expected)


def test_an_answer_may_write_into_its_inputs():
    def greedy(scores, k):
        mask = torch.zeros(len(scores), dtype=torch.bool)
        for _ in range(k):
            best = int(scores.argmax())
            mask[best], scores[best] = True, -float("inf")
        return mask

    def cheat(scores, k):
        scores.zero_()
        return torch.arange(len(scores)) < k

    assert verdict("03.1", greedy, 1) == "correct."
    assert verdict("03.1", cheat, 1).startswith("not yet:")


@pytest.mark.parametrize(
    ("name", "answer"), [("02.2", sympy.nan), ("01.3", float("nan")), ("03.3", "a")]
)
def test_strange_answers_are_not_yet_right(name, answer):
    assert verdict(name, lambda *_: answer, 1).startswith("not yet:")
