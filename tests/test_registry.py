"""The registry of criteria as tables and saved results know it: no name and no fact changes unnoticed."""

import importlib
from functools import partial

import pytest
from house import LESSONS

from teachkit.core import criteria

DATA, LABELS = ("data",), ("data", "labels")
SECOND = ("data", "labels", "second order")
CURVED = ("data", "second order")
# Of each name: passes, needs, whether it takes chains only, the scope of its number, the most weights.
SCORES = {
    "OBD, recursion": (2, SECOND, True, "global", None),
    "OBD": (3, SECOND, False, "global", None),
    "OBD, row sums": (3, SECOND, False, "global", None),
    "OBD, Hutchinson": (6, SECOND, False, "global", None),
    "Wanda": (1, DATA, False, "global", None),
    "empirical Fisher": (2, LABELS, False, "global", None),
    "sampled Fisher": (2, DATA, False, "global", None),
    "true Fisher": (11, DATA, False, "global", None),
    "magnitude": (0, (), False, "global", None),
    "LAMP": (0, (), False, "global", None),
    "random": (0, (), False, "global", None),
    "T1": (1, LABELS, False, "global", None),
    "T2": (3, SECOND, False, "global", None),
    "T2, absolute": (3, SECOND, False, "global", None),
    "SD": (4, SECOND, False, "global", None),
    "MEAN + SD": (4, SECOND, False, "global", None),
    "joint": (30, ("data", "second order"), False, "global", 8000),
}
PRUNES = {
    "OBD": (3, SECOND, False, "global", None),
    "OBS": (200, CURVED, False, "global", 5000),
    "OBS by layers": (1, CURVED, False, "global", None),
    "OBS by layers, each": (1, CURVED, False, "layer", None),
    "OBS in one pass": (1, CURVED, False, "layer", None),
    "Fisher blocks": (200, LABELS, False, "global", None),
    "Fisher blocks, 2 steps": (400, LABELS, False, "global", None),
    "magnitude without scores": (0, (), False, "global", None),
}


def ours(registry):
    """What the lessons themselves register; a test may have registered more."""
    for lesson in LESSONS[1:]:
        importlib.import_module(f"teachkit.{lesson}")
    places = {
        name: getattr(e.function, "func", e.function).__module__ for name, e in registry.items()
    }
    return {
        name: (e.passes, e.needs, e.chains, e.scope, e.limit)
        for name, e in registry.items()
        if places[name].startswith("teachkit.")
    }


def test_names_costs_and_needs_are_these():
    assert ours(criteria.SCORES) == SCORES
    assert ours(criteria.PRUNES) == PRUNES


def test_a_partial_is_known_by_the_function_inside():
    registry = {}
    for _ in range(2):  # as when a module is loaded again
        criteria.criterion("one", passes=0, source="", registry=registry)(partial(max, 1))
    with pytest.raises(ValueError, match="there is a criterion 'one' already: builtins.max"):
        criteria.criterion("one", passes=0, source="", registry=registry)(partial(min, 1))
