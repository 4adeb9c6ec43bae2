"""Widgets that say in words and in HTML what they show, and run their own small JavaScript.

JupyterLab shows the widget where it has one: after a run, and in a notebook that was saved with its
widgets' state. Elsewhere the static HTML stands: before the first run, in decks, on a page.
"""

from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

FRONT = Path(__file__).parent / "front"


@cache
def script(*names: str) -> str:
    """The JavaScript of these files of ``show/front`` in one piece, e.g. ``script("explorer")``.

    What all widgets share comes first.
    """
    return "\n".join((FRONT / f"{name}.js").read_text("utf-8") for name in ("live", *names))


class Live(anywidget.AnyWidget):  # type: ignore[misc]
    """A widget with its plain text, which nbval compares, and its HTML without a kernel.

    ``key`` is the name under which the page finds the widget's model, to see whether a kernel answers.
    """

    key = traitlets.Unicode().tag(sync=True)

    def __init__(self, *, plain: str, static: str, **traits: Any) -> None:
        super().__init__(**traits)
        self.plain, self.static, self.key = plain, static, self.model_id

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        made = super()._repr_mimebundle_(**kwargs)
        bundle: dict[str, Any] = made[0] if isinstance(made, tuple) else made
        return {**bundle, "text/plain": self.plain, "text/html": self.static}
