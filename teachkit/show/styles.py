"""One table of looks: each name that a figure of the course draws has one colour, dash and marker.

Colours are those of Okabe and Ito, with a dark shade of some; in grey and for colour-blind readers the
dash and the marker tell lines apart. A name that is not in the table gets a neutral look.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from teachkit.core import door
from teachkit.lab.session import COLOURS

BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = COLOURS
NAVY, BRICK, FOREST, PLUM, GREY, SLATE = (
    "#00395A",
    "#7D3300",
    "#004D38",
    "#7C3A60",
    "#7A7A7A",
    "#4D4D4D",
)
SHADED = "Shaded: 95 % interval of the mean."
BARS = "Bars: 95 % interval of the mean."
BRACKETS = "In brackets: 95 % interval of the mean."
Dash = str | tuple[int, tuple[float, ...]]
DASHES: dict[str, Dash] = {
    "solid": "-",
    "dashed": (0, (5, 2)),
    "dash-dot": (0, (6, 2, 1, 2)),
    "dotted": (0, (1, 1.5)),
    "long": (0, (10, 2)),
    "two dots": (0, (6, 2, 1, 2, 1, 2)),
    "short": (0, (2.5, 1.5)),
}


class Style(NamedTuple):
    """How a name is drawn everywhere."""

    colour: str
    dash: str
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """For ``axes.plot``, without the marker."""
        return {"color": self.colour, "linestyle": DASHES[self.dash]}

    @property
    def point(self) -> dict[str, Any]:
        """For points that no line joins."""
        return {"color": self.colour, "linestyle": "none", "marker": self.marker}


METHODS = {
    "random": Style(GREY, "dotted", "x"),
    "random + least squares": Style(SLATE, "two dots", "*"),
    "magnitude": Style(BLUE, "solid", "o"),
    "magnitude, layer": Style(NAVY, "dashed", "s"),
    "magnitude + refit": Style(SKY, "dash-dot", "D"),
    "LAMP": Style(NAVY, "long", "X"),
    "Wanda": Style(NAVY, "short", "*"),
    "SparseGPT": Style(VERMILION, "solid", "X"),
    "T1": Style(PURPLE, "short", "<"),
    "T2": Style(ORANGE, "dashed", ">"),
    "|T2|": Style(PLUM, "dash-dot", "d"),
    "taylor": Style(ORANGE, "long", "8"),
    "row sums": Style(BRICK, "dash-dot", "X"),
    "OBD": Style(VERMILION, "dashed", "v"),
    "OBD, Hutchinson": Style(VERMILION, "two dots", "1"),
    "obd + least squares": Style(BRICK, "long", "2"),
    "OBS": Style(GREEN, "long", "^"),
    "OBS, hardly any damping": Style(FOREST, "dotted", "X"),
    "OBS, damping 0.01": Style(FOREST, "dash-dot", "P"),
    "OBS, damping 1": Style(GREEN, "short", "d"),
    "OBS, layer": Style(GREEN, "dotted", "v"),
    "OBS, global": Style(FOREST, "long", "D"),
    "surgeon": Style(GREEN, "solid", "p"),
    "Fisher, diagonal": Style(PURPLE, "dash-dot", "s"),
    "true Fisher": Style(PLUM, "solid", "D"),
    "sampled Fisher": Style(PURPLE, "short", "h"),
    "Fisher blocks, 1 step": Style(PLUM, "dotted", "d"),
    "Fisher blocks, 10 steps": Style(PLUM, "long", "P"),
    "SD": Style(SKY, "long", "p"),
    "MEAN + 0.1 SD": Style(SKY, "dotted", "1"),
    "MEAN + SD": Style(SKY, "dashed", "2"),
    "joint": Style(FOREST, "solid", "h"),
    "magnitude, repaired": Style(NAVY, "solid", "*"),
    "leave-one-out": Style(BLACK, "dashed", "P"),
    "greedy": Style(BLACK, "dotted", "3"),
    "merge weights": Style(PURPLE, "dash-dot", "^"),
    "merge activations": Style(PLUM, "short", "D"),
    "merge regression": Style(PURPLE, "long", "4"),
    "one-shot": Style(BLACK, "solid", "s"),
    "linear": Style(SKY, "dash-dot", "v"),
    "exponential": Style(ORANGE, "dotted", "h"),
    "cubic": Style(BLUE, "dashed", "^"),
    "L1": Style(ORANGE, "solid", "P"),
    "L1, subgradient": Style(ORANGE, "short", "X"),
    "L2": Style(SKY, "dashed", "h"),
    "L0": Style(GREEN, "solid", "d"),
    "variational dropout": Style(PURPLE, "dashed", "o"),
    "movement": Style(BRICK, "short", "p"),
    "group lasso": Style(ORANGE, "two dots", "D"),
    "units": Style(VERMILION, "dash-dot", "p"),
    "single weights": Style(BLUE, "long", "h"),
    "from scratch": Style(GREY, "dashed", "*"),
    "nearest": Style(ORANGE, "short", "^"),
    "nearest, clipped": Style(BRICK, "dashed", "D"),
    "GPTQ": Style(GREEN, "solid", "8"),
    "k-means": Style(PURPLE, "solid", "v"),
    "OBS in one pass": Style(FOREST, "two dots", "s"),
}
KINDS = {
    "truth": Style(BLACK, "solid", "o"),
    "first order": Style(SKY, "dashed", "s"),
    "second order": Style(VERMILION, "dash-dot", "^"),
    "sum of single predictions": Style(ORANGE, "dotted", "D"),
    "saliency": Style(VERMILION, "dashed", "v"),
    "gradient": Style(SKY, "dotted", "D"),
    "cross terms": Style(PURPLE, "dash-dot", "s"),
    "beyond the second order": Style(GREEN, "long", "^"),
    "train": Style(BLUE, "solid", "o"),
    "test": Style(VERMILION, "dashed", "s"),
    "tanh": Style(BLUE, "solid", "o"),
    "ReLU": Style(VERMILION, "dashed", "s"),
    "before training": Style(GREY, "dashed", "s"),
    "after training": Style(BLUE, "solid", "o"),
    "right after pruning": Style(VERMILION, "dotted", "v"),
    "rate / 10": Style(SKY, "dotted", "s"),
    "full rate": Style(BLUE, "solid", "o"),
    "dense, full rate": Style(GREY, "dashed", "D"),
    "10 epochs": Style(SKY, "dotted", "o"),
    "30 epochs": Style(BLUE, "dashed", "s"),
    "60 epochs": Style(NAVY, "solid", "^"),
    "first layer": Style(BLUE, "solid", "o"),
    "middle layer": Style(GREEN, "dashed", "s"),
    "last layer": Style(VERMILION, "dash-dot", "^"),
    "shrunk": Style(BLUE, "solid", "o"),
    "masked": Style(GREY, "dashed", "s"),
    "csr": Style(VERMILION, "dash-dot", "v"),
    "bitmask": Style(GREEN, "dotted", "^"),
    "stays": Style(BLUE, "solid", "o"),
    "goes": Style(VERMILION, "dashed", "^"),
    "by the mean shift": Style(SLATE, "solid", "s"),
    "mixed": Style(GREY, "dashed", "D"),
    "by what differs from image to image": Style(SKY, "dotted", "^"),
    "as large": Style(SLATE, "long", "+"),
    "w1 goes": Style(BLUE, "solid", "o"),
    "w2 goes": Style(VERMILION, "dashed", "^"),
    "both go": Style(BLACK, "solid", "s"),
    "predicted": Style(BLUE, "solid", "o"),
    "missed": Style(VERMILION, "dashed", "x"),
    "minimum": Style(BLACK, "solid", "*"),
    "without w1": Style(VERMILION, "dashed", "v"),
    "without w2": Style(GREEN, "dash-dot", "^"),
    "Banzhaf": Style(BLUE, "solid", "o"),
    "Shapley": Style(VERMILION, "dashed", "s"),
    "regression": Style(SLATE, "solid", "_"),
    "best mask": Style(GREEN, "dash-dot", "^"),
    "median mask": Style(BLACK, "dotted", "s"),
    "coin toss": Style(GREY, "long", "x"),
    "normal": Style(BLACK, "solid", "o"),
    "removed": Style(VERMILION, "solid", "s"),
    "gate": Style(GREEN, "solid", "d"),
    "score function": Style(GREY, "solid", "x"),
    "score function, baseline": Style(SLATE, "dashed", "+"),
    "straight through": Style(BRICK, "dash-dot", "p"),
    "no penalty": Style(GREY, "solid", "s"),
    "noise 0.25": Style(SKY, "dash-dot", "s"),
    "noise 0.5": Style(BLUE, "dashed", "^"),
    "noise 1": Style(NAVY, "dotted", "v"),
    "depth 2": Style(BLUE, "solid", "o"),
    "depth 4": Style(SKY, "dashed", "s"),
    "depth 8": Style(NAVY, "dash-dot", "^"),
    "exact": Style(BLACK, "dotted", "o"),
    "one draw for the batch": Style(BLUE, "dashed", "o"),
    "one for each sample": Style(ORANGE, "dotted", "s"),
    "reference": Style(SLATE, "dotted", "_"),
    "labels": Style(BLACK, "solid", "o"),
    "teacher, T = 1": Style(SKY, "dashed", "s"),
    "teacher, T = 4": Style(BLUE, "dash-dot", "^"),
    "teacher, T = 16": Style(NAVY, "dotted", "v"),
    "4 bits": Style(BLUE, "solid", "o"),
    "3 bits": Style(GREEN, "dashed", "s"),
    "2 bits": Style(VERMILION, "dash-dot", "^"),
    "class 0": Style(BLUE, "solid", "o"),
    "class 1": Style(GREEN, "dashed", "s"),
    "class 2": Style(VERMILION, "dash-dot", "^"),
    "0 % zeros": Style(BLACK, "solid", "s"),
    "80 % zeros": Style(BLUE, "dashed", "o"),
    "90 % zeros": Style(SKY, "dash-dot", "^"),
    "95 % zeros": Style(VERMILION, "dotted", "D"),
    "digits": Style(BLUE, "solid", "o"),
    "MNIST-1D": Style(VERMILION, "dashed", "s"),
    "numbers": Style(BLUE, "solid", "s"),
    "zeros, or places": Style(GREY, "dashed", "s"),
    "relative": Style(ORANGE, "long", "D"),
    "deep": Style(PURPLE, "short", "P"),
    "gzip": Style(SKY, "two dots", "h"),
    "lzma": Style(NAVY, "short", "p"),
    "zstd": Style(BLUE, "long", "<"),
    "2:4": Style(BRICK, "two dots", "8"),
    "twice as far for each bit less": Style(GREY, "dotted", "_"),
    "LeNet-300-100": Style(BLUE, "solid", "o"),
    "LeNet-300-100, equal seconds": Style(SKY, "dashed", "s"),
    "LeNet-5": Style(VERMILION, "dash-dot", "^"),
    "SmolLM2": Style(VERMILION, "solid", "v"),
    "the small model": Style(BLUE, "dashed", "s"),
    "both keep": Style(BLUE, "solid", "."),
    "both remove": Style(GREY, "dotted", "."),
    "only one keeps": Style(VERMILION, "dashed", "x"),
    "magnitude's limit": Style(BLUE, "short", "_"),
    "Wanda's limit": Style(NAVY, "solid", "_"),
}
TABLE = METHODS | KINDS
# A pattern, the whole of a label, and the name whose look it has.
SAME = [
    (r"signed Taylor", "T2"),
    (r"magnitude \+ least squares", "magnitude + refit"),
    (r"gradual", "cubic"),
    (r"noise 0", "no penalty"),
    (r"subgradient", "L1, subgradient"),
    (r"soft threshold", "L1"),
    (r"hard concrete|L0, half open|L0, no penalty", "L0"),
    (r"approximation", "variational dropout"),
    (r"density between 0 and 1", "gate"),
    (r"T2, absolute", "|T2|"),
    (r"magnitude, global|magnitude without scores", "magnitude"),
    (r"magnitude, per layer", "magnitude, layer"),
    (r"obd|OBD, recursion|exact Hessian, diagonal", "OBD"),
    (r"OBD, row sums", "row sums"),
    (r"OBS, damping 0\.1", "OBS"),
    (r"OBS, damping 0\.0001", "OBS, hardly any damping"),
    (r"OBS,? by layers.*", "OBS, layer"),
    (r"Fisher blocks", "Fisher blocks, 1 step"),
    (r"empirical|empirical Fisher", "Fisher, diagonal"),
    (r"true", "true Fisher"),
    (r"leave_one_out", "leave-one-out"),
    (r"actual|exp x|sin x|log\(1 \+ x\)", "truth"),
    (r"order \d+|one joint prediction|gᵀδ \+ ½ δᵀHδ", "second order"),
    (r"gᵀδ", "first order"),
    (r"cross", "cross terms"),
    (r"even", "nearest"),
    (r"80 % zeros, 3 bits", "80 % zeros"),
    (r"90 % zeros, 2 bits", "90 % zeros"),
    (r"higher", "beyond the second order"),
    (r"retrained", "after training"),
    (r"right after the cut", "right after pruning"),
    (r"(first|middle|last), \d+ weights", r"\1 layer"),
    (r"after (OBS|OBD|magnitude)", r"\1"),
    (r"minimum \(.*\)|trained", "minimum"),
    (r"regression on \d+ masks", "regression"),
    (r"coin toss, ln 2", "coin toss"),
    (r"dense|one-shot, same budget|no difference|prediction = truth", "reference"),
]
NEUTRAL = [
    Style("#6B5B3E", "solid", "o"),
    Style("#3F3F3F", "dashed", "s"),
    Style("#9A7B56", "dash-dot", "^"),
    Style("#5E5E6B", "long", "D"),
    Style("#8C8C7A", "two dots", "v"),
    Style("#2E2A25", "short", "P"),
    Style("#A08C8C", "dotted", "X"),
]


def known(label: str) -> Style | None:
    """The look of a name, or of a label that stands for it; None for one that the course does not draw.

    >>> known("signed Taylor") == known("T2"), known("my criterion")
    (True, None)
    """
    for pattern, name in SAME:
        match = re.fullmatch(pattern, label)
        if match:
            return TABLE[match.expand(name)]
    return TABLE.get(label)


def looks(labels: Sequence[str] | Mapping[str, object]) -> dict[str, Style]:
    """The looks of the labels of one figure: no two alike, names of the course as everywhere."""
    given = list(dict.fromkeys(labels))
    found = {label: style for label in reversed(given) if (style := known(label))}
    first = {style: label for label, style in found.items()}  # two labels of one name: the first
    free = _neutral()
    return {
        label: style if (style := found.get(label)) and first[style] == label else next(free)
        for label in given
    }


def _neutral() -> Iterator[Style]:
    """The neutral looks, then other dashes and markers with their colours: 343 before one comes again."""
    n = len(NEUTRAL)
    return itertools.cycle(
        Style(NEUTRAL[i].colour, NEUTRAL[(i + j) % n].dash, NEUTRAL[(i + j + k) % n].marker)
        for k, j, i in itertools.product(range(n), repeat=3)
    )


def look(label: str) -> Style:
    """The look of one label."""
    return known(label) or NEUTRAL[0]


door.hold(globals())
