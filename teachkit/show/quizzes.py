"""The questions of data/quiz/<NN_lesson>.toml, five kinds of them, read and refused by name."""

import math
import tomllib
from pathlib import Path
from typing import Any

from teachkit.core import door
from teachkit.lab.data import folder
from teachkit.show.questions import LETTERS, Option, Question, Reason

LISTS = ("options", "items")
FIELDS = {  # what a question of each kind must have, and what it may have besides
    "choice": ("options", ""),
    "several": ("options", ""),
    "number": ("answer tolerance right wrong", "unit typical"),
    "order": ("items right wrong", ""),
    "curve": ("x truth low high xlabel ylabel tolerance right wrong", "log xlog known typical"),
}


def stems() -> dict[str, str]:
    """The lessons' names by number, read off the quiz files, e.g. "obs" for "05".

    >>> stems()["05"]
    'obs'
    """
    paths = sorted((folder() / "quiz").glob("*_*.toml"))
    return {path.stem[:2]: path.stem[3:] for path in paths}


def find(name: str) -> Question:
    """The question with this id, e.g. "02.1"; an unknown one is refused with those that there are."""
    lesson, lessons = name[:2], stems()
    if lesson not in lessons:
        raise ValueError(f"no quiz for question {name!r}; there are quizzes for {list(lessons)}")
    path = folder() / "quiz" / f"{lesson}_{lessons[lesson]}.toml"
    questions = load(path)
    if name not in questions:
        raise ValueError(f"no question {name!r}; {path.name} has {sorted(questions)}")
    return questions[name]


def load(path: Path) -> dict[str, Question]:
    """The questions of one file by id; a malformed file is refused with the id that is at fault.

    Each ``[[question]]`` has ``id`` and ``text``, a ``kind`` ("choice" without one), what FIELDS
    lists for its kind, and, if there is a second step, ``why`` with ``text`` and ``options``.
    """
    questions: dict[str, Question] = {}
    for item in tomllib.loads(path.read_text("utf-8"))["question"]:
        name = str(item.get("id"))
        if name in questions or not name.startswith(path.stem[:2] + "."):
            raise ValueError(f"{path.name}: question {name!r} is there twice or not of this lesson")
        try:
            questions[name] = _question(name, item)
        except (ValueError, TypeError, KeyError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path.name}: question {name!r}: {what}") from error
    return questions


def _question(name: str, item: dict[str, Any]) -> Question:
    kind = item.get("kind", "choice")
    if kind not in FIELDS:
        raise ValueError(f"kind must be one of {list(FIELDS)}, got {kind!r}")
    needs, may = (set(words.split()) for words in FIELDS[kind])
    _keys(item, needs | {"id", "text"}, may | {"kind", "why"})
    options, facts = [], {k: v for k, v in item.items() if k in needs | may and k not in LISTS}
    if kind in ("choice", "several"):
        options = _options(item["options"], several=kind == "several")
    elif kind == "order":
        options = _items(item["items"])
    else:
        facts |= _number(facts) if kind == "number" else _curve(facts)
    return Question(name, item["text"], options, kind, facts, _reason(item.get("why")))


def _keys(item: dict[str, Any], needs: set[str], may: set[str]) -> None:
    """A table that lacks a key, or has one that nobody reads, is refused."""
    for key in sorted(needs - set(item)):
        raise KeyError(key)
    for key in sorted(set(item) - needs - may):
        raise ValueError(f"{key!r} means nothing here; allowed are {sorted(needs | may)}")


def _options(given: list[dict[str, Any]], several: bool = False) -> list[Option]:
    for o in given:
        _keys(o, {"text", "why"}, {"right"})
    options = [Option(o["text"], bool(o.get("right", False)), o["why"]) for o in given]
    right = sum(o.right for o in options)
    enough = 2 <= right < len(options) if several else right == 1
    if not 3 <= len(options) <= len(LETTERS) or not enough:
        how = "two or more right and one wrong" if several else "exactly one right"
        raise ValueError(f"it needs 3 to 6 options, {how}")
    _apart(options)
    return options


def _items(given: list[dict[str, Any]]) -> list[Option]:
    """The things to put in order; of one ``place`` are those that may stand either way."""
    for o in given:
        _keys(o, {"text", "why"}, {"place"})
    items = [Option(o["text"], True, o["why"], o.get("place", i)) for i, o in enumerate(given)]
    places = [o.place for o in items]
    if not 3 <= len(items) <= len(LETTERS) or places != sorted(places) or len(set(places)) < 2:
        raise ValueError("it needs 3 to 6 items, written in the right order, of two places or more")
    _apart(items)
    return items


def _apart(given: list[Option]) -> None:
    if len({o.text for o in given}) < len(given):
        raise ValueError("two options have the same text")


def _reason(given: dict[str, Any] | None) -> Reason | None:
    if given is None:
        return None
    _keys(given, {"text", "options"}, set())
    return Reason(given["text"], _options(given["options"]))


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _number(facts: dict[str, Any]) -> dict[str, Any]:
    """A tolerance in per cent, "10 %", is of the answer; as a number it is in the answer's unit."""
    answer, given = _real("answer", facts["answer"]), facts["tolerance"]
    relative = isinstance(given, str) and given.endswith("%")
    tolerance = _real("tolerance", float(given[:-1]) / 100 if relative else given)
    typical = [_typical(t, "value") for t in facts.get("typical", [])]
    for t in typical:
        value = _real("typical value", t["value"])
        if abs(value - answer) <= tolerance * (abs(answer) if relative else 1):
            raise ValueError(f"the typical wrong number {value:g} counts as right")
    if tolerance <= 0 or not typical or (relative and not answer):
        raise ValueError("it needs a tolerance above 0 and a typical wrong number")
    found = {"answer": answer, "tolerance": tolerance, "relative": relative, "typical": typical}
    return {"unit": "", **facts, **found}


def _typical(given: dict[str, Any], key: str) -> dict[str, Any]:
    _keys(given, {key, "why"}, set())
    return given


def _curve(facts: dict[str, Any]) -> dict[str, Any]:
    """The truth and every other line have a point for each x, within the axes."""
    low, high = _real("low", facts["low"]), _real("high", facts["high"])
    tolerance, log = _real("tolerance", facts["tolerance"]), facts.get("log", False)
    if not low < high or (log and low <= 0) or not 0 < tolerance < 0.5:
        raise ValueError("it needs low < high (above 0 if log) and a tolerance below 0.5 of that")
    typical = [_typical(t, "y") for t in facts.get("typical", [])]
    known = facts.get("known", [])
    for label, y in [("truth", facts["truth"]), *(("a line", t["y"]) for t in [*typical, *known])]:
        if len(y) != len(facts["x"]) or not all(low <= _real(label, v) <= high for v in y):
            raise ValueError(f"{label} must have a number from low to high for each x, got {y}")
    if facts.get("xlog") and not all(_real("x", v) > 0 for v in facts["x"]):
        raise ValueError("x must be above 0 where its axis is logarithmic")
    if not typical:
        raise ValueError("it needs a typical wrong line, {y, why}")
    return {"log": log, "xlog": False, "known": known, **facts, "typical": typical}


door.hold(globals())
