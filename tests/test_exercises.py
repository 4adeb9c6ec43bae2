"""Every solution passes its check, every wrong answer fails with the helpful word."""

import copy
import random
import re
from functools import cache

import house
import nbformat
import pytest
import sympy
import torch
import wrong_answers

from teachkit.course.notebooks import FOLDER
from teachkit.show.answers import difference, same, short
from teachkit.show.exercises import all_tasks, all_trials, cases
from teachkit.show.hints import sheets
from teachkit.show.verdicts import check, verdict

TASKS, TRIALS = all_tasks(), all_trials()
TIMES = 200  # checks that each wrong answer must fail
RIGHT = 20  # checks of twelve inputs or more that each solution must pass
WRONG = wrong_answers.WRONG | house.tables("WRONG")  # a new lesson has them in its own tests
BOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(FOLDER.glob("*.ipynb"))}


def tagged(tag):
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
        assert [exercise(source) for _, source in tagged(tag)] == sorted(TASKS | TRIALS)
    assert sorted(WRONG) == sorted(TASKS)
    assert len(tagged("exercise")) == len(TASKS) + len(TRIALS)


@pytest.mark.parametrize(("stem", "source"), tagged("solution"), ids=lambda s: s[:8])
def test_solutions_pass(stem, source, capsys):
    space = {}
    for cell in BOOKS[stem].cells:  # the lesson's imports
        if cell.cell_type == "code" and "import" in cell.source and "solution" not in cell.source:
            exec("\n".join(line for line in cell.source.splitlines() if "import" in line), space)  # noqa: S102
    exec(source, space)  # noqa: S102
    name, printed = exercise(source), capsys.readouterr().out
    assert printed.startswith(f"{name}: the solution is correct.")
    if name in TRIALS:
        return
    assert printed == f"{name}: the solution is correct.\n"
    assert verdict(name, space["solution"], 1) == "correct."
    assert {differs(name, space["solution"], seed) for seed in range(RIGHT)} == {""}


@pytest.mark.parametrize(("stem", "source"), tagged("exercise"), ids=lambda s: s[:8])
def test_stubs_are_not_attempted(stem, source):
    space = {}
    exec(source, space)  # noqa: S102
    (stub,) = [value for value in space.values() if callable(value) and hasattr(value, "__code__")]
    (name,) = [
        n for n, sheet in sheets().items() if f"def {sheet.call}:" in source and n[:2] == stem[:2]
    ]
    assert verdict(name, stub).startswith("not attempted yet")
    assert stub(*[None] * stub.__code__.co_argcount) is None


@cache
def said(name, number, seed):
    return verdict(name, WRONG[name][number][0], seed)


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, pairs in WRONG.items() for i in range(len(pairs))]
)
def test_wrong_answers_fail_with_the_helpful_word(name, number):
    for seed in range(2):
        assert said(name, number, seed).startswith("not yet:")
        assert any(word in said(name, number, seed) for word in WRONG[name][number][1].split("|"))


@pytest.mark.parametrize("name", TASKS)
def test_no_check_takes_a_wrong_answer_for_right(name):
    accepted = {
        number: sum(not differs(name, answer, seed) for seed in range(TIMES))
        for number, (answer, _) in enumerate(WRONG[name])
    }
    assert {number: times for number, times in accepted.items() if times} == {}


@cache
def inputs(name, seed):
    return cases(TASKS[name], random.Random(seed))


@cache
def wanted(name, seed, number):
    return TASKS[name].answer(*inputs(name, seed)[number])


def differs(name, answer, seed):
    """What a check with this seed says of an answer, without looking for hints."""
    for number, given in enumerate(inputs(name, seed)):
        mine = copy.deepcopy(given)
        says = difference(answer(*mine), wanted(name, seed, number))
        if TASKS[name].pure and not all(map(same, mine, given)):
            return "changed"
        if says:
            return says
    return more(name, answer)


@cache
def more(name, answer):
    """What the text asks for beside the right values."""
    return TASKS[name].also(answer) if TASKS[name].also else ""


def test_every_hint_of_a_task_is_found_by_a_wrong_answer():
    """A hint that no listed answer reaches is not known to work."""
    for name, task in TASKS.items():
        everything = "".join(said(name, number, 0) for number in range(len(WRONG[name])))
        assert [hint for hint in task.mistakes if f"not yet: {hint}\n" not in everything] == []


