"""Exercises that are experiments: many answers are right, and each is measured and scored.

They stand in ``teachkit/show/lessons/<stem>.py`` as ``TRIALS``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from teachkit.core import door
from teachkit.show import remarks, running
from teachkit.show.hints import Sheet
from teachkit.show.running import OutOfTimeError


class Scored(NamedTuple):
    """Whether an answer reaches what the text asks for, and its score in a sentence."""

    good: bool
    words: str


class Trial(NamedTuple):
    """What the learner's function is given, and how its answer is measured.

    ``ask`` makes the inputs, once before the clock starts; ``judge`` takes the answer and the inputs. An
    answer that it cannot take makes it raise a ValueError or TypeError, whose words the learner reads.
    """

    ask: Callable[[], tuple[Any, ...]]
    judge: Callable[..., Scored]


def tried(trial: Trial, sheet: Sheet, function: Callable[..., Any]) -> tuple[bool | None, str]:
    """Whether the function's answer is good enough, None for a stub, and what is said of it."""
    inputs = trial.ask()
    try:
        with running.limited(running.LIMIT):
            call = running.called(function, inputs)
    except OutOfTimeError:
        return False, f"not yet: your function takes longer than {running.LIMIT:g} seconds."
    if call.error:
        return False, remarks.raised(call, function, "")
    if call.answer is ...:
        return None, STUB
    changed = [sheet.names[i] for i in call.changed]
    if says := remarks.nothing(call, changed) or remarks.no_value(call.answer):
        return False, f"not yet: {says}"
    try:
        good, words = trial.judge(call.answer, *inputs)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        return False, f"not yet: {str(error).splitlines()[0]}"
    return good, f"correct. {words}" if good else f"not yet: {words}"


STUB = "not attempted yet. Replace the ... by your code and run both cells again."
door.hold(globals())
