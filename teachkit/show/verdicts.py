"""Check a learner's function against the real one, and say what differs.

``check`` never raises: whatever is passed, raised, printed or returned gets a readable line. What is
said holds for every input that was tried, or for the input that is shown.
"""

import random
import traceback
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, NamedTuple

from IPython.display import display

from teachkit.core import door
from teachkit.lab import progress
from teachkit.show import remarks, running, trials
from teachkit.show.answers import both, differences, like, short
from teachkit.show.exercises import Task, cases, exercise
from teachkit.show.hints import Sheet, folded, sheets
from teachkit.show.running import KNOWN, Call, OutOfTimeError, alike

STUB = trials.STUB
RIGHT = "correct."
Inputs = list[tuple[Any, ...]]


class Verdict(NamedTuple):
    """What a check says of a function; ``right`` is None where the stub is untouched."""

    name: str
    right: bool | None
    words: str

    def __repr__(self) -> str:
        size = f"\n({sheets()[self.name].size})" if self.right is None else ""
        return f"{self.name}: {self.words}{size}"

    def _repr_html_(self) -> str:
        sheet, lines = sheets().get(self.name), "<br>".join(escape(self.words).split("\n"))
        says = f"<div><b>{escape(self.name)}:</b> {lines}</div>"
        if self.right or sheet is None:
            return says
        return f"{says}<div><small>{sheet.size}</small></div>{folded(sheet.hints)}"


@door.guard
def check(name: Any = "", function: Any = None) -> None:
    """Say whether a learner's function does what exercise ``name``, e.g. "01.2", asks.

    An untouched stub counts as not attempted; of a wrong answer it says what differs. The notebook
    also shows hints. Nothing that the function does makes this raise, but the user's interrupt.
    """
    try:
        result = judged(name, function)
    except Exception as error:  # no such exercise, or what nobody has thought of
        display(Verdict(str(name), False, str(error)))
        return
    progress.shown("check", name)
    if getattr(function, "__name__", "") == "solution":  # the course's own, folded below a stub
        result = result._replace(words=result.words.replace("correct.", "the solution is correct."))
    elif result.right is not None:
        progress.record("exercise", result.name, right=result.right)
    display(result)


def verdict(name: str, function: Any, seed: int | None = None) -> str:
    """What :func:`check` prints after the number; inputs are fresh unless a seed is given."""
    return judged(name, function, seed).words


def judged(name: str, function: Any, seed: int | None = None) -> Verdict:
    """Call the function on some inputs and compare."""
    task, sheet = exercise(name), sheets()[name]
    call = f"show.check({name!r}, {sheet.call.partition('(')[0]})"
    if not callable(function):
        kind = type(function).__name__
        says = f"check needs your function itself, got {kind}. Write {call}, without () after its name."
        return Verdict(name, False, says)
    if running.untouched(function):
        return Verdict(name, None, STUB)
    if says := running.misfit(function, sheet.names):
        return Verdict(name, False, says)
    if isinstance(task, trials.Trial):
        return Verdict(name, *trials.tried(task, sheet, function))
    given = cases(task, random.Random(seed))  # noqa: S311 -- test inputs, no secrets
    words = _timed(task, sheet, function, given)
    return Verdict(name, None if words == STUB else words.startswith(RIGHT), words)


def _timed(task: Task, sheet: Sheet, function: Callable[..., Any], given: Inputs) -> str:
    calls: list[Call] = []
    wanted = [task.answer(*inputs) for inputs in given]  # before the clock starts: it is not theirs
    try:
        with running.limited(running.LIMIT):
            for inputs in [*given, given[0]]:  # the first once more: does it answer the same?
                calls.append(running.called(function, inputs))
                if calls[-1].error or running.large(calls[-1].answer):
                    break
            return _words(task, sheet, function, given, calls, wanted)
    except OutOfTimeError as error:
        limit = f"{running.LIMIT:g} seconds"
        again = len(calls) > len(given)  # it compares now, or tries what else is asked
        if again and not _at_work(function, error):
            return f"not yet: your answer could not be compared within {limit}; can you write it more simply?"
        lines = [
            f"not yet: your function was stopped: it takes longer than {limit}. Does a loop never end?",
            running.place(error, function),
            "" if again else remarks.shown_inputs(sheet, given[len(calls) % len(given)]),
        ]
        return "\n".join(filter(None, lines))


