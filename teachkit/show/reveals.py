"""A result that is covered until the learner has said what it will be."""

import html
from typing import Any

import ipywidgets as widgets
import traitlets

from teachkit.core import door
from teachkit.show import predictions
from teachkit.show.live import FRONT, Live, script
from teachkit.show.quizzes import find


class Reveal(Live):
    """Covers a picture, table, page or explorer in JupyterLab; its plain text is the thing's own."""

    _esm = script("questions", "reveal") + "\nexport default { render: renderReveal };"
    _css = (FRONT / "questions.css").read_text("utf-8")
    name = traitlets.Unicode().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)
    child = traitlets.Instance(widgets.Widget, allow_none=True).tag(
        sync=True, **widgets.widget_serialization
    )
    opened = traitlets.Bool().tag(sync=True)
    asked = traitlets.Bool().tag(sync=True)
    looked = traitlets.Bool().tag(sync=True)

    def __init__(self, name: str, thing: object) -> None:
        plain, static = _plain(thing), _html(thing)
        child = thing if isinstance(thing, widgets.Widget) else None
        super().__init__(
            plain=plain,
            static=f'<details class="teachkit-reveal" data-predict="{name}">'
            f"<summary>Predict first: question {name}</summary>{static}</details>",
            name=name,
            html="" if child else static,
            child=child,
            opened=predictions.voted(name) or predictions.looked(name),
            asked=predictions.asked(name),
        )
        self.observe(lambda _: predictions.look(name), "looked")
        predictions.when_changed(name, self._changed)

    def _changed(self) -> None:
        self.asked = predictions.asked(self.name)
        self.opened = self.opened or predictions.voted(self.name)


def reveal(name: str, thing: object) -> Reveal:
    """Show a result after the vote on its question; before, cover it with "Predict first".

    Args:
        name: the question's id, e.g. "02.3".
        thing: what ``show.figure``, ``show.table``, ``show.source`` or ``show.explore`` gives.

    Raises:
        ValueError: no such question; the message lists those of the lesson.
        TypeError: a thing that has no HTML.

    """
    return Reveal(find(name).name, thing)


def _bundle(thing: Any) -> dict[str, Any]:
    if isinstance(thing, type) or not hasattr(thing, "_repr_mimebundle_"):
        return {}
    made = thing._repr_mimebundle_()
    return dict(made[0] if isinstance(made, tuple) else made)


def _plain(thing: object) -> str:
    return str(_bundle(thing).get("text/plain", repr(thing)))


def _html(thing: Any) -> str:
    """What a thing shows without a kernel; of a text in Markdown, its plain words."""
    bundle = _bundle(thing)
    if "text/html" in bundle:
        return str(bundle["text/html"])
    if not isinstance(thing, type):
        if hasattr(thing, "_repr_html_"):
            return str(thing._repr_html_())
        if hasattr(thing, "_repr_markdown_"):
            return f"<pre>{html.escape(repr(thing))}</pre>"
    what = f"{type(thing).__name__} {thing!r:.60}"
    raise TypeError(f"thing must be a figure, table, source or explorer of show, got {what}")


door.hold(globals())
