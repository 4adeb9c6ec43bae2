"""What check says of mechanical damages of the right answers, and that it never raises."""

import copy
import datetime
import gc
import random
import sys
import threading
import time
import warnings

import damages
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit.show import hints, running, verdicts
from teachkit.show.answers import difference, differences, like, same, short
from teachkit.show.exercises import all_trials
from teachkit.show.verdicts import check, judged, verdict

SHARE = 0.12  # of all damages, others each day; ``python tests/damages.py`` tries them all
TODAY = datetime.date.today().toordinal()


@pytest.mark.parametrize("name", damages.TASKS)
def test_what_is_said_of_a_damage_is_true(name):
    dice = random.Random(f"{name} {TODAY}")
    some = [damage for damage in damages.NAMES if dice.random() < SHARE]
    false = [str(tried) for d in some if (tried := damages.tried(name, d, TODAY)).false]
    assert false == []


@pytest.mark.parametrize("damage", damages.BEHAVIOUR)
def test_each_way_to_behave_is_told_its_word(damage):
    for name in ("01.2", "12.1"):
        assert damages.tried(name, damage, 1).false == []


@pytest.mark.parametrize(
    ("says", "damage"),
    [
        ("correct.", "sign"),
        ("not attempted yet.", "sign"),
        ("not yet: it is transposed: rows and columns are swapped", "sign"),
        ("not yet: a factor of ½ too much", "twice"),
        ("not yet: the shape differs: (9,) instead of a single number", "flat"),
        ("not yet: it is off by the same factor everywhere: 3", "plus one"),
        ("not yet: this is V as it was given", "sign"),
        ("not yet: the factor ½ is missing", "sign"),
        ("not yet: the values differ", "same"),
        ("not yet: the values differ", "value error"),
    ],
)
def test_the_test_of_truth_can_fail(says, damage):
    if "½ is missing" in says:
        assert list(damages.truths("04.1", damage, says, 0)) == [
            "the hint does not explain it: the factor ½ is missing"
        ]
        return
    assert list(damages.truths("09.1", damage, says, 0))


# Answers -----------------------------------------------------------------------------------------

numbers = st.lists(st.floats(-1e6, 1e6).map(lambda v: round(v, 3)), min_size=1, max_size=6)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=6,
)
WANTED = [
    1.5,
    3,
    "saddle",
    {0, 2},
    (3, 4),
    [0.5, 0.25],
    torch.eye(2),
    torch.tensor([True, False]),
    sympy.Symbol("x") ** 2,
    sympy.Rational(1, 3),
    sympy.eye(2),
]


@given(anything, st.sampled_from(WANTED))
def test_whatever_is_given_is_answered_in_words(value, wanted):
    for given_ in (value, np.asarray(value, object)):
        assert isinstance(difference(given_, wanted), str)
        assert short(given_)
        assert differences([(given_, wanted), (wanted, wanted)])[0] in (-1, 0)


@given(numbers)
def test_an_answer_is_right_in_each_type_that_can_hold_it(values):
    wanted = torch.tensor(values, dtype=torch.float64)
    for given_ in (
        values,
        tuple(values),
        wanted.numpy(),
        wanted.float(),
        wanted.bfloat16(),
        list(wanted),
    ):
        assert difference(given_, wanted) == ""
    if wanted.abs().max() < 6e4:
        assert same(wanted.half(), wanted)


@given(numbers, st.sampled_from([torch.float64, torch.float32]))
def test_a_sign_is_named_only_where_it_is_the_sign(values, dtype):
    wanted = torch.tensor(values, dtype=torch.float64)
    says = difference(-wanted.to(dtype), wanted)
    assert says in ("", "the sign is wrong") or says.startswith("nearly")
    assert "sign" not in difference((wanted + wanted.abs().max() + 1).to(dtype), wanted.abs())


@given(numbers, st.floats(1e-7, 1e-6))
def test_a_near_miss_is_no_answer_in_float64_and_says_by_how_much(values, gap):
    wanted = torch.tensor(values, dtype=torch.float64).abs() + 1
    given_ = wanted * (1 + gap)
    assert difference(given_, wanted).startswith("nearly: it is off by ")
    assert not same(given_, wanted)
    assert like(given_, wanted)
    assert same(given_.float(), wanted)


@pytest.mark.parametrize("made", [lambda t: t.tolist(), lambda t: t.double(), lambda t: t.numpy()])
def test_what_was_computed_in_float32_is_judged_so_whatever_holds_it(made):
    wanted = torch.tensor([0.6, 0.1, 1 / 3], dtype=torch.float64)
    assert difference(made(wanted.float()), wanted) == ""
    assert difference(wanted.float()[0].item(), 0.6) == ""
    says = difference(made(wanted.float() * 1.001), wanted)
    assert says == "it is off by the same factor everywhere: 1.001"


