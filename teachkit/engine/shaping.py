"""Rules for calls that move, join and cut dimensions; how a rule is written says ``elementwise``.

The hard one is ``reshape``. Dimensions that stay are recognised from both ends, because their sizes are
the same for every input. What is left in the middle is either merged into one, or one dimension is split.
A split keeps the units along the one part whose size follows the others (−1, or ``C // heads``); the
units that then share a place there go together, so that what is left is again a rectangle.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from teachkit.engine.axes import Axis, MisfitError, StrangeError, UnclearError, Value, along, plain
from teachkit.engine.sizes import NONE, Size, product, size, unknown
from teachkit.engine.ties import Ties


def listed(given: Sequence[Any]) -> list[Any]:
    """The arguments of ``view(2, 3)``, which may come as one tuple."""
    return list(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else [*given]


def merged(ties: Ties, call: str, axes: Sequence[Axis | None]) -> Axis:
    """Neighbouring dimensions as one, the last running fastest."""
    known = [axis or plain() for axis in axes]
    busy = [i for i, axis in enumerate(known) if not axis.plain]
    if not busy:
        return plain(product(axis.size for axis in known))
    (at, *more), total = busy, product(axis.size for axis in known)
    outer = product(axis.size for axis in known[:at])
    inner = product(axis.size for axis in known[at + 1 :])
    axis = known[at]
    if more or (len(axis.parts) > 1 and outer.known != 1):
        for i in busy:
            ties.fix(known[i].units, f"{call} is not understood: it merges it with other channels")
        return plain(total.known if total.known else unknown())
    parts = [p._replace(outer=outer.times(p.outer), inner=p.inner.times(inner)) for p in axis.parts]
    return Axis(tuple(parts), axis.zero)


def flatten(ties: Ties, call: str, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Merge neighbouring dimensions."""
    gap, count = input.gap, len(input.axes)
    behind = gap is not None and start_dim == gap and end_dim == -1
    start = start_dim if behind else input.place(start_dim)
    end = count - 1 if end_dim == -1 else input.place(end_dim)
    if start >= count or end < start:
        return input
    merge = merged(ties, call, input.axes[start : end + 1])
    return Value([*input.axes[:start], merge, *input.axes[end + 1 :]])


def reshape(ties: Ties, call: str, input: Value, *shape: Any) -> Value:
    """Merge or split dimensions; see the page's top."""
    wanted = [size(n) if isinstance(n, int) and n >= 0 else n for n in listed(shape)]
    if input.strange:
        return Value(_middle(ties, call, [plain()] * len(wanted), wanted))
    axes = [axis for axis in input.axes if axis is None or not _one(axis)]
    free = [n for n in wanted if not (isinstance(n, Size) and n.known == 1)]
    front = _matched(ties, axes, free, 1)
    axes, free = axes[len(front) :], free[len(front) :]
    back = _matched(ties, axes[::-1], free[::-1], -1)[::-1]
    axes, free = axes[: len(axes) - len(back)], free[: len(free) - len(back)]
    made = iter([*front, *_middle(ties, call, axes, free), *back])
    return Value([plain(1) if isinstance(n, Size) and n.known == 1 else next(made) for n in wanted])


def _one(axis: Axis) -> bool:
    return axis.plain and axis.size.known == 1


def _matched(
    ties: Ties, axes: Sequence[Axis | None], wanted: Sequence[Any], step: int
) -> list[Axis]:
    """The first dimensions that stay what they are."""
    stay = []
    for axis, target in zip(axes, wanted, strict=False):
        if axis is None or not isinstance(target, Size) or not same(ties, axis, target):
            break
        stay.append(axis)
    return stay


def same(ties: Ties, axis: Axis, target: Size) -> bool:
    """True if a dimension has this size, and keeps it: one that is counted elsewhere is tied to it."""
    if axis.size == target:
        return True
    simple = [power for _, power in target.atoms] == [1] and target.factor.numerator == 1
    if axis.plain or not simple or target.now is None or axis.size.now != target.now:
        return False
    ids, counted = axis.ids(), target.units
    if (counted < 0).any() or (ids < 0).any():
        return False
    for row in counted.reshape(target.factor.denominator, -1):
        ties.tie(row, ids, "the code says that there are as many of both")
    return True


