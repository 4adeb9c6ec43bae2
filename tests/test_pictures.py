"""A picture that a cell does not draw is noticed: in a saved notebook, whatever stands in its place."""

import base64
import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from teachkit.course import pictures
from teachkit.course.notebooks import FOLDER
from teachkit.show import plots

GRID = np.linspace(0, 1, 9)
CURVES = {"random": 1 - GRID, "magnitude": 1 - GRID**3}
SAVED = {
    f"{cell.id}.{i}": picture
    for path in sorted(FOLDER.glob("*.ipynb"))
    for cell in nbformat.read(path, as_version=4).cells
    for i, picture in enumerate(pictures.drawn(cell.get("outputs", [])))
}


def drawn(curves=CURVES, *, grid=GRID, xlabel="sparsity"):
    alt = "Two falling curves of test accuracy against sparsity."
    picture = plots.lines(grid, curves, xlabel=xlabel, ylabel="test accuracy", alt=alt)
    return base64.b64encode(picture.png).decode()


def stored(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).quantize(256).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def recoloured(a):
    """The most frequent strong colour is another one."""
    colours, counts = np.unique(a.reshape(-1, 3), axis=0, return_counts=True)
    strong = np.ptp(colours, axis=1) > 80
    if not strong.any():
        return 255 - a
    (most,) = colours[counts == counts[strong].max()][:1]
    return np.where((a == most).all(2, keepdims=True), most[[1, 2, 0]], a)


TAMPERED = {
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "turned": lambda a: a[::-1, ::-1],
    "shifted by a pixel": lambda a: np.roll(a, 1, 1),
    "lowered by two": lambda a: np.roll(a, 2, 0),
    "another colour": recoloured,
    "cut off": lambda a: a[:, :-20],
    "white": lambda a: np.full_like(a, 255),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_picture_that_was_tampered_with_is_another(name):
    pixels = pictures.pixels(SAVED[name])
    assert pictures.difference(SAVED[name], stored(pixels)) == ""
    for how, change in TAMPERED.items():
        assert pictures.difference(stored(change(pixels)), SAVED[name]), how
    names = list(SAVED)
    assert pictures.difference(SAVED[names[names.index(name) - 1]], SAVED[name])  # the one before


def test_rounding_makes_no_other_picture():
    for size in (1e-12, 1e-7):
        moved = {name: y * (1 + size) for name, y in CURVES.items()}
        assert pictures.difference(drawn(), drawn(moved)) == ""


@pytest.mark.parametrize(
    "other",
    [
        drawn({"random": 1 - GRID, "magnitude": 1 - GRID**3 + 0.01}),
        drawn({"random": 1 - GRID, "magnitude": 1 - GRID**3 + 0.02 * (GRID == 0.5)}),
        drawn({"random": 1 - GRID**3, "magnitude": 1 - GRID}),
        drawn({"random": 1 - GRID, "magnitnde": 1 - GRID**3}),
        drawn({"random": 1 - GRID}),
        drawn(xlabel="sparsify"),
        drawn(grid=1.01 * GRID),
    ],
    ids=["curve", "point", "swapped", "letter", "missing", "label", "scale"],
)
def test_what_someone_sees_is_another_picture(other):
    assert pictures.difference(drawn(), other)


def shown(*parts):
    return [nbformat.v4.new_output("display_data", {mime: part}) for mime, part in parts]


def test_pictures_are_counted_and_named():
    one, two = drawn(), drawn(CURVES | {"random": GRID})
    both = f'<img src="data:image/png;base64,{one}" alt="x"><img src="data:image/png;base64,{two}">'
    page, bare = shown(("text/html", both)), shown(("image/png", one), ("image/png", two))
    assert pictures.drawn(page) == pictures.drawn(bare) == [one, two]
    assert pictures.problems(page, bare) == []
    assert pictures.problems(page, bare[:1]) == [
        "the notebook holds 2 pictures here, the cell draws 1"
    ]
    assert pictures.problems([], bare) == ["the notebook holds 0 pictures here, the cell draws 2"]
    (says,) = pictures.problems(page, [bare[0], bare[0]])
    assert says.startswith("picture 2: the picture is not the one drawn now: ")
    assert "rows" in says


@pytest.mark.parametrize("data", ["", "AAAA", "%%%", drawn()[:400]])
def test_what_is_no_picture_is_said_to_be_none(data):
    says = f"a picture of {len(data)} characters cannot be read"
    assert pictures.difference(drawn(), data) == pictures.difference(data, drawn()) == says
