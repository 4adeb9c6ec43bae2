"""The dimensions of a tensor, each with the *units* that lie along it: the algebra of real removal.

A unit is one number in a register; an output of a layer is one, and so is every row and column of a weight.
An :class:`Axis` lists them in their order. After ``flatten`` of (n, C, height, width) the last axis is the
C units, each repeated height · width times, and these sizes need not be known: a :class:`Part` stands for
``outer`` times the units, each ``inner`` times in turn. An axis without units (samples, places) has the
unit −1; one that a ``cat`` made of unknown sizes has several parts.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from teachkit.engine.sizes import NONE, ONE, Ids, Size, size, unknown


class UnclearError(Exception):
    """How many dimensions a tensor has is not known, and matters."""


class MisfitError(Exception):
    """The shapes do not fit: torch itself would raise, or the rank was guessed wrong."""


class StrangeError(Exception):
    """A call whose effect on units is not known."""


class Part(NamedTuple):
    """``outer`` times the units ``ids`` (count,), each ``inner`` times in turn."""

    outer: Size
    ids: Ids
    inner: Size

    @property
    def size(self) -> Size:
        """How many entries there are."""
        return self.outer.times(_extent(self.ids)).times(self.inner)


class Axis(NamedTuple):
    """A dimension. ``zero``: what belongs to a removed unit is exactly 0 in the masked network."""

    parts: tuple[Part, ...]
    zero: bool = False

    @property
    def units(self) -> Ids:
        """Its units, without the entries that belong to none."""
        ids = np.concatenate([part.ids for part in self.parts])
        return ids[ids >= 0]

    @property
    def plain(self) -> bool:
        """True if nothing here can be removed."""
        return all(part.ids is NONE or (part.ids < 0).all() for part in self.parts)

    @property
    def single(self) -> bool:
        """True if it is of length 1 and without units, so that it can be repeated."""
        return self.parts[0].ids is NONE and self.size.known == 1

    @property
    def size(self) -> Size:
        """How long it is."""
        if len(self.parts) == 1:
            part = self.parts[0]
            return part.outer if part.ids is NONE and part.inner is ONE else part.size
        return Size(Fraction(1), frozenset([(self.parts, 1)])) if self.plain else unknown()

    def ids(self, count: int | None = None) -> Ids:
        """All units in a row, where there are ``count``; entries without a unit are −1.

        Raises:
            MisfitError: there is another number of entries.
            UnclearError: the number is not known.

        """
        if self.plain:
            number = self.size.known if len(self.parts) == 1 else None
            if count is None and number is None:
                raise UnclearError
            if None not in (count, number) and count != number:
                raise MisfitError
            return np.full(count if count is not None else number or 0, -1)
        parts = _solved(self.parts, count)
        ids = np.concatenate([_spread(part) for part in parts])
        if count is not None and len(ids) != count:
            raise MisfitError
        return ids


class Value:
    """A tensor between two calls; None among its axes stands for dimensions that are not known.

    ``strange``: it comes from a call that is not understood; nothing is known of its shape.
    """

    def __init__(self, axes: Sequence[Axis | None], strange: bool = False) -> None:
        self.axes, self.strange = list(axes), strange

    def place(self, dim: int) -> int:
        """Where a dimension stands in the list of axes."""
        gap, count = self.gap, len(self.axes)
        if gap is None and not -count <= dim < count:
            raise MisfitError
        if gap is not None and not (0 <= dim < gap or gap < count + dim < count):
            raise StrangeError if self.strange else UnclearError
        return dim % count

    def axis(self, dim: int) -> Axis:
        """The axis of a dimension."""
        axis = self.axes[self.place(dim)]
        assert axis is not None  # noqa: S101 -- place has checked it
        return axis

    @property
    def gap(self) -> int | None:
        """Where the dimensions that are not known stand."""
        return self.axes.index(None) if None in self.axes else None

    @property
    def whole(self) -> list[Axis]:
        """All axes."""
        if self.gap is not None:
            raise UnclearError
        return [axis for axis in self.axes if axis is not None]

    @property
    def units(self) -> Ids:
        """All units of all axes."""
        return np.concatenate([NONE[:0], *(axis.units for axis in self.axes if axis)])

    def refine(self, rank: int) -> None:
        """Put as many axes into the gap as make up the rank."""
        if (gap := self.gap) is not None:
            self.axes[gap : gap + 1] = [plain() for _ in range(rank + 1 - len(self.axes))]
        if len(self.axes) != rank:
            raise MisfitError


def plain(extent: Size | int | None = None) -> Axis:
    """An axis without units, of a known length or of one that is not known."""
    known = size(extent) if isinstance(extent, int) else extent or unknown()
    return Axis((Part(known, NONE, ONE),), True)


def along(ids: Ids, zero: bool = True) -> Axis:
    """An axis of these units."""
    return Axis((Part(ONE, ids, ONE),), zero)


def strange() -> Value:
    """What a call that is not understood puts out."""
    return Value([None], strange=True)


def _extent(ids: Ids) -> Size:
    if (ids < 0).all():
        return size(len(ids))
    return Size(Fraction(1), frozenset([(ids.tobytes(), 1)]))


def _spread(part: Part) -> Ids:
    outer, inner = part.outer.known, part.inner.known
    if outer is None or inner is None:
        raise UnclearError
    return np.tile(part.ids.repeat(inner), outer)


def _solved(parts: Sequence[Part], count: int | None) -> list[Part]:
    """The parts with the one size that is not known found from the number of all entries."""
    open_ = [i for i, p in enumerate(parts) if p.outer.known is None or p.inner.known is None]
    if count is None or len(open_) != 1:
        return list(parts)
    (at,) = open_
    others = sum(len(_spread(p)) for i, p in enumerate(parts) if i != at)
    part = parts[at]
    known = part.inner.known if part.outer.known is None else part.outer.known
    if known is None and len(part.ids) > 1:
        raise UnclearError
    times, rest = divmod(count - others, len(part.ids) * (known or 1))
    if rest or times < 1:
        raise MisfitError
    sides = (size(times), part.inner) if part.outer.known is None else (part.outer, size(times))
    solved = Part(sides[0], part.ids, sides[1] if known is not None else ONE)
    return [solved if i == at else p for i, p in enumerate(parts)]
