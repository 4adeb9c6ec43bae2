"""A figure with words: alt text that screen readers, slides and nbval all get."""

import base64
import html
import io
from collections import Counter
from functools import cached_property

from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from PIL import Image

from teachkit.core import door


class Picture:
    """A drawn figure: a PNG, its alt text, and a count of what was drawn.

    JupyterLab, HTML and slides show ``<img alt>``. The plain text is the alt text and the count;
    nbval compares it, and pixel by pixel, as ``course.pictures`` does, the picture itself.

    Raises:
        ValueError: no alt text to speak of, or an axes without data.

    """

    def __init__(self, figure: Figure, alt: str) -> None:
        if len(alt.split()) < 5:
            raise ValueError(f"alt text must say in words what the figure shows, got {alt!r}")
        self.alt = alt
        self.drawn = "; ".join(drawn(axes, i) for i, axes in enumerate(figure.axes))
        self.figure = figure

    @cached_property
    def png(self) -> bytes:
        """The figure, drawn when it is first asked for."""
        return png(self.figure)

    @property
    def title(self) -> str:
        """What stands above the figure or its axes, else the alt text."""
        above = [axes.get_title() for axes in self.figure.axes]
        return self.figure.get_suptitle() or "; ".join(filter(None, above)) or self.alt

    @property
    def html(self) -> str:
        """The picture as an <img> element that carries its data and its alt text."""
        return image(self.png, self.alt, Image.open(io.BytesIO(self.png)).size)

    def __repr__(self) -> str:
        return f"{self.alt}\n[{self.drawn}]"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html}


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 128 colours: a fifth of the bytes, no label cut off."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight", pad_inches=0.08)
    Image.open(full).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    return small.getvalue()


def image(png: bytes, alt: str, size: tuple[int, int]) -> str:
    """An <img> of this size, in pixels, that shrinks with the window; its place is kept meanwhile."""
    data, (width, height) = base64.b64encode(png).decode(), size
    look = f'width="{width}" height="{height}" style="max-width: 100%; height: auto"'
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" {look}>'


def figure(figure: Figure, alt: str) -> Picture:
    """Show a matplotlib figure; its alt text says in a sentence or two what it shows."""
    return Picture(figure, alt)


def drawn(axes: Axes, index: int = 0) -> str:
    """Count the data in an axes, e.g. "2 lines of 9 points"; an axes without any is refused."""
    counts: Counter[str] = Counter()
    for line in axes.lines:
        counts[f"line of {len(line.get_xdata())} points"] += 1  # type: ignore[arg-type]
    for collection in axes.collections:
        counts[_collection(collection)] += 1
    for image in axes.images:
        counts["image of {}×{}".format(*image.get_array().shape[:2])] += 1  # type: ignore[union-attr]
    if axes.patches:
        counts["bar"] += len(axes.patches)
    if not counts:
        raise ValueError(
            f"axes {index} ({axes.get_title() or 'no title'}) is empty: nothing was drawn"
        )
    names = ", ".join(f'"{name}"' for name in axes.get_legend_handles_labels()[1])
    return ", ".join(f"{n} × {what}" for what, n in counts.items()) + f": {names}" * bool(names)


def _collection(collection: Collection) -> str:
    points = len(collection.get_offsets())  # type: ignore[arg-type]
    return f"{points} marks" if points > 1 else type(collection).__name__


door.hold(globals())
