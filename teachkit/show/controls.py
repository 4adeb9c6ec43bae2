"""The controls of an explorer: sliders and choices, as a cell describes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Given = tuple[float, ...] | Sequence[str]
Value = float | str


@dataclass(frozen=True)
class Control:
    """A slider over ``options``, numbers at equal steps, or a choice between words."""

    name: str
    options: list[Any]
    start: Value
    slider: bool

    @property
    def label(self) -> str:
        """The name as people write it."""
        return self.name.replace("_", " ")

    def find(self, value: Value) -> int:
        """The position of an option.

        Raises:
            ValueError: there is no such option.

        """
        if value in self.options:
            return self.options.index(value)
        raise ValueError(f"{self.name} must be one of {self.options}, got {value!r}")

    def describe(self) -> dict[str, Any]:
        """What the browser needs to know: the options in words."""
        return {
            "name": self.name,
            "label": self.label,
            "slider": self.slider,
            "shown": [self.write(option) for option in self.options],
            "start": self.options.index(self.start),
        }

    def write(self, option: Value) -> str:
        """An option as it stands beside the slider, each with the same number of decimals."""
        if isinstance(option, int | str):
            return str(option).replace("-", "−") if self.slider else str(option)
        exact = [
            np.format_float_positional(each, precision=6, fractional=False, trim="-")
            for each in self.options
        ]
        places = max(len(each.partition(".")[2]) for each in exact)
        return f"{option:.{places}f}".replace("-", "−")


def control(name: str, given: Given) -> Control:
    """Read (low, high, step), (low, high, step, start) or a list of words.

    >>> control("share", (0.0, 0.5, 0.25)).options
    [0.0, 0.25, 0.5]

    Raises:
        ValueError: it is neither.

    """
    if isinstance(given, list) and given and all(isinstance(word, str) for word in given):
        return Control(name, given, given[0], slider=False)
    if isinstance(given, tuple) and len(given) in (3, 4) and _sound(given):
        low, high, step, *start = given
        whole = all(isinstance(value, int) for value in given)
        count = math.floor((high - low) / step + 1e-9) + 1
        exact = np.round(low + step * np.arange(count), 10).tolist()
        options = [int(value) if whole else float(value) for value in exact]
        at = start[0] if start else low
        return Control(name, options, min(options, key=lambda o: abs(o - at)), slider=True)
    forms = "(low, high, step), (low, high, step, start) or a list of words"
    raise ValueError(f"{name} must be {forms}, got {given!r}")


def _sound(given: tuple[float, ...]) -> bool:
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in given)
    return numbers and given[0] < given[1] and given[2] > 0
