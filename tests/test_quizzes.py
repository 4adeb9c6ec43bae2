"""The answer of each quiz is the one that the answer key finds, and a malformed quiz is refused."""

import html
import json
import re
import tomllib
from collections import Counter

import house
import nbformat
import pytest
from answer_key import KEY, WHY
from hypothesis import given
from hypothesis import strategies as st

from teachkit import show
from teachkit.course.notebooks import FOLDER
from teachkit.course.setup import ROOT
from teachkit.lab.data import folder
from teachkit.show import predictions, questions, quizzes

KEYS = KEY | house.tables("KEY")  # a new lesson has them in its own tests
REASONS = WHY | house.tables("WHY")
QUESTIONS = {
    name: question
    for path in sorted((folder() / "quiz").glob("*.toml"))
    for name, question in quizzes.load(path).items()
}
ALL_KINDS = (ROOT / "tests" / "browser" / "questions.toml").read_text("utf-8")


def chosen(options, words):
    """The numbers of the options that have these words in their text, whole."""
    whole = re.compile(rf"(?<![\w.]){re.escape(words)}(?![\w]|\.\d)")
    return [i for i, option in enumerate(options) if whole.search(option.text)]


def right(options):
    return [i for i, option in enumerate(options) if option.right]


def agrees(question, key):
    """Whether the key finds what is marked as right, and nothing else."""
    facts, options = question.facts, question.options
    if question.kind == "choice":
        return chosen(options, key) == right(options)
    if question.kind == "several":
        found = [chosen(options, words) for words in key]
        once = all(len(one) == 1 for one in found)
        return once and sorted(i for one in found for i in one) == right(options)
    if question.kind == "order":
        places = [sorted(i for words in place for i in chosen(options, words)) for place in key]
        marked = [o.place for o in options]
        return places == [
            [i for i, place in enumerate(marked) if place == one] for one in sorted(set(marked))
        ]
    if question.kind == "number":
        return abs(key - facts["answer"]) <= 0.005 * abs(key)
    return all(abs(a - b) <= 0.005 * abs(a) for a, b in zip(key, facts["truth"], strict=True))


def moved(question):
    """The question with something else marked as right, in each way that there is."""
    facts, options = question.facts, question.options
    if question.kind in ("choice", "several"):
        for number, option in enumerate(options):
            if question.kind == "several" or not option.right:
                yield question._replace(
                    options=[
                        o._replace(right=(not o.right) if i == number else o.right)
                        if question.kind == "several"
                        else o._replace(right=i == number)
                        for i, o in enumerate(options)
                    ]
                )
    elif question.kind == "order":
        last = max(o.place for o in options)
        yield question._replace(options=[o._replace(place=last - o.place) for o in options])
        yield question._replace(options=[o._replace(place=i) for i, o in enumerate(options[::-1])])
    elif question.kind == "number":
        yield from (
            question._replace(facts=facts | {"answer": facts["answer"] * f}) for f in (0.5, -1, 1.1)
        )
    else:
        for i, y in enumerate(facts["truth"]):
            other = [*facts["truth"][:i], 1.1 * y, *facts["truth"][i + 1 :]]
            yield question._replace(facts=facts | {"truth": other})


def test_every_question_has_a_key():
    assert sorted(KEYS) == sorted(QUESTIONS)
    assert sorted(REASONS) == sorted(name for name, q in QUESTIONS.items() if q.reason)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_right_answer_is_the_keys(name):
    question = QUESTIONS[name]
    assert agrees(question, KEYS[name]())
    if question.reason:
        assert chosen(question.reason.options, REASONS[name]) == right(question.reason.options)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_right_that_is_moved_is_noticed(name):
    others = list(moved(QUESTIONS[name]))
    assert others
    assert not any(agrees(other, KEYS[name]()) for other in others)


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
    assert asked == [show.quiz(name)._repr_mimebundle_()["text/plain"]]


# What is written -------------------------------------------------------------------------------