def _at_work(function: Callable[..., Any], error: BaseException) -> bool:
    """Whether the function itself was running when the time was over."""
    code = getattr(function, "__code__", None)
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


def _words(
    task: Task,
    sheet: Sheet,
    function: Callable[..., Any],
    given: Inputs,
    calls: list[Call],
    wanted: list[Any],
) -> str:
    """What the calls say, the plainest first."""
    last, answers = calls[-1], [call.answer for call in calls]
    if last.error:
        return remarks.raised(
            last, function, remarks.shown_inputs(sheet, given[(len(calls) - 1) % len(given)])
        )
    if all(answer is ... for answer in answers):
        return STUB
    changed = sorted({sheet.names[i] for call in calls for i in call.changed})
    for at, (inputs, call) in enumerate(zip(given, calls, strict=False)):
        if says := remarks.nothing(call, changed) or remarks.no_value(call.answer):
            some = (
                ""
                if all(a is None for a in answers) or call.answer is not None
                else " for some inputs"
            )
            says = says.replace(" nothing", f" nothing{some}", 1)
            return f"not yet: {says}\n{remarks.shown_inputs(sheet, given[at])}"
        if task.pure and call.changed:
            says = f"your function changes what it is given ({', '.join(changed)}); work on a copy"
            return f"not yet: {says}\n{remarks.shown_inputs(sheet, inputs)}"
    if len(calls) > len(given) and not (
        alike(answers[0], answers[-1]) or like(answers[-1], answers[0])
    ):  # the last bit may depend on where a tensor lies in memory
        return (
            "not yet: called twice with the same input, your function gives two answers. It keeps "
            f"something from call to call, or uses random numbers\n{remarks.shown_inputs(sheet, given[0])}\n"
            f"first: {short(answers[0])}\nthen: {short(answers[-1])}"
        )
    return _compared(
        task, sheet, function, given, calls[: len(given)], changed, wanted[: len(calls)]
    )


def _compared(
    task: Task,
    sheet: Sheet,
    function: Callable[..., Any],
    given: Inputs,
    calls: list[Call],
    changed: list[str],
    wanted: list[Any],
) -> str:
    answers = [call.answer for call in calls]
    at, says = differences(list(zip(answers, wanted, strict=True)))
    note = f"your function changes what it is given ({', '.join(changed)})"
    if at < 0:
        says = task.also(function) if task.also else ""
        if says:
            return f"not yet: {says}"
        return RIGHT + (f" A word of care: {note}. Work on a copy." if changed else "")
    if not says.startswith("nearly"):
        facts = _facts(sheet, given, answers, wanted)
        says = _known_mistake(task, given, answers) or "; ".join([says, *facts])
    shown, right = both(answers[at], wanted[at])
    lines = [
        f"not yet: {says}",
        remarks.shown_inputs(sheet, given[at]),
        f"yours: {shown}",
        f"wanted: {right}",
    ]
    if calls[at].printed.strip():
        lines.append(f"printed: {short(calls[at].printed.strip())}")
    return "\n".join([*lines, f"note: {note}"] if changed else lines)


def _known_mistake(task: Task, given: Inputs, answers: list[Any]) -> str:
    """The hint of the first listed mistake that explains every answer."""
    for hint, mistake in task.mistakes.items():
        if all(like(a, mistake(*inputs)) for a, inputs in zip(answers, given, strict=False)):
            return hint
    return ""


def _facts(sheet: Sheet, given: Inputs, answers: list[Any], wanted: list[Any]) -> Iterator[str]:
    """What else is true of all answers: an input given back, the same every time."""
    for i, name in enumerate(sheet.names):
        if all(_identical(a, inputs[i]) for a, inputs in zip(answers, given, strict=False)):
            yield f"this is {name} as it was given"
            return
    constant = len(answers) > 1 and all(_identical(answers[0], a) for a in answers[1:])
    if constant and not all(_identical(wanted[0], w) for w in wanted[1:]):
        yield "your function answers the same to every input"


def _identical(a: Any, b: Any) -> bool:
    return isinstance(a, KNOWN) and alike(a, b)
