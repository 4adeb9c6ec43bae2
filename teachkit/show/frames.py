"""Pictures of an explorer drawn before: its controls move them without a kernel."""

import asyncio
import base64
import contextlib
import html
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np

from teachkit.show import stage
from teachkit.show.controls import Control, Value
from teachkit.show.pictures import Picture

VARIABLE = "TEACHKIT_PAGES"  # 1: explorers bring along what a page without a kernel needs
GRID = 36  # pictures of an explorer on such a page; each takes 10 to 40 kB
MOST = 21  # pictures of a slider in a notebook
LONGEST = 200  # characters of an error that fit above a picture
PAUSE = 1.0  # seconds between two, so that nobody waits for them
LATE = 0.1  # seconds: a kernel that comes so late has something better to do


class Drawn(Protocol):
    """What is asked of an explorer here."""

    draw: Callable[..., Picture]
    asks: list[Control]
    stage: stage.Stage
    frames: Any
    heard: float


def wanted() -> bool:
    """Whether explorers bring their pictures along."""
    return os.environ.get(VARIABLE) == "1"


def positions(control: Control, most: int = MOST) -> list[int]:
    """Up to so many positions of a control at about equal distances; the nearest gives way to its start.

    >>> from teachkit.show.controls import control
    >>> positions(control("n", (0, 9, 1, 2)), 4)
    [0, 2, 6, 9]
    """
    last, start = len(control.options) - 1, control.options.index(control.start)
    even: list[int] = np.linspace(0, last, min(most, last + 1)).round().astype(int).tolist()
    inner = range(1, len(even) - 1) if len(even) > 2 and start not in even else range(len(even))
    nearest = min(inner, key=lambda i: abs(even[i] - start))  # both ends stay
    return [*even[:nearest], start, *even[nearest + 1 :]]


def counts(options: Sequence[int], most: int = GRID) -> list[int]:
    """How many positions of each control make at most so many pictures; the longest gives way first.

    >>> counts([3, 41])
    [3, 12]
    """
    made = list(options)
    while math.prod(made) > most:
        made[made.index(max(made))] -= 1
    return made


def frame(explorer: Drawn, values: dict[str, Value]) -> dict[str, Any]:
    """The picture at these values of the controls."""
    picture = explorer.draw(**values)
    dots = explorer.stage.draw(picture.figure)
    words = {"alt": picture.alt, "title": picture.title, "size": stage.size(picture.figure)}
    return {"png": stage.small(dots)} | words


def element(explorer: Drawn, still: str, most: int = GRID) -> str:
    """An explorer as HTML that moves without a kernel, once ``predictions.page_script`` is on the page.

    Args:
        explorer: what ``show.explore`` returns.
        still: HTML that stands there where no script runs.
        most: at most so many pictures.

    """
    asks = explorer.asks
    many = counts([len(each.options) for each in asks], most)
    chosen = [positions(each, n) for each, n in zip(asks, many, strict=True)]
    frames = {}
    for at in product(*map(range, map(len, chosen))):
        values = {c.name: c.options[p[i]] for c, p, i in zip(asks, chosen, at, strict=True)}
        frames[" ".join(map(str, at))] = _for_page(explorer, values)
    controls = [_only(*each) for each in zip(asks, chosen, strict=True)]
    data = html.escape(json.dumps({"controls": controls, "frames": frames}, sort_keys=True))
    return f'<div class="teachkit-explorer" data-frames="{data}">{still}</div>'


def _for_page(explorer: Drawn, values: dict[str, Value]) -> dict[str, Any]:
    try:
        made = frame(explorer, values)
    except Exception as error:
        return {"problem": refusal(error)}
    return {**made, "png": "data:image/png;base64," + base64.b64encode(made["png"]).decode()}


def refusal(error: BaseException) -> str:
    """What a draw function raised, in a line above the picture before."""
    said = " ".join(str(error).split()) or "no reason given"
    reason = said if len(said) <= LONGEST else said[:LONGEST] + " …"
    kind = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    return f"This picture could not be drawn ({kind}: {reason}). The one before stays; move on."


def _only(control: Control, positions: list[int]) -> dict[str, Any]:
    """What the browser needs to know of a control that has these positions alone."""
    about = control.describe()
    shown = [about["shown"][position] for position in positions]
    return {**about, "shown": shown, "start": positions.index(about["start"])}


def draw_when_idle(explorer: Drawn, control: Control) -> None:
    """Draw a slider's pictures one by one while the kernel has nothing else to do, then send them."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no kernel: nobody moves a slider
        return
    made: list[dict[str, Any]] = []
    open_ = positions(control)

    def step(due: float) -> None:
        moving = time.monotonic() - explorer.heard < PAUSE
        if loop.time() - due <= LATE and not moving:
            position = open_.pop(0)
            value = control.options[position]
            words = {"value": control.write(value), "position": position}
            with contextlib.suppress(Exception):  # what it says to the learner who moves there
                made.append(words | frame(explorer, {control.name: value}))
        if open_:
            again()
        else:
            explorer.frames = made

    def again() -> None:
        due = loop.time() + PAUSE
        loop.call_at(due, step, due)

    again()
