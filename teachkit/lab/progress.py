"""What a learner has predicted, solved and run through: one line an event, kept on this machine alone.

The file is ``progress.jsonl`` in the learner's folder (:func:`teachkit.core.places.work`). It is only
ever added to. Any number of notebooks may write at once; a line that a crash has cut or that a disk
has damaged is passed over and stays where it is, and no other line is lost with it.
"""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from teachkit.core import door, files, places

KINDS = (
    "prediction",
    "exercise",
    "lesson",
    "skipped",
)  # skipped: a result seen without a prediction
NAME = "progress.jsonl"
REASON = ("reason", "reason_right")
Event = dict[str, Any]
_shown: set[tuple[str, str]] = set()  # what this kernel has shown
_warned: set[str] = set()  # what it has complained of: once is enough


class Log(NamedTuple):
    """The events of a file, in the order in which they came, and how many lines cannot be read."""

    events: list[Event]
    damaged: int = 0


class Prediction(NamedTuple):
    """The first vote on a question, what turned out, and what was right of it; None: not judged."""

    answer: Any
    truth: Any
    right: bool | None
    reason_right: bool | None


class Progress(NamedTuple):
    """How far a learner has come in a lesson."""

    predictions: dict[str, Prediction]
    solved: list[str]
    tried: list[str]
    finished: bool

    @property
    def right(self) -> int:
        """How many predictions were right."""
        return sum(it.right is True for it in self.predictions.values())


def path() -> Path | None:
    """The file of the learner's progress; None where nothing is kept."""
    folder = places.work()
    return folder and folder / NAME


def record(kind: str, name: str, **facts: Any) -> None:
    """Keep an event: a "prediction", an "exercise", a "lesson" or what was "skipped", by its number.

    Where it cannot be kept, one line says so, once, and the lesson goes on.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")
    event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind, "name": name}
    file = path()
    if file is None:
        return
    try:
        files.append(file, json.dumps(event | facts, default=_plain))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        _warn(f"Your progress is not kept: {file} cannot be written ({error}).")


def log() -> Log:
    """All that was kept, and how many lines are damaged."""
    file = path()
    if file is None:
        return Log([])
    try:
        return read(file.read_bytes()) if file.is_file() else Log([])
    except (OSError, MemoryError) as error:
        _warn(f"Your progress cannot be shown: {file} cannot be read ({error}).")
        return Log([])


def events() -> list[Event]:
    """All events that can be read, in the order in which they came."""
    return log().events


def read(content: bytes) -> Log:
    r"""The events in the content of a file, of which any part may be damaged.

    >>> read(b'{"kind": "lesson", "name": "02", "time": ""}\n{"kin')
    Log(events=[{'kind': 'lesson', 'name': '02', 'time': ''}], damaged=1)
    """
    lines = [line for line in content.split(b"\n") if line.strip()]
    events = [event for event in map(_event, lines) if event]
    return Log(events, len(lines) - len(events))


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if _whole(event) else None


def _whole(event: object) -> bool:
    return isinstance(event, dict) and all(
        isinstance(event.get(word), str) for word in ("kind", "name", "time")
    )


def summary(events: Iterable[Event]) -> dict[str, Progress]:
    """How far the learner has come, by the lesson's number; lessons without an event are missing.

    A prediction is the first vote on a question: what was voted later, with the answer at hand, is
    none. An exercise that was solved once stays solved, and a lesson that was finished, finished.

    >>> vote = {"kind": "prediction", "name": "02.1", "time": "2026-11-21T21:00:00+00:00"}
    >>> summary([vote | {"right": False}, vote | {"right": True}])["02"].right
    0
    """
    found: dict[str, Progress] = {}
    for event in filter(_whole, events):
        kind, name = event["kind"], event["name"]
        if kind in KINDS:
            it = found.setdefault(name[:2], Progress({}, [], [], False))
            found[name[:2]] = _with(it, kind, name, event)
    return dict(sorted(found.items()))


def _with(it: Progress, kind: str, name: str, event: Event) -> Progress:
    if kind == "skipped":
        return it
    if kind == "lesson":
        return it._replace(finished=True)
    if kind == "prediction":
        answer, truth = event.get("answer"), event.get("truth")
        vote = Prediction(answer, truth, _truth(event, "right"), _truth(event, "reason_right"))
        first = it.predictions.get(name, vote)
        reason = _truth(joined(first._asdict(), event), "reason_right")
        first = first._replace(reason_right=reason)
        return it._replace(predictions=it.predictions | {name: first})
    solved = [name] if event.get("right") is True else []
    return it._replace(tried=sorted({*it.tried, name}), solved=sorted({*it.solved, *solved}))


def joined(first: Event, later: Event) -> Event:
    """A vote with the reason of a later one, if it has none yet and both give the same answer.

    The reason is given after the guess, and in another kernel the guess may be another.

    >>> joined({"answer": "up"}, {"answer": "up", "reason": "why", "reason_right": True})["reason"]
    'why'
    """
    words = [str(vote.get("words", vote.get("answer"))) for vote in (first, later)]
    given = any(first.get(word) is not None for word in REASON)
    if given or words[0] != words[1]:
        return first
    return first | {word: later.get(word) for word in REASON}


def _truth(event: Event, word: str) -> bool | None:
    value = event.get(word)
    return value if isinstance(value, bool) else None


def shown(kind: str, name: str) -> None:
    """Remember that this kernel has shown a "quiz" or a "check", e.g. ``shown("quiz", "02.1")``.

    A lesson is finished when its last cell runs after all of its questions and checks were shown.
    """
    if kind not in ("quiz", "check"):
        raise ValueError(f"kind must be 'quiz' or 'check', got {kind!r}")
    _shown.add((kind, name))


def seen(kind: str, names: Iterable[str]) -> bool:
    """Whether this kernel has shown all of these quizzes or checks."""
    return {(kind, name) for name in names} <= _shown


def _plain(value: Any) -> Any:
    """What JSON does not know: a number of numpy or torch as a number, all else in words."""
    try:
        return value.item()
    except Exception:
        return str(value)


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        print(text, file=sys.stderr)


door.hold(globals())
