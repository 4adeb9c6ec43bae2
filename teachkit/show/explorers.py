"""Explorers: controls that redraw one picture."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import traitlets

from teachkit.core import door
from teachkit.show import frames, stage
from teachkit.show.controls import Control, Given, Value, control
from teachkit.show.live import FRONT, Live, script
from teachkit.show.pictures import Picture, image
from teachkit.show.prepared import prepared

RUN = "Run this cell to move the sliders."


class Explorer(Live):
    """Controls above a picture that ``draw(**values)`` makes anew whenever one of them moves.

    The browser asks for one picture at a time, always for the newest values. ``at`` are the positions
    of the controls in their options, ``shown`` goes with the picture ``png``, ``problem`` is what to
    say instead of a new one, ``answered`` the request that was answered last, and ``frames`` the
    pictures of a single slider, for a page that no kernel answers.
    """

    _esm = script("explorer")
    _css = (FRONT / "explorer.css").read_text("utf-8")
    controls = traitlets.List().tag(sync=True)
    at = traitlets.Dict().tag(sync=True)
    png = traitlets.Bytes().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    answered = traitlets.Unicode().tag(sync=True)
    frames = traitlets.List().tag(sync=True)

    def __init__(self, draw: Callable[..., Picture], asks: list[Control]) -> None:
        self.draw, self.asks, self.stage = draw, asks, stage.Stage()
        self.heard = 0.0
        at = {each.name: each.options.index(each.start) for each in asks}
        self.picture = self.draw(**self._values(at))
        dots = self.stage.draw(self.picture.figure)
        settings = ", ".join(f"{each.name} = {each.start}" for each in asks)
        names = " or ".join(each.name for each in asks)
        kept = stage.small(self.stage.draw(self.picture.figure, 1))
        still = image(kept, self.picture.alt, stage.size(self.picture.figure))
        static = frames.element(self, still) if frames.wanted() else f"<p>{RUN}</p>\n{still}"
        super().__init__(
            plain=f"Explorer: run this cell and move {names}. At {settings}:\n{self.picture}",
            static=static,
            controls=[each.describe() for each in asks],
            at=at,
            **_sent(self.picture, dots),
        )
        self.on_msg(self._hear)
        if len(asks) == 1 and asks[0].slider:
            frames.draw_when_idle(self, asks[0])

    def move(self, **values: Value) -> Picture:
        """Set some of the controls, as a learner does; the picture that is shown then."""
        asks = {each.name: each for each in self.asks}
        if strange := values.keys() - asks.keys():
            raise ValueError(f"there is no {min(strange)!r} to move, only {', '.join(asks)}")
        at = {name: asks[name].find(value) for name, value in values.items()}
        self._answer(uuid.uuid4().hex, {**self.at, **at})
        return self.picture

    def _values(self, at: dict[str, int]) -> dict[str, Value]:
        return {each.name: each.options[at[each.name]] for each in self.asks}

    def _hear(self, _: widgets.Widget, content: dict[str, Any], buffers: list[memoryview]) -> None:
        at = {**self.at, **content["at"]}
        self._answer(str(content["asked"]), at, content.get("density", stage.DENSITY))
        self.heard = time.monotonic()

    def _answer(self, asked: str, at: dict[str, int], density: int = stage.DENSITY) -> None:
        """Draw and send in one message; what a draw function raises is said in a line."""
        with self.hold_sync():
            try:
                picture = self.draw(**self._values(at))
                sent = _sent(picture, self.stage.draw(picture.figure, density))
                self.picture, self.png, self.shown = picture, sent["png"], sent["shown"]
                self.problem = ""
            except (Exception, KeyboardInterrupt) as error:
                self.problem = frames.refusal(error)
            self.at, self.answered = at, asked


def explore(draw: Callable[..., Picture], **controls: Given) -> Explorer:
    """Let the learner move sliders; the picture follows.

    Args:
        draw: makes a Picture from keyword arguments; it must be quick (a twentieth of a second).
        controls: per argument of draw either (low, high, step) or (low, high, step, start), whole
            numbers for a whole-number slider, or a list of words to choose from.

    Raises:
        ValueError: a control is neither.

    """
    return Explorer(prepared(draw), [control(name, given) for name, given in controls.items()])


def _sent(picture: Picture, dots: stage.Dots) -> dict[str, Any]:
    words = {"alt": picture.alt, "title": picture.title, "size": stage.size(picture.figure)}
    return {"png": stage.quick(dots), "shown": words}


door.hold(globals())
