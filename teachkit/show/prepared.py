"""Scenes that work out once what does not depend on the sliders."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from teachkit.show.pictures import Picture

Draw = Callable[..., Picture]


class Scene:
    """A function that prepares and returns the function that draws; called whole, it does both.

    >>> @Scene
    ... def shifted(a):
    ...     ready = 10 * a
    ...     return lambda b: ready + b
    >>> shifted(1, b=2), prepared(partial(shifted, 1))(b=3)
    (12, 13)
    """

    def __init__(self, prepare: Callable[..., Draw]) -> None:
        self.prepare, self.__doc__ = prepare, prepare.__doc__
        self.names = list(inspect.signature(prepare).parameters)

    def __call__(self, *given: Any, **named: Any) -> Picture:
        """Prepare and draw one picture."""
        early = {name: named.pop(name) for name in self.names if name in named}
        first = len(self.names) - len(early)
        return self.prepare(*given[:first], **early)(*given[first:], **named)


def prepared(draw: Draw) -> Draw:
    """The function that draws, after its preparation if it is a scene with all of it given."""
    if isinstance(draw, Scene) and not draw.names:
        return draw.prepare()
    if isinstance(draw, partial) and isinstance(draw.func, Scene):
        return draw.func.prepare(*draw.args, **draw.keywords)
    return draw