def texts(question):
    """All that a learner may read of a question."""
    facts = question.facts
    yield from (question.text, *(word for o in question.options for word in (o.text, o.why)))
    yield from (
        facts[key] for key in ("right", "wrong", "unit", "xlabel", "ylabel") if key in facts
    )
    yield from (t["why"] for t in facts.get("typical", ()))
    if question.reason:
        yield question.reason.text
        yield from (word for o in question.reason.options for word in (o.text, o.why))


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_text_is_shown_as_it_is_written(name):
    """No formula or markup that nobody typesets, and no letter or place: the options are shuffled."""
    markup = re.compile(r"[$`\\]|\w_\w\b|\*\*|<[a-z/]")
    places = re.compile(
        r"\([a-f]\)|\b(answer|option) [A-Fa-f]\b|(all|none|both) of the above"
        r"|\b(first|second|third|last|next|previous) (answer|option)\b"
    )
    for text in texts(QUESTIONS[name]):
        assert not places.search(text), text
        assert not markup.search(re.sub(r"autograd\.grad\(.*?\)\)", "", text)), text
        assert text == "" or text == text.strip()


def test_no_place_among_the_options_is_the_right_one_more_often():
    """If this fails after questions were added, another ``questions.SALT`` shuffles them all anew."""
    shown = [q.shown for q in QUESTIONS.values() if q.kind == "choice"]
    shown += [
        questions.shuffled(f"{name} why", q.reason.options)
        for name, q in QUESTIONS.items()
        if q.reason
    ]
    counts = Counter(right(options)[0] for options in shown)
    by_chance = sum(1 / len(options) for options in shown)
    assert counts[0] <= by_chance
    assert max(counts.values()) <= by_chance + 2 * (by_chance * 2 / 3) ** 0.5


def test_an_order_does_not_start_as_the_right_one():
    for question in QUESTIONS.values():
        places = [o.place for o in question.shown]
        assert question.kind != "order" or places != sorted(places)


@given(st.text(max_size=8), st.lists(st.integers(), max_size=9))
def test_shuffling_loses_nothing_and_depends_on_the_name_alone(name, items):
    made = questions.shuffled(name, items)
    assert sorted(made) == sorted(items)
    assert made == questions.shuffled(name, items)
    others = [f"{i}" for i in range(len(items))]  # other items, the same places
    places = questions.shuffled(name, list(range(len(items))))
    assert questions.shuffled(name, others) == [others[i] for i in places]


@given(st.lists(st.integers(0, 2), min_size=3, max_size=6).map(sorted), st.text(max_size=6))
def test_no_shuffled_order_is_right(places, name):
    options = [questions.Option(str(i), True, "", place) for i, place in enumerate(places)]
    shown = [o.place for o in questions.Question(name, "", options, "order").shown]
    assert len(set(places)) == 1 or shown != sorted(shown)


# Files -----------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "77_x.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def test_the_five_kinds_are_read(written):
    found = quizzes.load(written(ALL_KINDS))
    kinds = [question.kind for question in found.values()]
    assert kinds == ["choice", "several", "number", "order", "curve", "curve"]
    assert set(kinds) == set(quizzes.FIELDS)
    for question in found.values():
        front = json.loads(json.dumps(question.front))
        assert front == question.front
        data = re.search(r'data-question="(.*?)"', question.static).group(1)
        assert json.loads(html.unescape(data)) == question.front
        assert question.plain.startswith(f"Quiz: {question.text}\n")
        assert "<script" not in question.static


def test_the_truth_in_words(written):
    found = quizzes.load(written(ALL_KINDS))
    assert [question.truth for question in found.values()] == [
        "it rises",
        "weights; biases",
        "0.95 of all",
        "magnitude, then OBD, then SD, then random",
        "0.17, 0.3, 0.56, 0.96 at 1, 10, 100, 1000",
        "0.001 at t = 0.1",
    ]


def test_a_page_without_a_kernel_asks_the_same(written):
    (first, *_) = quizzes.load(written(ALL_KINDS)).values()
    assert "<b>Is a &lt; b &amp; c one answer?</b>" in first.static
    assert "Run this cell to answer" in first.static
    assert predictions.page_script().count("</script>") == 2


