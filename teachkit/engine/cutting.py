"""Rules for calls that join tensors along a dimension, and cut them into pieces; see ``elementwise``."""

from collections.abc import Sequence
from itertools import pairwise
from types import EllipsisType
from typing import Any

import numpy as np

from teachkit.engine.axes import Axis, StrangeError, UnclearError, Value, along, plain
from teachkit.engine.elementwise import BOTH, paired
from teachkit.engine.shaping import unsqueeze
from teachkit.engine.sizes import Ids, Size
from teachkit.engine.ties import Ties


def cat(ties: Ties, call: str, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Tensors one after the other along a dimension."""
    if len({(len(value.axes), value.gap) for value in tensors}) > 1:
        raise UnclearError
    at, made = tensors[0].place(dim), list[Axis | None]()
    for place, axes in enumerate(zip(*(value.axes for value in tensors), strict=True)):
        known = [axis for axis in axes if axis is not None]
        if not known:
            made.append(None)
        elif place == at:
            made.append(_chained(known))
        else:
            joined = known[0]
            for other in known[1:]:
                joined = paired(ties, call, joined, other, BOTH)
            made.append(joined)
    return Value(made)


def _chained(axes: Sequence[Axis]) -> Axis:
    zero = all(axis.zero or axis.plain for axis in axes)
    if all(axis.plain for axis in axes):
        known = [axis.size.known for axis in axes]
        return plain(None if None in known else sum(n for n in known if n is not None))
    try:
        return along(np.concatenate([axis.ids() for axis in axes]), zero)
    except UnclearError:
        return Axis(tuple(part for axis in axes for part in axis.parts), zero)


def stack(ties: Ties, call: str, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Tensors along a dimension of their own."""
    return cat(ties, call, [unsqueeze(ties, call, value, dim) for value in tensors], dim)


def pieces(ties: Ties, call: str, input: Value, dim: int, lengths: Sequence[int]) -> list[Value]:
    """Neighbouring pieces of known lengths along a dimension."""
    at, axis = input.place(dim), input.axis(dim)
    ids = axis.ids(sum(lengths))
    ends = np.cumsum([0, *lengths])
    cuts = [ids[start:end] for start, end in pairwise(ends.tolist())]
    made = [plain(len(c)) if axis.plain else along(c, axis.zero) for c in cuts]
    return [Value([*input.axes[:at], each, *input.axes[at + 1 :]]) for each in made]


def chunk(ties: Ties, call: str, input: Value, chunks: int, dim: int = 0) -> list[Value]:
    """Pieces of the same length; the units in the same place of each go together."""
    axis = input.axis(dim)
    if axis.plain and axis.size.known is None:
        at = input.place(dim)
        cut = [*input.axes[:at], plain(), *input.axes[at + 1 :]]
        return [Value([*cut]) for _ in range(chunks)]
    ids = axis.ids()
    if len(ids) % chunks:
        raise StrangeError
    rows: Ids = ids.reshape(chunks, -1)
    ties.together(rows.T, f"{call} cuts it into pieces of the same length")
    return pieces(ties, call, input, dim, [rows.shape[1]] * chunks)


def split(
    ties: Ties, call: str, tensor: Value, split_size_or_sections: Any, dim: int = 0
) -> list[Value]:
    """Pieces of the lengths that the code says."""
    wanted, axis = split_size_or_sections, tensor.axis(dim)
    if isinstance(wanted, Size) and wanted.known is None:
        count = axis.size.times(wanted, -1).known
        if count is None:
            raise StrangeError
        return chunk(ties, call, tensor, count, dim)
    total = axis.size.now if axis.size.known is None else axis.size.known
    if isinstance(wanted, int) and total is not None:
        wanted = [min(wanted, total - start) for start in range(0, total, wanted)]
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(n, int) for n in wanted):
        raise StrangeError
    ties.fix(axis.units, f"{call} cuts it into pieces whose length the code says")
    return pieces(ties, call, tensor, dim, wanted)


def unbind(ties: Ties, call: str, input: Value, dim: int = 0) -> list[Value]:
    """What stands at each place of a dimension."""
    count, at = input.axis(dim).size.known, input.place(dim)
    if count is None:
        raise StrangeError
    return [Value([*input.axes[:at], *input.axes[at + 1 :]]) for _ in range(count)]


def index(ties: Ties, call: str, input: Value, wanted: Any) -> Value:
    """``x[:, 0]``: places and slices of dimensions without units; ``None`` and ``...`` as in numpy."""
    keys = list(wanted) if isinstance(wanted, tuple) else [wanted]
    if not all(key is None or isinstance(key, (int, Size, slice, EllipsisType)) for key in keys):
        raise StrangeError
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        behind = sum(key is not None for key in keys[at + 1 :])
    else:
        at, behind = len(keys), 0
    front = sum(key is not None for key in keys[:at])
    start, stop = len(input.axes[:front]), len(input.axes) - behind
    if None in input.axes[:start] + input.axes[stop:] or start > stop or start < front:
        raise UnclearError
    first = _picked(ties, call, input.axes[:start], keys[:at])
    last = _picked(ties, call, input.axes[stop:], keys[at + 1 :])
    return Value([*first, *input.axes[start:stop], *last])


def _picked(ties: Ties, call: str, axes: list[Axis | None], keys: list[Any]) -> list[Axis]:
    """What an index leaves of the dimensions that it names."""
    made, rest = list[Axis](), iter(axes)
    for key in keys:
        axis = plain(1) if key is None else next(rest)
        assert axis is not None  # noqa: S101 -- the caller has looked
        if key is None or key == slice(None):
            made.append(axis)
            continue
        ties.fix(axis.units, f"{call} is not understood: the code says which of it")
        if isinstance(key, slice):
            made.append(_slice(axis, key))
    return made


def _slice(axis: Axis, key: slice) -> Axis:
    """A slice of a dimension; its units are fixed."""
    known = axis.size.known if axis.plain else axis.size.now
    ends = (key.start, key.stop, key.step)
    if known is None or not all(end is None or isinstance(end, int) for end in ends):
        return plain()
    picked = range(known)[key]
    return plain(len(picked)) if axis.plain else along(axis.ids()[key], axis.zero)
