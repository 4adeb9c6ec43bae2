"""The same name looks the same in every figure of every lesson, also in grey and to the colour-blind."""

import itertools
import re

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from teachkit import experiments, lab, masks, paradox, show, taylor
from teachkit.course.notebooks import FOLDER
from teachkit.course.setup import ROOT
from teachkit.lab.curves import interval
from teachkit.show import labels, plots, styles
from teachkit.show.lessons import (
    magnitude,
    neurons,
    obd,
    obs,
    paradox_figures,
    schedule,
    structured,
)
from teachkit.show.lessons import paradox as paradox_scenes
from teachkit.show.lessons import taylor as taylor_scenes
from teachkit.show.styles import METHODS, NEUTRAL, SAME, TABLE

ALT = "Five words say what it is."
AXES = {"xlabel": "sparsity", "ylabel": "test accuracy", "alt": ALT}
# Machado, Oliveira & Fernandes (2009), severity 1.
BLIND = {
    "protanopia": [[0.1521, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0519]],
    "deuteranopia": [
        [0.3673, 0.8606, -0.2280],
        [0.2801, 0.6727, 0.0473],
        [-0.0118, 0.0429, 0.9689],
    ],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9309, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def arms(names, places=9):
    """Curves that fall close together, with intervals."""
    dice, x = np.random.default_rng(0), np.linspace(0.1, 0.9, places)
    runs = {n: 1 - x**3 - 0.05 * i * x for i, n in enumerate(names)}
    return x, {n: interval(y + 0.03 * dice.standard_normal((5, places))) for n, y in runs.items()}


def lines(*names, **more):
    x, found = arms(names)
    bands = {n: (i.low, i.high) for n, i in found.items()}
    return plots.lines(x, {n: i.mean for n, i in found.items()}, bands=bands, **AXES, **more)


def networks():
    return lab.models.mlp(), lab.data.digits()


def drawings():
    """Every figure that the scenes draw, and those that notebooks draw with these labels."""
    net, data = networks()
    step = {"1.bias": 0.01 * torch.ones(64)}
    kept = masks.keep_top(paradox.second_order(net, data.train), 0.05)
    points = {f: [structured.Point(0.1 * i, 0.01, 0, 0.02) for i in (1, 2)] for f in FORMS}
    found = {"Banzhaf": [0.3, 0.1], "Shapley": [0.2, 0.1]}
    regression = neurons.neurons.Regression(0.5, torch.tensor([0.3, 0.1]), torch.tensor([0.1, 0.1]))
    return {
        "00": lambda: lines("random", "magnitude", "signed Taylor"),
        "01": lambda: plots.spectrum(
            {"before training": [1, -1], "after training": [2, 0]}, alt=ALT
        ),
        "02": lambda: lines("sum of single predictions", "one joint prediction", "truth"),
        "02 order": lambda: taylor_scenes.polynomial("log(1 + x)", 0.5, 3),
        "02 steps": lambda: taylor_scenes.steps(taylor.along(net, data.train, step, [0.1, 1.0])),
        "03": lambda: lines("magnitude, global", "magnitude, layer", "random"),
        "03 masks": lambda: plots.histogram(
            [1, 2],
            marks=dict.fromkeys(("best mask", "median mask", "coin toss, ln 2"), 1.0),
            **AXES,
        ),
        "04": lambda: lines("OBD", "magnitude", "row sums", "random"),
        "04 parts": lambda: lines("saliency", "gradient", "cross", "higher", "actual"),
        "04 two": lambda: obd.two_saliencies(2.0, 1.5),
        "05": lambda: lines("OBS, damping 0.1", "OBS, damping 0.0001", "OBD", "magnitude"),
        "05 layers": lambda: lines("magnitude", "magnitude + refit", "OBS, layer", "OBS, global"),
        "05 two": lambda: obs.surgery("OBS", 0.9, 0.0),
        "05 size": lambda: obs.surgery("magnitude", 0.9, 0.0),
        "06": lambda: lines("true", "empirical"),
        "06 blocks": lambda: lines(
            "magnitude",
            "exact Hessian, diagonal",
            "Fisher, diagonal",
            "Fisher blocks, 1 step",
            "Fisher blocks, 10 steps",
        ),
        "07": lambda: lines(*(f"{n}, {k} weights" for n, k in LAYERS.items())),
        "07 han": lambda: lines("right after pruning", "retrained", level=("dense", 0.9)),
        "07 q": lambda: magnitude.quality_threshold(net, "3.weight", 0.8),
        "08": lambda: schedule.schedule_curve("cubic", 0.9, 2, 10, 1),
        "08 steps": lambda: lines("right after the cut", "after training"),
        "08 budgets": lambda: differences("10 epochs", "30 epochs", "60 epochs"),
        "08 shapes": lambda: differences("linear", "cubic"),
        "09": lambda: lines("units", "single weights", "from scratch"),
        "09 sizes": lambda: structured.size_accuracy(points, 2.0),
        "11": lambda: plots.points(["A", "B"], arms(CRITERIA, 2)[1], width=8.4, **AXES),
        "11 along": lambda: paradox_scenes.along(net, data, kept, 1.0),
        "11 dial": lambda: paradox_scenes.dial(net, data, kept, 0.5),
        "11 growth": lambda: paradox_figures.growth(
            net, data.train[0], dict.fromkeys(("T2", "random", "as large"), kept), [9, 20]
        ),
        "11 parts": lambda: paradox_figures.parts(experiments.table("paradox_parts"), ["A", "D"]),
        "11 law": lambda: paradox_figures.law(
            {"known": experiments.table("paradox_known")}, "gradient", 0.03
        ),
        "11 mended": lambda: paradox_figures.mended(
            experiments.table("paradox_repairs"), ["A", "D"], ["T2", "random", "magnitude"]
        ),
        "11 sums": lambda: lines(*SUMS),
        "11 arms": lambda: paradox_figures.arms(net, data.test, paradox.changes(net, data.train)),
        "12": lambda: neurons.curves(experiments.table("neurons"), UNITS, net="A"),
        "12 worth": lambda: neurons.worth(found, regression, 100),
    }


FORMS = ["shrunk", "masked", "csr", "bitmask"]
LAYERS = {"first": 4096, "middle": 2048, "last": 320}
CRITERIA = ["random", "T1", "T2", "|T2|", "row sums", "magnitude", "OBD", "SD"]
SUMS = ["random", "magnitude", "OBD", "joint", "OBS, by layers", "magnitude, repaired"]
UNITS = ["random", "leave_one_out", "obd", "merge weights", "merge activations"]
UNITS += ["random + least squares", "surgeon"]


def differences(*names):
    return plots.differences([0.5, 0.9], arms(names, 2)[1], **AXES)


@pytest.fixture(scope="module")
def figures():
    """Every drawing, as matplotlib drew it."""
    lab.setup()
    made = {name: draw() for name, draw in drawings().items()}
    assert all(picture.png for picture in made.values())  # names are placed as a figure is drawn
    return {name: picture.figure for name, picture in made.items()}


def drawn_looks(figure):
    """By label, the colour, the dash and the marker that the figure has; None for what is not drawn."""
    result = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            line = handle if isinstance(handle, Line2D) else getattr(handle, "lines", [None])[0]
            if isinstance(line, Line2D):
                dash = None if line.get_linestyle() == "None" else line._unscaled_dash_pattern
                marker = line.get_marker() if line.get_marker() not in ("None", "") else None
                result[label] = (to_hex(line.get_color()).upper(), dash, marker)
    return result


def pattern(style):
    return Line2D([], [], linestyle=styles.DASHES[style.dash])._unscaled_dash_pattern


def wrong_looks(figures):
    """Labels that do not look as the table says; there can be no second look then."""
    for name, figure in figures.items():
        for label, (colour, dash, marker) in drawn_looks(figure).items():
            style = styles.known(label)
            if style is None:
                yield f"{name}: {label!r} is not in the table"
            elif label in ("dense", "no difference", "one-shot, same budget", "prediction = truth"):
                continue  # thin grey lines
            elif (
                colour != style.colour.upper()
                or dash not in (None, pattern(style))
                or marker not in (None, style.marker)
            ):
                yield f"{name}: {label!r} has another look than in the table"


def test_each_name_has_one_look_in_every_figure(figures):
    assert list(wrong_looks(figures)) == []
    assert sum(len(drawn_looks(figure)) for figure in figures.values()) > 60


def test_two_looks_for_one_name_are_noticed():
    figure, (axes,) = plots.canvas()
    axes.plot([1, 2], label="magnitude", **styles.look("OBD").line)
    axes.plot([1, 2], label="a new method")
    assert list(wrong_looks({"x": figure})) == [
        "x: 'magnitude' has another look than in the table",
        "x: 'a new method' is not in the table",
    ]


def test_within_a_figure_dash_or_marker_tell_lines_apart_in_grey(figures):
    for name, figure in figures.items():
        found = drawn_looks(figure)
        assert len({look[1:] for look in found.values()}) == len(found), name


def saved_labels():
    """The labels of the figures that the notebooks hold."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                plain = output.get("data", {}).get("text/plain", "")
                for counted in re.findall(r"^\[\d+ × .*: (\".*\")\]$", plain, re.M):
                    yield path.stem, re.findall(r'"([^"]*)"', counted)


def test_every_label_in_the_notebooks_is_in_the_table():
    found = list(saved_labels())
    assert [(stem, n) for stem, names in found for n in names if not styles.known(n)] == []
    assert len(found) >= 8


def test_no_two_methods_share_a_dash_and_a_marker():
    twins = [
        (a, b)
        for (a, x), (b, y) in itertools.combinations(METHODS.items(), 2)
        if (x.dash, x.marker) == (y.dash, y.marker)
    ]
    assert twins == []
    neutral = {style.colour for style in NEUTRAL}
    assert not neutral & {style.colour for style in TABLE.values()}
    assert len({style[1:] for style in NEUTRAL}) == len(NEUTRAL)


def test_each_pattern_leads_to_a_name():
    for words, name in SAME:
        assert name in TABLE or "\\1" in name, words
    assert styles.known("first, 4096 weights") == TABLE["first layer"]
    assert styles.known("after OBD") == TABLE["OBD"]


def lightness(rgb):
    """CIE Lab of linear RGB (3,)."""
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ rgb
    )
    f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-9))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour, matrix):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return lightness(np.clip(np.array(matrix) @ linear, 0, 1))


@pytest.mark.parametrize("kind", BLIND)
def test_the_main_colours_differ_to_colour_blind_readers(kind):
    main = [styles.BLUE, styles.VERMILION, styles.GREEN, styles.SKY, styles.ORANGE, styles.BLACK]
    for a, b in itertools.combinations(main, 2):
        assert np.linalg.norm(seen(a, BLIND[kind]) - seen(b, BLIND[kind])) > 12, (a, b)


@given(
    st.lists(
        st.sampled_from([*TABLE, "signed Taylor", "obd", "mine", "yours", "x", "y"]), unique=True
    )
)
def test_no_two_labels_of_a_figure_look_alike(names):
    found = styles.looks(names)
    assert list(found) == names
    if len(found) <= len(NEUTRAL):
        assert len(set(found.values())) == len(found)


def test_more_names_than_neutral_colours_look_different_too():
    assert len(set(styles.looks([f"mine {i}" for i in range(300)]).values())) == 300


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.1)), max_size=9))
def test_names_are_spread_without_overlap_and_in_order(given_):
    wanted, heights = [w for w, _ in given_], [h for _, h in given_]
    places = labels.spread(wanted, heights)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for a, b in itertools.pairwise(order):
        assert places[b] - places[a] >= (heights[a] + heights[b]) / 2 - 1e-6
        assert wanted[a] <= wanted[b]
    assert all(h / 2 - 1e-6 <= p <= 1 - h / 2 + 1e-6 for p, h in zip(places, heights, strict=True))


def test_the_names_at_the_ends_do_not_overlap_and_stay_inside(figures):
    count = 0
    for name, figure in figures.items():
        texts = [t for t in figure.axes[0].texts if isinstance(t, Annotation)]
        boxes = [mpl.text.Text.get_window_extent(text) for text in texts]
        for a, b in itertools.combinations(boxes, 2):
            assert min(a.y1, b.y1) - max(a.y0, b.y0) < 2.5, name  # pixels; glyphs have air
        assert all(b.x0 >= 0 and b.x1 <= figure.bbox.x1 + 1 and b.y0 >= 0 for b in boxes), name
        count += len(boxes)
        named = {t.get_text().replace("\n", " ") for t in texts}
        assert not texts or (named == set(drawn_looks(figure)) and not figure.legends), name
    assert count > 40


def test_a_thin_line_leads_from_each_name_to_the_end_of_its_line(figures):
    count = 0
    for name, figure in figures.items():
        axes = figure.axes[0]
        lines_of = {line.get_label(): line for line in axes.lines}
        for text in [t for t in axes.texts if isinstance(t, Annotation) and t.arrow_patch]:
            line = lines_of[text.get_text().replace("\n", " ")]
            end = line.get_transform().transform(line.get_xydata())[-1]
            assert np.abs(axes.transAxes.transform(text.xy) - end).max() < 1, (name, text)
            count += 1
    assert count > 30


def test_of_two_lines_that_leave_the_axes_the_upper_ones_name_is_above():
    figure, (axes,) = plots.canvas()
    plots.draw(axes, [0, 1], {"upper": [0, 9], "lower": [0, 5]})
    axes.set_ylim(0, 1)
    assert labels.at_ends(axes)
    places = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert places["upper"] > places["lower"]
    assert figure.axes == [axes]


def test_a_legend_stands_in_where_names_would_crowd():
    crowd = lines(*(f"arm {i}" for i in range(9)))
    assert '"arm 8"' in crowd.drawn
    figure, (axes,) = plots.canvas()
    plots.draw(axes, [1, 2], {f"arm {i}": [1, 2] for i in range(9)})
    assert not labels.at_ends(axes)
    assert not axes.texts
    empty, (axes,) = plots.canvas()
    axes.scatter([1], [1], label="points")
    assert not labels.at_ends(axes)
    assert empty is not figure


@pytest.mark.parametrize("style", TABLE.values())
def test_a_name_at_the_end_can_be_read(style):
    dark = np.array(to_rgb(labels.ink(style.colour)))
    assert 1.05 / (labels._luminance(dark) + 0.05) >= 4.4


def test_looks_come_from_the_table_alone():
    """In the rooms that draw, nobody else takes a colour of the palette."""
    for path in (ROOT / "teachkit" / "show").rglob("*.py"):
        if path.stem != "styles":
            assert not re.search(r"\bCOLOURS\b|\bLINES\b|['\"]C\d['\"]", path.read_text("utf-8")), (
                path
            )


def test_intervals_are_explained_in_the_same_words(figures):
    said = {figure._supxlabel.get_text() for figure in figures.values() if figure._supxlabel}
    assert said == {styles.SHADED, styles.BARS}
    assert styles.BRACKETS in repr(show.table({"a": ["x"], "b": [interval([1, 2])]}, caption="c"))