def test_a_rounded_number_is_not_taken_for_float32():
    for given_, wanted in ((14.0, 14.0001), (14.5, 14.5001), (33333.0, 33333.2), (0.333, 1 / 3)):
        assert difference(given_, wanted)
    says = difference(0.1 + float(np.float32(0.7)), 0.1 + 0.7)
    assert says == (
        "nearly: it is off by 1e-08, more than rounding in float64 explains; is a part of it float32?"
    )


def test_right_numbers_in_another_order_are_seen():
    word = "the numbers are right, but in another order"
    assert difference([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == word
    pairs = [([3.0, 1.0], [1.0, 3.0]), ([1.0, 2.0], [1.0, 2.0])]
    assert differences(pairs) == (0, f"{word} (1 of 2 inputs is right)")
    assert differences([(3.0, 1.0), (1.0, 3.0)])[1] == "the values differ"
    assert (
        differences([([3.0, 1.0], [1.0, 3.0]), ([1.0, 2.0], [1.0, 3.0])])[1] == "the values differ"
    )


def test_numbers_in_a_list_are_shown_as_briefly_as_those_of_a_tensor():
    assert short([0.25005985672151326, 1.0, 3]) == "[0.25006, 1, 3]"
    assert short((2 / 3,)) == "(0.666667,)"
    assert short(torch.tensor(2 / 3, dtype=torch.float64)) == short(2 / 3) == "0.666667"
    assert short([[1 / 3], "a"]) == "[[0.333333], 'a']"


def test_a_coroutine_leaves_no_warning_behind():
    async def later(w):
        return w

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert "leave async out" in verdict("00.1", later, 1)
        gc.collect()
    assert seen == []


def test_a_word_on_all_answers_holds_for_each():
    assert differences([(2.0, 1.0), (3.0, 3.0)]) == (
        0,
        "the values differ (1 of 2 inputs is right)",
    )
    assert differences([(2.0, 1.0), (3.0, 3.0), (4.0, 4.0)])[1].endswith(
        "(2 of 3 inputs are right)"
    )
    assert differences([(0.0, 0.0), (3.0, -3.0)]) == (1, "the sign is wrong")  # 0 is no exception
    assert differences([(1.00001, 1.0), (3.0, 3.0)])[1].startswith(
        "nearly: it is off by up to 1e-05"
    )
    assert differences([(2.0, 1.0), (4.0, 2.0)]) == (0, "it is too large by a factor of 2")
    assert differences([(-2.0, 2.0), (3.0, 3.0)])[1].startswith("the sign is wrong for some inputs")
    assert differences([(2.0, 1.0), (4.0, 3.0)])[1] == "it is off by the same amount everywhere: 1"
    assert differences([(1.0, 1.0)]) == (-1, "")


# Running -----------------------------------------------------------------------------------------


def endless(*_):
    while True:
        pass


def test_a_function_that_never_ends_is_stopped_in_any_thread(monkeypatch):
    monkeypatch.setattr(running, "LIMIT", 0.2)
    found = []
    threads = threading.active_count()
    other = threading.Thread(target=lambda: found.append(verdict("00.1", endless, 1)))
    other.start()
    found.append(verdict("00.1", endless, 1))
    other.join(20)
    for says in found:
        assert says.startswith(
            "not yet: your function was stopped: it takes longer than 0.2 seconds"
        )
        assert ": while True:" in says or ": pass" in says
    assert len(found) == 2
    assert threading.active_count() == threads


def test_the_users_interrupt_passes():
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("00.1", interrupted)


def test_the_time_limit_leaves_the_block_and_its_own_alarm_alone():
    with running.limited(0.05):
        pass
    time.sleep(0.1)
    with pytest.raises(running.OutOfTimeError), running.limited(0.05):
        time.sleep(5)


def test_an_import_is_not_stopped_halfway(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\ndone = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def imports():
        import slow_to_import

        time.sleep(5)
        return slow_to_import

    with pytest.raises(running.OutOfTimeError), running.limited(0.05):
        imports()
    assert sys.modules["slow_to_import"].done


def test_what_a_function_prints_is_kept_and_shown(capsys):
    def loud(w):
        print("here", w.shape)
        return 3.0

    assert "\nprinted: here torch.Size([3, 5])" in verdict("00.1", loud, 1)
    assert capsys.readouterr().out == ""


def test_an_answer_that_takes_too_long_to_compare(monkeypatch):
    def slow(*_):
        endless()

    monkeypatch.setattr(running, "LIMIT", 0.2)
    monkeypatch.setattr(verdicts, "differences", slow)
    assert "could not be compared within 0.2 seconds" in verdict("00.1", lambda w: 1.0, 1)


def test_the_repeated_call_is_stopped_too(monkeypatch):
    monkeypatch.setattr(running, "LIMIT", 0.2)
    monkeypatch.setattr(verdicts, "cases", lambda *_: [(torch.ones(3),)])
    calls = []

    def slow_again(w):
        calls.append(w)
        return endless() if len(calls) > 1 else 0.0

    says = verdict("00.1", slow_again, 1)
    assert "was stopped: it takes longer than 0.2 seconds" in says
    assert "input: " in says


def test_a_function_that_is_slow_where_more_is_asked_is_said_to_be_slow(monkeypatch):
    def slow_with_many(f, at, v):
        return endless() if len(at) > 3 else damages.TASKS["02.4"].answer(f, at, v)

    monkeypatch.setattr(running, "LIMIT", 2.0)
    says = verdict("02.4", slow_with_many, 1)
    assert says.startswith("not yet: your function was stopped: it takes longer than 2 seconds")
    assert "input: " not in says


def test_parts_of_an_answer_are_kept_as_they_were():
    part = torch.ones((), requires_grad=True) * 2
    held = torch.zeros(2)
    for answer in [(part, held), [part, [held]]]:
        copied = running.kept(answer)
        held += 1
        assert not running.alike(copied, answer)
        assert type(copied) is type(answer)


def test_a_large_answer_is_not_asked_for_twelve_times():
    calls = []

    def large(w):
        calls.append(1)
        return torch.zeros(1).expand(2000, 2000)

    assert "the shape differs: (2000, 2000) instead of a single number" in verdict("00.1", large, 1)
    assert len(calls) == 1


@pytest.mark.parametrize("text", ["def f(w): ...", "def f(w): pass", 'def f(w):\n    """Words."""'])
def test_a_stub_is_known_by_its_body(text):
    space = {}
    exec(text, space)  # noqa: S102
    assert verdict("00.1", space["f"]).startswith("not attempted yet")


def nothing(w):
    return None


def test_a_function_that_returns_nothing_is_no_stub():
    assert "your function returns nothing" in verdict("00.1", nothing)
    assert "your function returns nothing" in verdict("00.1", lambda w: None)
    assert "changes w and returns nothing" in verdict("00.1", lambda w: w.zero_() and None)
    assert verdict("00.1", lambda w: ...).startswith("not attempted yet")


def test_the_parameters_are_named():
    says = verdict("01.1", lambda a, b: a)
    assert says == "your function takes (a, b); the exercise gives it 3 values: (fxx, fyy, fxy)"
    assert "gives it 1 value: (w)" in verdict("00.1", lambda a, b: a)


# What is shown and kept ----------------------------------------------------------------------------


def test_each_exercise_has_its_sheet():
    trials = all_trials()
    assert sorted(hints.sheets()) == sorted(damages.TASKS | trials)
    for name, sheet in hints.sheets().items():
        task = damages.TASKS.get(name)
        drawn = damages.cases(task, random.Random(0))[0] if task else trials[name].ask()
        assert len(sheet.names) == len(drawn), name
        assert 1 <= sheet.difficulty <= hints.LEVELS
        assert 1 <= sheet.minutes <= 60
        assert 2 <= len(sheet.hints) <= 3
        for hint in sheet.hints:
            assert hint.symptom.strip()
            assert len(hint.hint) > 30
            assert hint.symptom[-1] not in ".!"
            assert hint.symptom.count("`") % 2 == hint.hint.count("`") % 2 == 0


def test_the_words_are_plain_and_the_hints_are_in_the_html():
    stub = verdicts.Verdict("06.4", None, verdicts.STUB)
    assert repr(stub) == (
        "06.4: not attempted yet. Replace the ... by your code and run both cells again.\n"
        "(difficulty 3 of 5, about 9 minutes)"
    )
    page = stub._repr_html_()
    assert page.count("<details>") == 3
    assert "Hint 3 of 3: “I have 1 + gᵀAg below the line”" in page
    assert "<script" not in page
    assert "<details>" not in judged("06.4", damages.solution("06.4"))._repr_html_()
    assert "&lt;b&gt;" in verdicts.Verdict("06.4", False, "<b>")._repr_html_()


def test_what_a_learner_solves_is_kept_and_the_solution_is_not(monkeypatch, capsys):
    kept = []

    def record(*words, **facts):
        kept.append((*words, facts))

    monkeypatch.setattr(verdicts.progress, "record", record)

    def solution(w):
        return float((w == 0).sum() / w.numel())

    def stub(w): ...

    check("00.1", solution)
    check("00.1", stub)
    check("00.1", lambda w: 0.0)
    check("00.1", copy.copy(lambda w: solution(w)))
    assert kept == [("exercise", "00.1", {"right": False}), ("exercise", "00.1", {"right": True})]
    assert capsys.readouterr().out.count("00.1: ") == 4


@pytest.mark.parametrize("answer", [[1.0, -2.0], [np.inf, 1.5], [-np.inf, np.inf]])
def test_infinite_answers_are_judged_without_a_warning(answer):
    wanted = np.array([np.inf, 2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert difference(np.array(answer), wanted).startswith("the values differ")
        assert difference(wanted, np.array([1.0, 2.0])) == "the values differ: inf is in it"
        assert not difference(wanted, wanted)
