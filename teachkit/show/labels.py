"""Direct labels: the name of each line stands at its end, spread so that no two names overlap."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from teachkit.core import door

SIZE = 9  # points
SPACING = 1.25  # line height in units of the size
LETTERS = 24  # a longer name takes two lines
MOST, FARTHEST = 8, 0.3  # more names, or one farther from its line (share of the height): a legend
CONTRAST = 4.5  # of text on white, WCAG 2.1


class End(NamedTuple):
    """The last point of a line in shares of the axes, and the name that belongs there."""

    x: float
    y: float
    name: str
    colour: str

    @property
    def lines(self) -> int:
        """Lines of text."""
        return self.name.count("\n") + 1


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Places as near to the wanted ones as can be, between 0 and 1, so that no heights overlap.

    >>> [round(y, 3) for y in spread([0.5, 0.5, 0.1], [0.1, 0.1, 0.1])]
    [0.45, 0.55, 0.1]
    """
    if not len(wanted):
        return []
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    blocks: list[tuple[list[int], float]] = []
    for i in order:
        members = [i]
        while True:
            centre = _centre(members, wanted, heights)
            if not blocks or _reach(blocks[-1], heights) <= centre - _half(members, heights):
                break
            members = blocks.pop()[0] + members
        blocks.append((members, centre))
    places = [0.0] * len(wanted)
    for members, centre in blocks:
        low = centre - _half(members, heights)
        for i in members:
            places[i] = low + heights[i] / 2
            low += heights[i]
    return places


def _half(members: Sequence[int], heights: Sequence[float]) -> float:
    return sum(heights[i] for i in members) / 2


def _reach(block: tuple[list[int], float], heights: Sequence[float]) -> float:
    """The upper end of a block; a hair below, so that rounding merges no two that only touch."""
    return block[1] + _half(block[0], heights) - 1e-9


def _centre(members: Sequence[int], wanted: Sequence[float], heights: Sequence[float]) -> float:
    """Where a block of touching names is nearest to what its members want, inside the axes."""
    total, below, offsets = 2 * _half(members, heights), 0.0, []
    for i in members:
        offsets.append(below + heights[i] / 2 - total / 2)
        below += heights[i]
    best = float(np.mean([wanted[i] - offset for i, offset in zip(members, offsets, strict=True)]))
    return min(max(best, total / 2), max(1 - total / 2, total / 2))


def at_ends(axes: Axes) -> bool:
    """Write the name of each labelled line beside its last point; False where that would not be readable.

    Nothing is drawn then, and a legend has to say it. Limits and scales of the axes must be final.
    """
    found = sorted(
        ends(axes), key=lambda end: end.y
    )  # above another also where both leave the axes
    whole = axes.get_figure(root=True)
    tall = 72 * 0.7 * whole.get_figheight() if whole else 1.0  # points, less what labels take
    height = SIZE * SPACING / tall  # of a line of text, in shares of the axes
    heights = [height * end.lines for end in found]
    beside = [min(max(end.y, 0.0), 1.0) for end in found]  # a line may leave the axes
    places = spread(beside, heights)
    far = [abs(place - y) for place, y in zip(places, beside, strict=True)]
    if not 0 < len(found) <= MOST or sum(heights) > 1 or max(far) > FARTHEST:
        return False
    for end, place in zip(found, places, strict=True):
        _write(axes, end, place)
    return True


def ends(axes: Axes) -> list[End]:
    """The ends of the labelled lines of an axes; none where something labelled is no line."""
    handles, names = axes.get_legend_handles_labels()
    lines = [it for it in handles if isinstance(it, Line2D) and it.get_linestyle() != "None"]
    if len(lines) < len(names):
        return []
    axes.autoscale_view()  # limits that are still to be found
    result = []
    for line, name in zip(lines, names, strict=True):
        pixels = line.get_transform().transform(line.get_xydata())
        shown = pixels[np.isfinite(pixels).all(1)]
        if len(shown):
            x, y = axes.transAxes.inverted().transform(shown[-1])
            name = "\n".join(textwrap.wrap(name, LETTERS))
            result.append(End(float(x), float(y), name, str(line.get_color())))
    return result


def _write(axes: Axes, end: End, place: float) -> None:
    """A name right of the axes, with a thin line to where its curve ends if that is seen elsewhere."""
    arrow: dict[str, Any] = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.7}
    arrow |= {"shrinkA": 0, "shrinkB": 2}
    near = abs(place - end.y) < 0.01 and end.x > 0.97
    plain = near or not 0 <= end.y <= 1
    axes.annotate(
        end.name,
        (end.x, end.y),
        (1.035, place),
        xycoords="axes fraction",
        textcoords="axes fraction",
        fontsize=SIZE,
        linespacing=1.0,
        color=ink(end.colour),
        va="center",
        arrowprops=None if plain else arrow,
        annotation_clip=False,
    )


def ink(colour: str) -> str:
    """The colour, darkened until it can be read as text on white.

    >>> ink("#000000"), ink("#E69F00")
    ('#000000', '#9D6C00')
    """
    rgb = np.array(to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < CONTRAST:
        rgb = rgb * 0.98
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb).upper()


def _luminance(rgb: np.ndarray) -> float:
    """Relative luminance, WCAG 2.1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


door.hold(globals())
