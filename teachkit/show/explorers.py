"""Explorers: sliders that redraw one picture."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from teachkit.core import door
from teachkit.show.pictures import Picture

Control = tuple[float, ...] | Sequence[str]


class Static(widgets.VBox):  # type: ignore[misc]
    """A box of widgets that also says in plain text and HTML what it shows without a kernel."""

    def __init__(self, children: Sequence[widgets.Widget], *, plain: str, static: str) -> None:
        super().__init__(list(children))
        self.plain, self.static = plain, static

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": self.plain, "text/html": self.static}


class Explorer(Static):
    """Controls above a picture that ``draw(**values)`` makes anew whenever one of them moves."""

    def __init__(self, draw: Callable[..., Picture], controls: dict[str, widgets.Widget]) -> None:
        self.draw, self.controls = draw, controls
        self.image = widgets.HTML()
        for control in controls.values():
            control.observe(self._redraw, "value")
        first = self._redraw()
        settings = ", ".join(f"{name} = {c.value}" for name, c in controls.items())
        plain = f"Explorer: run this cell and move {' or '.join(controls)}. At {settings}:\n{first}"
        super().__init__([*controls.values(), self.image], plain=plain, static=first.html)

    def _redraw(self, _: object = None) -> Picture:
        picture = self.draw(**{name: control.value for name, control in self.controls.items()})
        self.image.value = picture.html
        return picture


def explore(draw: Callable[..., Picture], **controls: Control) -> Explorer:
    """Let the learner move sliders; the picture follows.

    Args:
        draw: makes a Picture from keyword arguments; it must be quick (a fifth of a second).
        controls: per argument of draw either (low, high, step) or (low, high, step, start), whole
            numbers for a whole-number slider, or a list of words to choose from.

    Raises:
        ValueError: a control is neither.

    """
    return Explorer(draw, {name: _control(name, given) for name, given in controls.items()})


def _control(name: str, given: Control) -> widgets.Widget:
    label: dict[str, Any] = {"style": {"description_width": "8em"}, "layout": {"width": "32em"}}
    label["description"] = name.replace("_", " ")
    if isinstance(given, list) and given and all(isinstance(word, str) for word in given):
        return widgets.Dropdown(options=given, **label)
    if isinstance(given, tuple) and len(given) in (3, 4) and given[0] < given[1] and given[2] > 0:
        low, high, step, *start = given
        whole = all(isinstance(value, int) for value in given)
        kind = widgets.IntSlider if whole else widgets.FloatSlider
        return kind(start[0] if start else low, min=low, max=high, step=step, **label)
    forms = "(low, high, step), (low, high, step, start) or a list of words"
    raise ValueError(f"{name} must be {forms}, got {given!r}")


door.hold(globals())