def _middle(ties: Ties, call: str, axes: list[Axis | None], wanted: list[Any]) -> list[Axis]:
    """What is neither the same from the front nor from the back."""
    if all(axis is not None and axis.plain for axis in axes):
        for n in wanted:
            ties.fix(n.units if isinstance(n, Size) else NONE, f"{call} makes as many of its own")
        return [plain(n) if isinstance(n, Size) else _rest(axes, wanted) for n in wanted]
    if wanted == [-1]:
        return [merged(ties, call, axes)]
    if len(wanted) == 1:
        axis = merged(ties, call, axes)
        if not same(ties, axis, wanted[0]):
            ties.fix(axis.units, f"{call} is not understood: the code says its size")
        return [axis]
    if None in axes:
        raise UnclearError
    if len(axes) == 1 and axes[0] is not None:
        return _split(ties, call, axes[0], wanted)
    raise StrangeError


def _rest(axes: Sequence[Axis | None], wanted: Sequence[Any]) -> Axis:
    """What −1 stands for among dimensions without units."""
    sizes = [axis.size for axis in axes if axis is not None]
    total, others = product(sizes).known, product(n for n in wanted if isinstance(n, Size)).known
    if total is None or others is None:
        return plain()
    if others == 0 or total % others:
        raise MisfitError
    return plain(total // others)


def _split(ties: Ties, call: str, axis: Axis, wanted: list[Any]) -> list[Axis]:
    """One dimension as several."""
    ids = axis.ids()
    fixed = [n.known if isinstance(n, Size) else None for n in wanted]
    follows = [i for i, n in enumerate(fixed) if n is None]
    times = int(np.prod([n for n in fixed if n is not None]))
    if len(follows) > 1:
        raise StrangeError
    if not follows:
        if times != len(ids):
            raise MisfitError
        ties.fix(ids, f"{call} is not understood: the code says its size")
        return [plain(n) for n in fixed]
    (at,) = follows
    if len(ids) % times:
        raise MisfitError
    shape = [len(ids) // times if n is None else n for n in fixed]
    groups = np.moveaxis(ids.reshape(shape), at, 0).reshape(shape[at], -1)
    ties.together(groups, f"{call} counts it in groups")
    made = along(np.ascontiguousarray(groups[:, 0]), axis.zero)
    if isinstance(wanted[at], Size) and not same(ties, made, wanted[at]):
        ties.fix(ids, f"{call} is not understood: the code says its size")
    return [made if i == at else plain(n) for i, n in enumerate(fixed)]


def permute(ties: Ties, call: str, input: Value, *dims: Any) -> Value:
    """Dimensions in another order."""
    order = listed(dims)
    input.refine(len(order))
    return Value([input.axis(dim) for dim in order])


def transpose(ties: Ties, call: str, input: Value, dim0: int, dim1: int) -> Value:
    """Two dimensions swapped."""
    axes, a, b = [*input.axes], input.place(dim0), input.place(dim1)
    if input.gap is not None and (a < input.gap) != (b < input.gap):
        raise UnclearError
    axes[a], axes[b] = axes[b], axes[a]
    return Value(axes)


def turned(ties: Ties, call: str, input: Value) -> Value:
    """The transpose of a matrix."""
    return Value(input.whole[::-1])


def unsqueeze(ties: Ties, call: str, input: Value, dim: int) -> Value:
    """One more dimension, of length 1."""
    at = len(input.axes) if dim == -1 else input.place(dim + 1 if dim < 0 else dim) if dim else 0
    return Value([*input.axes[:at], plain(1), *input.axes[at:]])


def squeeze(ties: Ties, call: str, input: Value, *dim: Any) -> Value:
    """Without dimensions of length 1; those with units must not become so short."""
    places = [input.place(d) for d in listed(dim)] if dim else range(len(input.whole))
    for at in places:
        axis = input.axes[at]
        if axis is None or (axis.plain and axis.size.known is None and (at or dim)):
            raise UnclearError
        if not axis.plain:
            ties.uneven.append((axis.units, f"{call} would remove it with the dimensions of 1"))
    gone = [at for at in places if (axis := input.axes[at]) and _one(axis)]
    return Value([axis for at, axis in enumerate(input.axes) if at not in gone])
