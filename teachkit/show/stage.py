"""Pictures of one size drawn quickly, one after the other: what an explorer shows while it moves.

Most of the time goes into what stays as it was: where the axes stand, their ticks, labels and grid.
Places are worked out for the first figure and kept for those that follow; a figure on which
something then reaches the edge is laid out anew. Ticks are painted once for each range of the axes.
"""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

INCH = 96  # pixels of a browser
DENSITY = 2  # dots a pixel, so that a picture is sharp at 200 %
GROUNDS = 8  # grounds that are kept, of 4 MB each

Dots = NDArray[np.uint8]


class Place(NamedTuple):
    """Where an axes stands, and its title."""

    box: Bbox
    anchor: Any
    ratio: float | None
    title: float


class Layout(NamedTuple):
    """What was worked out for a figure: its axes, and the texts that belong to none."""

    axes: list[Place]
    texts: list[tuple[float, float]]


class Stage:
    """Draws figures of one kind, all of one size."""

    def __init__(self) -> None:
        self.layouts: dict[object, Layout] = {}
        self.grounds: dict[object, Any] = {}

    def draw(self, figure: Figure, density: int = DENSITY) -> Dots:
        """The dots (height, width, 3) of a figure, so many of them a pixel."""
        figure.set_dpi(INCH * density)
        engine = figure.get_layout_engine()
        figure.set_layout_engine("none")
        kind = (*figure.get_size_inches(), len(figure.axes), len(figure.texts))
        known = kind in self.layouts
        if known:
            _put(figure, self.layouts[kind])
        elif engine:
            self.layouts[kind] = _laid_out(figure, engine)
        dots = self._paint(figure, kind)
        if not (known and engine and (_touches_edge(dots) or _names_stick_out(figure))):
            return dots
        self.layouts[kind] = _both(self.layouts[kind], _laid_out(figure, engine))
        _put(figure, self.layouts[kind])
        self.grounds.clear()
        return self._paint(figure, kind)

    def _paint(self, figure: Figure, kind: object) -> Dots:
        pen: Any = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        self._paint_ground(figure, kind, pen)
        with _without_frames(figure):
            figure.draw(pen)
        return np.ascontiguousarray(np.asarray(pen.buffer_rgba())[..., :3])

    def _paint_ground(self, figure: Figure, kind: object, pen: Any) -> None:
        """The frames of all axes, from the last one on that is not as it was."""
        keys: list[tuple[object, ...]] = [(kind, figure.dpi)]
        for axes in figure.axes:
            place: Any = axes.get_axes_locator()
            axes.apply_aspect(place(axes, pen) if place else None)
            keys.append((*keys[-1], _frame(axes)))
        known = max((i for i, key in enumerate(keys) if key in self.grounds), default=0)
        if known:
            pen.restore_region(self.grounds[keys[known]])
        else:
            figure.patch.draw(pen)
        for axes, key in zip(figure.axes[known:], keys[known + 1 :], strict=True):
            _paint_frame(axes, pen)
            self.grounds[key] = pen.copy_from_bbox(figure.bbox)
        while len(self.grounds) > GROUNDS:
            del self.grounds[next(iter(self.grounds))]


def size(figure: Figure) -> tuple[int, int]:
    """Width and height in pixels of a browser."""
    width, height = figure.get_size_inches()
    return int(width * INCH), int(height * INCH)


def quick(dots: Dots) -> bytes:
    """A PNG in half the time of a library's, which tries out five filters on every row.

    Each row holds its difference from the row above: mostly zeros, which shrink fast.
    """
    height, width, _ = dots.shape
    flat, rows = dots.reshape(height, -1), np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0], rows[0, 1:] = 2, flat[0]  # filter 2: up
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    parts = {
        b"IHDR": pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows.data, 1),
        b"IEND": b"",
    }
    chunks = [
        pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def small(dots: Dots) -> bytes:
    """A PNG of 128 colours, a fifth of the bytes: what a notebook keeps."""
    made = io.BytesIO()
    Image.fromarray(dots).quantize(128).save(made, format="png", optimize=True)
    return made.getvalue()


def _frame(axes: Axes) -> object:
    """What the ticks, labels and grid of an axes look like, in comparable form."""
    return (str(axes.bbox.bounds), axes.axison, *map(_plain, (axes.xaxis, axes.yaxis)))


def _plain(axis: Axis) -> tuple[object, ...]:
    parts = axis.major.locator, axis.major.formatter, axis.minor.locator, axis.minor.formatter
    label = axis.label.get_text(), axis.label.get_fontsize()
    ends = map(float, axis.get_view_interval())
    look = repr([axis.get_tick_params("major"), axis.get_tick_params("minor")])
    return (axis.get_visible(), axis.get_scale(), *ends, *label, look, *map(_values, parts))


def _values(part: object) -> str:
    simple = (int, float, str, bool, list, tuple, np.ndarray, type(None))
    return repr(
        (type(part).__name__, {k: v for k, v in vars(part).items() if isinstance(v, simple)})
    )


def _paint_frame(axes: Axes, pen: Any) -> None:
    if axes.axison:
        axes.patch.draw(pen)
        axes.xaxis.draw(pen)
        axes.yaxis.draw(pen)


@contextmanager
def _without_frames(figure: Figure) -> Iterator[None]:
    """Hide what is painted already."""
    axes = [part for each in figure.axes for part in (each.patch, each.xaxis, each.yaxis)]
    hidden = [part for part in (figure.patch, *axes) if part.get_visible()]
    for part in hidden:
        part.set_visible(False)
    yield
    for part in hidden:
        part.set_visible(True)


def _touches_edge(dots: Dots) -> bool:
    edges = dots[0], dots[-1], dots[:, 0], dots[:, -1]
    return any(int(edge.min()) < 255 for edge in edges)


def _names_stick_out(figure: Figure) -> bool:
    """Whether a name beside a line is cut, perhaps in a gap between its letters: no edge shows that."""
    right = figure.bbox.x1
    names = [text for axes in figure.axes for text in axes.texts if isinstance(text, Annotation)]
    return any(Text.get_window_extent(name).x1 > right for name in names)


def _laid_out(figure: Figure, engine: Any) -> Layout:
    for axes in figure.axes:
        axes.set_in_layout(True)  # what placing it by hand takes back
    engine.execute(figure)
    places = [
        Place(
            axes.get_position(original=True),
            axes.get_anchor(),
            axes.get_box_aspect(),
            axes.title.get_position()[1],
        )
        for axes in figure.axes
    ]
    return Layout(places, [text.get_position() for text in figure.texts])


def _both(old: Layout, new: Layout) -> Layout:
    """Room for the labels of either, so that moving back and forth lays out once."""
    pairs = zip(old.axes, new.axes, strict=True)
    boxes = [(Bbox.intersection(a.box, b.box) or b.box, b) for a, b in pairs]
    return Layout([place._replace(box=box) for box, place in boxes], new.texts)


def _put(figure: Figure, layout: Layout) -> None:
    for axes, place in zip(figure.axes, layout.axes, strict=True):
        axes.set_position(place.box)
        axes.set_anchor(place.anchor)
        axes.set_box_aspect(place.ratio)
        axes.set_title(axes.get_title(), y=place.title, fontsize=axes.title.get_fontsize())
    for text, at in zip(figure.texts, layout.texts, strict=True):
        text.set_position(at)
