"""Questions in a notebook: the first vote on one is the learner's prediction, and it is kept.

``show/front/questions.js`` asks and judges, with a kernel or without. Python only learns of the
vote: it keeps it, and tells whoever waits for it, such as what ``show.reveal`` has covered.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

import traitlets

from teachkit.core import door
from teachkit.lab import progress
from teachkit.show.live import FRONT, Live, script
from teachkit.show.questions import Question
from teachkit.show.quizzes import find

Vote = dict[str, Any]
_votes: dict[str, Vote] = {}  # the first votes of this session
_looked: set[str] = set()  # questions whose result was opened without a vote in this session
_waiting: dict[str, list[WeakMethod[Callable[[], None]]]] = {}


def voted(name: str) -> bool:
    """Whether the learner has made a prediction for a question, now or in an earlier session."""
    return bool(vote(name))


def vote(name: str) -> Vote:
    """The first vote on a question: ``answer``, its ``words``, ``right``, ``reason`` and its judgement.

    Without a vote it is empty.
    """
    return _votes.get(name) or _earlier(name)


def _earlier(name: str) -> Vote:
    """What the learner's folder has kept; the reason may have come later than the guess."""
    found: Vote = {}
    for event in progress.events():
        if (event["kind"], event["name"]) != ("prediction", name) or "answer" not in event:
            continue
        words = str(event["answer"])
        found = found or {"answer": event.get("raw", words), "words": words, "reason": None}
        found.setdefault("right", event.get("right"))
        found = progress.joined(found, event)
    return found


def looked(name: str) -> bool:
    """Whether the learner has opened a result without a prediction; a vote after it is none."""
    events = progress.events() if name not in _looked else []
    return name in _looked or any((e["kind"], e["name"]) == ("skipped", name) for e in events)


def look(name: str) -> None:
    """Remember that a result was opened without a prediction."""
    if not voted(name) and not looked(name):
        _looked.add(name)
        progress.record("skipped", name)


def asked(name: str) -> bool:
    """Whether this session has shown the question."""
    return progress.seen("quiz", [name])


def when_changed(name: str, call: Callable[[], None]) -> None:
    """Call a method whenever the question is shown or voted on, as long as its object lives."""
    _waiting.setdefault(name, []).append(WeakMethod(call))


def _tell(name: str) -> None:
    for reference in _waiting.get(name, []):
        call = reference()
        if call:
            call()


class Quiz(Live):
    """A question to vote on; in JupyterLab and on a plain page it is the same JavaScript."""

    _esm = script("questions") + "\nexport default { render: renderQuestion };"
    _css = (FRONT / "questions.css").read_text("utf-8")
    question = traitlets.Dict().tag(sync=True)
    vote = traitlets.Dict().tag(sync=True)
    says = traitlets.Unicode().tag(sync=True)
    looked = traitlets.Bool().tag(sync=True)  # the page knows of a look that no kernel has heard of

    def __init__(self, question: Question) -> None:
        self.name = question.name
        super().__init__(
            plain=question.plain,
            static=question.static,
            question=question.front,
            vote=vote(question.name),
            says=_says(question.name),
        )
        self.observe(self._keep, "vote")
        progress.shown("quiz", question.name)
        _tell(question.name)

    def _keep(self, change: dict[str, Any]) -> None:
        """The page sends the first vote, and once more when the reason has been given."""
        new, old = dict(change["new"]), vote(self.name)
        kept = progress.joined(old, new) if old else new
        if not new or (old and kept.get("reason") == old.get("reason")):
            return
        if self.looked:
            look(self.name)
        if not looked(self.name):
            _votes[self.name] = kept
            self._record(kept)
        self.says = _says(self.name)
        _tell(self.name)

    def _record(self, kept: Vote) -> None:
        facts = {word: kept.get(word) for word in ("right", "reason", "reason_right")}
        truth = self.question["in_words"]
        progress.record(
            "prediction", self.name, answer=kept["words"], raw=kept["answer"], truth=truth, **facts
        )


def _says(name: str) -> str:
    """A word on what becomes of the vote."""
    if looked(name) and not voted(name):
        return "You have seen the result first, so this is not kept as a prediction."
    if not voted(name):
        return ""
    kept = "" if _earlier(name) else ", for this session only"
    return f"Your first answer is kept as your prediction{kept}."


def quiz(name: str) -> Quiz:
    """Show the question with this id, e.g. ``quiz("02.1")``.

    Raises:
        ValueError: no such question; the message lists those of the lesson.

    """
    return Quiz(find(name))


def page_script() -> str:
    """The elements that bring the questions, covers and explorers of a plain HTML page to life."""
    styles = [(FRONT / f"{name}.css").read_text("utf-8") for name in ("questions", "explorer")]
    codes = [
        script("questions") + "\nhydrate(document);\n",
        script("explorer") + "\nhydrateExplorers(document);\n",
    ]
    scripts = [f'<script type="module">\n{code}</script>\n' for code in codes]
    return "".join(["<style>\n", *styles, "</style>\n", *scripts])


door.hold(globals())
