"""The one registry of criteria: what each is called, costs and needs, and where it comes from.

Tests, sweeps, benchmarks and the showdown walk through this registry, so that a criterion that
enters here once is held to everything and compared with everything. Importing a lesson registers
its criteria; a learner's own enters in the same way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from teachkit.core import checks, door

NEEDS = ("data", "labels", "second order")
Function = TypeVar("Function", bound=Callable[..., Any])


class Entry(NamedTuple):
    """A registered function.

    ``name``: how tables and figures call it. ``passes``: its cost in forward and backward passes,
    roughly. ``needs``: what it looks at. ``source``: author and year. ``chains``: it refuses what is
    not a chain of known layers. ``scope``: over which weights the number that goes is exact, "global"
    or "layer". ``limit``: the most weights that it takes.
    """

    name: str
    function: Callable[..., Any]
    passes: float
    needs: tuple[str, ...]
    source: str
    chains: bool = False
    scope: str = "global"
    limit: int | None = None


SCORES: dict[str, Entry] = {}
"""Functions (model, batch, loss) -> Scores; a larger score stays."""

PRUNES: dict[str, Entry] = {}
"""Functions (model, batch, sparsity, *, loss) -> (model, Masks), which may move what is left."""


def criterion(
    name: str,
    *,
    passes: float,
    source: str,
    needs: tuple[str, ...] = (),
    registry: dict[str, Entry] | None = None,
    **more: Any,
) -> Callable[[Function], Function]:
    """Register a function that scores weights, (model, batch, loss) -> Scores; use it as a decorator.

    The arguments, also ``chains``, ``scope`` and ``limit``, are the fields of :class:`Entry`. ValueError
    where another function has this name already, or for a need that is not known.
    """
    unknown = [need for need in needs if need not in NEEDS]
    if unknown:
        raise ValueError(f"needs must be of {NEEDS}, got {unknown[0]!r}")
    checks.number("passes", passes)

    def enter(function: Function) -> Function:
        ours = _place(function).startswith("teachkit.")  # a learner's comes back as it was given
        function = door.guard(function) if ours else function
        entries = SCORES if registry is None else registry
        known = entries.get(name)
        if known is not None and _place(known.function) != _place(function):
            raise ValueError(f"there is a criterion {name!r} already: {_place(known.function)}")
        entries[name] = Entry(name, function, passes, tuple(needs), source, **more)
        return function

    return enter


def pruner(name: str, **facts: Any) -> Callable[[Function], Function]:
    """Register a function that prunes, (model, batch, sparsity, *, loss) -> (model, Masks).

    The arguments are those of :func:`criterion`.
    """
    return criterion(name, registry=PRUNES, **facts)


def _place(function: Any) -> str:
    """Where a function stands; a module that is loaded again registers the same one once more."""
    inner = getattr(function, "func", function)
    return f"{inner.__module__}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