def test_unknown_questions_are_refused():
    with pytest.raises(
        ValueError, match=r"no question '00.9'; 00_start.toml has \['00.1', '00.2'\]"
    ):
        show.quiz("00.9")
    with pytest.raises(ValueError, match=r"no quiz for question '77.1'; there are .* \['00',"):
        show.reveal("77.1", show.source(folder))


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("77.1", 'id = "77.1"', 'id = "78.1"', "not of this lesson"),
        ("77.1", 'id = "77.2"', 'id = "77.1"', "is there twice"),
        ("77.1", 'text = "it rises", right = true', 'text = "it rises"', "exactly one right"),
        ("77.1", '"it falls", why', '"it falls", right = true, why', "exactly one right"),
        ("77.1", '"it falls"', '"it rises"', "the same text"),
        ("77.1", '"Because it does."', '"x", wye = 1', "'wye' means nothing here"),
        ("77.1", 'text = "Is a < b & c one answer?"', "", "'text' is missing"),
        ("77.1", '"the weights work together", right = true', '"x"', "exactly one right"),
        ("77.2", '"biases", right = true', '"biases"', "two or more right"),
        ("77.2", 'kind = "several"', 'kind = "many"', "kind must be one of .*'curve'.*'many'"),
        ("77.3", "answer = 0.95", 'answer = "0.95"', "answer must be a finite number, got '0.95'"),
        ("77.3", "answer = 0.95", "answer = nan", "answer must be a finite number, got nan"),
        ("77.3", "value = 95", "value = 0.96", "typical wrong number 0.96 counts as right"),
        ("77.3", 'tolerance = "2 %"', "tolerance = 0", "a tolerance above 0"),
        ("77.3", 'tolerance = "2 %"', 'tolerance = "2"', "tolerance must be a finite number"),
        ("77.3", 'tolerance = "2 %"', 'tolerance = "x %"', "could not convert"),
        ("77.4", "place = 2", "place = 0", "written in the right order"),
        ("77.4", '"OBD"', '"SD"', "the same text"),
        ("77.4", 'right = "As measured."\n', "", "'right' is missing"),
        ("77.5", "truth = [0.17, 0.3, 0.56, 0.96]", "truth = [0.17]", "for each x"),
        ("77.5", "0.96]", "1.96]", "truth must have a number from low to high for each x"),
        ("77.5", "x = [1, 10", "x = [0, 10", "x must be above 0"),
        ("77.5", "low = 0", "low = 2", "low < high"),
        ("77.5", "known = [", "know = [", "'know' means nothing here"),
        ("77.6", "low = 1e-6", "low = 0", "above 0 if log"),
        ("77.6", "{ y = [1e-2]", "{ value = [1e-2]", "'y' is missing"),
    ],
)
def test_a_malformed_file_is_refused_by_the_id_at_fault(written, name, old, new, says):
    assert old in ALL_KINDS
    with pytest.raises(ValueError, match=f"(?s)77_x.toml: question '7[78].*{says}") as refused:
        quizzes.load(written(ALL_KINDS.replace(old, new, 1)))
    assert name in str(refused.value) or "78.1" in new


numbers = st.floats(-1e6, 1e6).filter(lambda v: abs(v) > 1e-6)


@given(numbers, st.integers(1, 49), st.booleans())
def test_a_typical_wrong_number_within_the_tolerance_is_refused(answer, percent, within):
    tolerance = f"{percent} %"
    value = answer * (1 + percent / 100 * (0.9 if within else 1.1))
    item = tomllib.loads(
        f'id = "77.1"\ntext = "t"\nkind = "number"\nanswer = {answer!r}\ntolerance = "{tolerance}"\n'
        f'right = "r"\nwrong = "w"\ntypical = [{{ value = {value!r}, why = "w" }}]'
    )
    if within:
        with pytest.raises(ValueError, match="counts as right"):
            quizzes._question("77.1", item)
    else:
        assert quizzes._question("77.1", item).facts["relative"]