def test_a_function_that_raises_is_quoted_with_its_line():
    says = verdict("01.1", lambda a, b, c: 1 / 0)
    assert re.match(
        r"your function raised ZeroDivisionError: division by zero\nline \d+: says = verdict.*\ninput: ",
        says,
    )


def test_check_without_a_function_says_what_is_missing(capsys):
    check("00.1")
    assert capsys.readouterr().out == (
        "00.1: check needs your function itself, got NoneType. "
        "Write show.check('00.1', sparsity), without () after its name.\n"
    )


def test_check_needs_a_known_exercise_and_a_function(capsys):
    with pytest.raises(ValueError, match=r"no exercise '99.1'; there are \['00.1'"):
        verdict("99.1", print)
    assert verdict("01.1", 3.0).startswith(
        "check needs your function itself, got float. Write show.check("
    )
    for name in ("99.1", "01.9", None, 1.1, ""):
        check(name, print)
        assert f"{name}: no exercise {name!r}; there are ['0" in capsys.readouterr().out


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
        (torch.ones(3, 2), torch.arange(6.0).reshape(3, 2), "the values differ"),
        (torch.tensor([68.0, 95.0]), torch.tensor([0.68, 0.95]), "in per cent"),
        (14.9633 + 3e-6, 14.9633, "nearly: it is off by 3e-06"),
        (14.96, 14.9633, "rounded"),
        ("Saddle", "saddle", "small letters"),
        ("x + 1", sympy.Symbol("x") + 1, "the type differs: str"),
        (sympy.Symbol("x"), sympy.Integer(2), "x is still in it"),
        (sympy.eye(2), sympy.Integer(1), "the shape differs: (2, 2) instead of one expression"),
        (2.0 + 2e-6, sympy.Integer(2), "nearly: it is off by 2e-06"),
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

    word = (
        "correct. A word of care: your function changes what it is given (scores). Work on a copy."
    )
    assert verdict("03.1", greedy, 1) == word
    assert verdict("03.1", cheat, 1).startswith("not yet:")


@pytest.mark.parametrize(
    ("name", "answer"), [("02.2", sympy.nan), ("01.3", float("nan")), ("03.3", "a")]
)
def test_strange_answers_are_not_yet_right(name, answer):
    assert verdict(name, lambda *_: answer, 1).startswith("not yet:")


class Rude:
    """Nothing can be asked of it."""

    def _no(self, *_):
        raise RuntimeError("no")

    __eq__ = __repr__ = __str__ = __len__ = __array__ = __float__ = __bool__ = __getattr__ = _no
    __hash__ = None


STRANGE = {
    "rude": Rude(),
    "bfloat16": torch.ones(2, dtype=torch.bfloat16),
    "complex": torch.ones(2, dtype=torch.complex64),
    "sparse": torch.eye(2).to_sparse(),
    "meta": torch.empty(2, device="meta"),
    "grad": torch.ones((), requires_grad=True) * 2,
    "ragged": [[1.0], [1.0, 2.0]],
    "huge": 10**400,
    "text": "__import__('os').abort()",
    "symbol": sympy.Symbol("x"),
    "matrix": sympy.eye(3),
    "generator": (i for i in ()),
    "nothing in it": [],
    "type": float,
    "error": ValueError("x"),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", ["00.1", "01.2", "01.3", "02.2", "03.1", "03.4", "08.3"])
def test_check_says_not_yet_of_whatever_it_is_given(name, strange):
    says = verdict(name, lambda *_: STRANGE[strange], 1)
    assert says.startswith("not yet:")
    assert short(STRANGE[strange])


def test_a_function_that_ends_the_session_is_quoted():
    def leave(*_):
        raise SystemExit(1)

    assert verdict("00.1", leave, 1).startswith("your function raised SystemExit: 1")


def test_what_differs_is_seen_in_the_numbers_shown():
    says = verdict("03.3", lambda n, k: TASKS["03.3"].answer(n, k) + 2e-6, 1)
    yours, right = re.findall(r"(?:yours|wanted): (.*)", says)
    assert yours != right
    assert says.startswith("not yet: nearly: it is off by up to 2e-06, more than rounding")


def test_a_function_that_asks_the_learner_is_told_at_once():
    def sparsity(w):
        return float(input("How many? "))

    said = verdict("00.1", sparsity, seed=0)
    assert said.startswith("your function raised RuntimeError: input() asks nobody in a check")
    assert 'return float(input("How many? "))' in said


def test_a_text_in_place_of_a_number_is_named():
    assert "a text instead of a value" in difference("0.6", 0.6)
