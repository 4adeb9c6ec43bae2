"""Whether the pictures that a notebook holds are the ones that its cells draw.

Pixels are compared, not files: rounding in another order moves a curve by a hundredth of a pixel,
which changes some shades a little. What someone sees, another line, place, colour or letter, changes
some pixels a lot or many pixels by something.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

STRONG, FEW = 64, 10  # of 255: so many pixels may differ by more
WEAK, SHARE = 16, 0.001  # of 255, of all pixels
EMBEDDED = re.compile(r"data:image/\w+;base64,([^\"')\s]*)")


def drawn(outputs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The pictures of a cell's outputs in their order, as base64: those in HTML and bare ones."""
    found = []
    for output in outputs:
        for mime, value in sorted(output.get("data", {}).items()):
            text = "".join(value)
            found += EMBEDDED.findall(text) if mime == "text/html" else []
            found += [text] if mime in ("image/png", "image/jpeg") else []
    return found


def pixels(picture: str) -> np.ndarray:
    """(height, width, 3), 0 to 255; what is no picture is a ValueError."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(picture, validate=True)))
        return np.asarray(image.convert("RGB"), dtype=int)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"a picture of {len(picture)} characters cannot be read") from error


def difference(saved: str, fresh: str) -> str:
    """What differs between two pictures, in words; empty where nobody would see it."""
    if saved == fresh:
        return ""
    try:
        a, b = pixels(saved), pixels(fresh)
    except ValueError as error:
        return str(error)
    if a.shape != b.shape:
        return (
            f"the picture has {a.shape[1]}×{a.shape[0]} pixels, drawn now {b.shape[1]}×{b.shape[0]}"
        )
    gap = np.abs(a - b).max(2)
    strong, weak = int((gap > STRONG).sum()), float((gap > WEAK).mean())
    if strong <= FEW and weak <= SHARE:
        return ""
    rows, columns = np.nonzero(gap > WEAK)
    place = f"columns {columns.min()}–{columns.max()}, rows {rows.min()}–{rows.max()}"
    return f"the picture is not the one drawn now: {strong} pixels are quite another, {place}"


def problems(saved: Iterable[Mapping[str, Any]], fresh: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each picture of a cell that is missing, too many or not the one drawn now."""
    before, now = drawn(saved), drawn(fresh)
    if len(before) != len(now):
        return [f"the notebook holds {len(before)} pictures here, the cell draws {len(now)}"]
    pairs = enumerate(zip(before, now, strict=True), 1)
    return [f"picture {i}: {says}" for i, pair in pairs if (says := difference(*pair))]
