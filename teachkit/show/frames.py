"""Pictures of an explorer drawn before: a slider moves them without a kernel."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from teachkit.show import stage
from teachkit.show.controls import Control
from teachkit.show.live import FRONT, script
from teachkit.show.pictures import Picture

MOST = 21  # pictures of a slider; each takes 10 to 40 kB
PAUSE = 1.0  # seconds between two, so that nobody waits for them
LATE = 0.1  # seconds: a kernel that comes so late has something better to do


class Drawn(Protocol):
    """What is asked of an explorer here."""

    draw: Callable[..., Picture]
    asks: list[Control]
    stage: stage.Stage
    model_id: str
    frames: Any
    heard: float


def positions(control: Control, most: int = MOST) -> list[int]:
    """Up to so many positions of a control at about equal distances, its start among them.

    >>> from teachkit.show.controls import control
    >>> positions(control("n", (0, 9, 1, 2)), 4)
    [0, 2, 3, 6, 9]
    """
    last = len(control.options) - 1
    even = np.linspace(0, last, min(most, last + 1)).round().astype(int).tolist()
    return sorted({*even, control.options.index(control.start)})


def frame(explorer: Drawn, control: Control, position: int) -> dict[str, Any]:
    """The picture at a position of one control, the others at their start."""
    starts = {each.name: each.start for each in explorer.asks}
    value = control.options[position]
    picture = explorer.draw(**{**starts, control.name: value})
    dots = explorer.stage.draw(picture.figure)
    words = {"alt": picture.alt, "title": picture.title, "size": stage.size(picture.figure)}
    return {"value": control.write(value), "position": position, "png": stage.small(dots)} | words


def page(explorer: Drawn, name: str = "", most: int = MOST) -> str:
    """Plain HTML of an explorer for slides and pages: a slider over pictures, with its own script.

    Args:
        explorer: what ``show.explore`` returns.
        name: the control that moves, the first without a name; the others stay at their start.
        most: at most so many pictures.

    """
    named = {each.name: each for each in explorer.asks}
    if name and name not in named:
        raise ValueError(f"name must be one of {', '.join(named)}, got {name!r}")
    control = named[name] if name else explorer.asks[0]
    made = [frame(explorer, control, position) for position in positions(control, most)]
    for each in made:
        each["png"] = "data:image/png;base64," + base64.b64encode(each["png"]).decode()
    start = [each["position"] for each in made].index(control.options.index(control.start))
    about = {"name": control.name, "label": control.label, "slider": control.slider}
    given = ", ".join(json.dumps(part).replace("</", "<\\/") for part in (about, made, start))
    style = (FRONT / "explorer.css").read_text("utf-8")
    here = f"tk-{explorer.model_id}-{control.name}"
    return (
        f'<div id="{here}"></div>\n<style>\n{style}</style>\n<script type="module">\n'
        f"{script('explorer')}\nplay(document.getElementById({json.dumps(here)}), {given});\n</script>"
    )


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
            try:
                made.append(frame(explorer, control, open_[len(made)]))
            except Exception:
                return
        if len(made) < len(open_):
            again()
        else:
            explorer.frames = made

    def again() -> None:
        due = loop.time() + PAUSE
        loop.call_at(due, step, due)

    again()
