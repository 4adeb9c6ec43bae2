"""What an exercise consists of."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple


class Task(NamedTuple):
    """How to draw inputs, the right answer, and mistakes worth a word of their own.

    ``mistakes`` maps a hint to a function of the same inputs that makes that mistake.
    """

    draw: Callable[[random.Random], tuple[Any, ...]]
    answer: Callable[..., Any]
    mistakes: dict[str, Callable[..., Any]]
